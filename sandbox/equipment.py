"""What a host needs for running boxes, found or installed: gVisor, the file tree, cgroups, the private folder.

Everything here blocks, for minutes at worst; whoever has an event loop calls it in a thread.
"""

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from policy.effective import EffectiveLimits
from policy.limits import AUTO_INSTALL
from sandbox.cgroups import CgroupParent, CgroupsUnavailable, find_cgroup_parent
from sandbox.debian import apt_host
from sandbox.errors import SandboxError
from sandbox.folders import private_folder
from sandbox.gvisor import Runsc, auto_install_refused, find_runsc, install_runsc
from sandbox.release import ReleaseSource
from sandbox.tree import FileTree, Interpreter, build_tree

LAUNCHERS = ("/bin/sh", "setpriv")
"""Programs of the host that start a box: a shell joins its cgroups, `setpriv` ties it to the caller's life."""
LAUNCHER_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What this host has for running boxes."""

    runsc: Runsc
    """The gVisor that runs them."""
    tree: FileTree
    """The file tree that they see."""
    cgroups: CgroupParent | CgroupsUnavailable
    """Where cgroups can be made, or why they cannot."""
    folder: Path
    """The private folder, for runs and slots."""

    @property
    def gvisor_words(self) -> str:
        """Version, origin and age of gVisor, for people and records."""
        return runsc_words(self.runsc)

    def intact(self) -> bool:
        """Whether what was found is still there."""
        return self.runsc.path.exists() and self.tree.root.exists()


def runsc_words(runsc: Runsc) -> str:
    """Version, origin and age of a gVisor."""
    age = runsc.age_days(datetime.now(UTC).date())
    old = "" if age is None else f", {age} days old"
    return f"{runsc.version} ({runsc.origin.value}{old})"


def found_runsc(source: ReleaseSource, environ: Mapping[str, str]) -> Runsc | None:
    """The gVisor to use, if there is one already."""
    path_env = environ.get("PATH", os.defpath)
    return find_runsc(private_folder(environ), path_env, source, machine=platform.machine())


def installed_runsc(
    source: ReleaseSource, environ: Mapping[str, str], limits: EffectiveLimits, report: Callable[[str], None]
) -> Runsc:
    """Install gVisor, where the limits permit it.

    Raises:
        InstallError: they do not, or it could not be installed.
    """
    if not limits[AUTO_INSTALL]:
        raise auto_install_refused(source, limits.origin_of(AUTO_INSTALL))
    return install_runsc(private_folder(environ), source, apt_host(platform.machine(), environ), report)


def prepared(runsc: Runsc, environ: Mapping[str, str], report: Callable[[str], None]) -> Equipment:
    """Everything else that a box needs, besides gVisor.

    Raises:
        SandboxError: something is missing that no setting can do without.
    """
    for launcher in LAUNCHERS:
        if shutil.which(launcher, path=LAUNCHER_PATH) is None:
            raise SandboxError(
                key=launcher,
                origin="this host",
                reason="it is not there, and without it no box can be started",
                remedy="Install it: on Debian `apt-get install util-linux dash`",
            )
    folder = private_folder(environ)
    tree = build_tree(folder, Interpreter.current(), report)
    return Equipment(runsc=runsc, tree=tree, cgroups=find_cgroup_parent(), folder=folder)
