"""What a host needs for running boxes, found or installed: gVisor, the file tree, cgroups, the private folder.

Everything here blocks, for minutes at worst; whoever has an event loop calls it in a thread.
"""

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from policy.effective import EffectiveLimits
from policy.limits import AUTO_INSTALL
from sandbox.cgroup_discovery import find_cgroup_parent
from sandbox.cgroups import CgroupParent, CgroupsUnavailable
from sandbox.debian import apt_host
from sandbox.egress_network import EgressNetwork, HostNetwork
from sandbox.errors import SandboxError
from sandbox.folders import private_folder
from sandbox.gvisor import Runsc, auto_install_refused, find_runsc, install_runsc
from sandbox.host_binding import program_stamp
from sandbox.kept_launch import keep_launch, kept_launch, launch_binding
from sandbox.launch import Launch, found_launch
from sandbox.off_limits import host_off_limits
from sandbox.packages import Packages, PackagesOrder, offered_packages
from sandbox.proof import HostProof
from sandbox.release import ReleaseSource
from sandbox.spec import NetworkMode
from sandbox.tree import FileTree, build_tree
from sandbox.tree_plan import Interpreter

LAUNCHERS = ("/bin/sh", "setpriv", "unshare")
"""Programs of the host that start a box: a shell joins its cgroups, `setpriv` ties it to the caller's life,
`unshare` gives it a network namespace."""
LAUNCHER_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What this host has for running boxes."""

    runsc: Runsc
    """The gVisor that runs them; its arguments are all that `launch` needs."""
    tree: FileTree
    """The file tree that they see."""
    cgroups: CgroupParent | CgroupsUnavailable
    """Where cgroups can be made, or why they cannot."""
    folder: Path
    """The private folder, for runs and slots."""
    proof: HostProof | None = None
    """What the start-up probe found; `None` where nobody probed."""
    launch: Launch | None = None
    """How boxes start here; `None` where nobody tried."""
    packages: Packages | None = None
    """What the administrator offers to code beside the tree."""
    pool_imports: tuple[str, ...] = ()
    """Modules that the interpreters of waiting boxes import beforehand."""
    runsc_stamp: str | None = None
    """The program of `runsc` as it was when it was found; `None` where nobody looked."""
    network_way: NetworkMode = NetworkMode.PROXY
    """How code reaches what its limits permit."""
    egress_network: Callable[[], EgressNetwork] = HostNetwork
    """Where one box's permitted connections are made."""

    @property
    def gvisor_words(self) -> str:
        """Version, origin and age of gVisor, for people and records."""
        return runsc_words(self.runsc)

    def intact(self) -> bool:
        """Whether what was found is still there: gVisor the same program, packages still those that were offered."""
        unchanged = self.packages is None or self.packages.unchanged()
        return unchanged and self._same_runsc() and self.tree.root.exists()

    def _same_runsc(self) -> bool:
        """Whether no other program stands in its place: what was found out of this one does not hold for that."""
        with suppress(OSError):
            return program_stamp(self.runsc.path) == self.runsc_stamp
        return False


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


def prepared(
    runsc: Runsc,
    environ: Mapping[str, str],
    report: Callable[[str], None],
    order: PackagesOrder | None = None,
    *,
    gvisor_platform: str | None = None,
) -> Equipment:
    """Everything else that a box needs, besides gVisor.

    Args:
        runsc: the gVisor that runs it.
        environ: this process's environment.
        report: told in a few words what takes long.
        order: which packages to offer to code, if any.
        gvisor_platform: the only platform to try, where the administrator named one.

    Raises:
        LaunchError: no box starts here.
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
    folder, stamp = private_folder(environ), program_stamp(runsc.path)
    interpreter = Interpreter.current()
    packages = None
    if order is not None:
        off_limits = host_off_limits(environ, folder)
        packages = offered_packages(order, interpreter.library_name, off_limits, os.geteuid())
    tree = build_tree(folder, interpreter, report, packages)
    launch = _launch_here(runsc, tree, folder, gvisor_platform)
    return Equipment(
        runsc=replace(runsc, arguments=launch.arguments),
        tree=tree,
        cgroups=find_cgroup_parent(),
        folder=folder,
        packages=packages,
        launch=launch,
        runsc_stamp=stamp,
    )


def _launch_here(runsc: Runsc, tree: FileTree, folder: Path, gvisor_platform: str | None) -> Launch:
    """How boxes start here: as it was found before, or found now."""
    binding = launch_binding(runsc, gvisor_platform)
    launch = kept_launch(folder, binding)
    if launch is None:
        launch = found_launch(runsc, tree, folder, platform=gvisor_platform)
        keep_launch(folder, binding, launch)
    return launch
