"""`sandbox install`: gVisor, beforehand."""

import os
import platform

import click

from policy.effective import fixed_limits
from sandbox.command_line import warn_on_terminal
from sandbox.equipment import found_runsc, installed_runsc, runsc_words
from sandbox.folders import private_folder
from sandbox.gvisor import upgraded_runsc
from sandbox.session import Session, gvisor_source


@click.command("install")
def install_command() -> None:
    """Install gVisor beforehand, into the private folder of this user.

    The official release is taken, pinned by its checksum; where its host is out of reach, an older gVisor that is
    already there stays, or else Debian's package is taken. One that is as new is left alone. This is an
    administrator's own act, so `auto_install` does not forbid it.

    \b
    Example:
      sandbox install
    """
    source = gvisor_source(Session(os.environ, warn_on_terminal).situation().environment.settings)
    runsc = found_runsc(source, os.environ)
    if runsc is None:
        limits = fixed_limits({"auto_install": True}, "sandbox install")
        runsc = installed_runsc(source, os.environ, limits, _report)
    else:
        runsc = upgraded_runsc(runsc, private_folder(os.environ), source, platform.machine(), _report)
    click.echo(f"gVisor {runsc_words(runsc)} is at {runsc.path}")


def _report(sentence: str) -> None:
    click.echo(sentence, err=True)
