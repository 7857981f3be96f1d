"""Real cgroups of version 2, laid out as systemd does it, and programs started in them as somebody.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst, "Delegation Containment"; systemd.resource-control(5),
`Delegate=` and `DelegateSubgroup=`; systemd's `cg_set_access` for the files that it hands over.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

HIERARCHY = Path("/sys/fs/cgroup")
PERSON = 1000
"""The ordinary user of these tests: in no password database, and owner of what is delegated to it."""
CONTROLLERS = ("cpu", "memory", "pids")

_DELEGATED_FILES = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_JOIN_AND_BECOME = 'echo $$ > "$1" || exit 125; shift; exec "$@"'
_OWN_NAMESPACE = 'umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'


def made_slice(path: str, *, handed_down: Sequence[str] = CONTROLLERS) -> Path:
    """Make a cgroup without processes that hands controllers down, and let those above it do so, too."""
    folder = HIERARCHY / path
    for above in reversed(folder.relative_to(HIERARCHY).parents):
        hand_down(HIERARCHY / above, handed_down)
    folder.mkdir()
    hand_down(folder, handed_down)
    return folder


def hand_down(folder: Path, controllers: Sequence[str] = CONTROLLERS) -> None:
    """Give the children of a cgroup these controllers."""
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def delegated_service(folder: Path, owner: int) -> Path:
    """Make a service with `Delegate=yes` and `DelegateSubgroup=runner`; returns the subgroup its processes start in."""
    for made in (folder, folder / "runner"):
        made.mkdir()
        for path in (made, *(made / name for name in _DELEGATED_FILES)):
            os.chown(path, owner, owner)
    return folder / "runner"


def command_in(folder: Path, command: Sequence[str], *, user: int = 0, own_namespace: bool = False) -> list[str]:
    """Give the command that joins a cgroup as root, and then becomes a program of somebody's.

    Args:
        folder: the cgroup.
        command: the program with its arguments.
        user: whose program it is to be.
        own_namespace: whether that cgroup is to look like the root of all, as it does in a container.
    """
    namespace = ["unshare", "--cgroup", "--mount", "/bin/sh", "-c", _OWN_NAMESPACE, "sh"] if own_namespace else []
    person = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []
    return ["/bin/sh", "-c", _JOIN_AND_BECOME, "sh", f"{folder}/cgroup.procs", *namespace, *person, *command]


def members(folder: Path) -> list[str]:
    """List the processes of a cgroup."""
    return (folder / "cgroup.procs").read_text().split()


def removed(folder: Path) -> None:
    """Remove a cgroup with those in it, whose processes are ended first."""
    if not folder.exists():
        return
    (folder / "cgroup.kill").write_text("1")
    subprocess.run(
        ["/bin/sh", "-c", f"while grep -q 1 {folder}/cgroup.events; do sleep 0.05; done"], check=False, timeout=30
    )
    for path, _, _ in os.walk(folder, topdown=False):
        Path(path).rmdir()
