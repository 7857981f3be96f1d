"""`sandbox install`: gVisor, beforehand."""

import os

import click

from policy.effective import fixed_limits
from sandbox.command_line import warn_on_terminal
from sandbox.equipment import found_runsc, installed_runsc, runsc_words
from sandbox.session import Session, gvisor_source


@click.command("install")
def install_command() -> None:
    """Install gVisor beforehand, into the private folder of this user.

    The official release is taken, pinned by its checksum; where its host is out of reach, Debian's package. A gVisor
    that is already there is left alone. This is an administrator's own act, so `auto_install` does not forbid it.

    \b
    Example:
      sandbox install
    """
    source = gvisor_source(Session(os.environ, warn_on_terminal).situation().environment.settings)
    runsc = found_runsc(source, os.environ)
    if runsc is None:
        limits = fixed_limits({"auto_install": True}, "sandbox install")
        runsc = installed_runsc(source, os.environ, limits, lambda sentence: click.echo(sentence, err=True))
    click.echo(f"gVisor {runsc_words(runsc)} is at {runsc.path}")
