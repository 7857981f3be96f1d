"""Empty cgroups of runs that no note leads to any more: a container that is made anew leaves them in its host's tree.

Whoever made one cannot be asked, since its private folder is gone, so nothing is ever killed here. One goes if it is
named as runs are, made by the running user in one of our `sandbox-lockdown` folders, empty at two looks and older than
any start; the kernel itself refuses to remove a cgroup in which there is a process or another cgroup.
"""

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sandbox.cgroups import CGROUP_FOLDER, RUN_NAME_PATTERN, CgroupParent, CgroupsUnavailable

FORGOTTEN_AFTER_SECONDS = 600.0
"""How old one must be: no start takes so long, so nobody is about to put a process into it."""
SECONDS_BETWEEN_LOOKS = 1.0
"""Time for a neighbour, whose code has just ended, to read what was counted for it."""


def forgotten_cgroups(cgroups: CgroupParent | CgroupsUnavailable, *, now: float) -> tuple[Path, ...]:
    """The cgroups of runs that look forgotten: old, empty and our own; whether a lease names one is not asked here.

    Args:
        cgroups: where cgroups of runs are made.
        now: seconds since 1970, to tell their age.
    """
    places = cgroups.places if isinstance(cgroups, CgroupParent) else ()
    return tuple(
        folder
        for place in places
        for folder in _folders_of_runs(place.folder / CGROUP_FOLDER)
        if _is_old_and_ours(folder, now - FORGOTTEN_AFTER_SECONDS) and _is_empty(folder)
    )


async def remove_forgotten(found: tuple[Path, ...]) -> None:
    """Remove those that are still empty after a moment, and the folders above them that hold no run any more.

    Args:
        found: out of `forgotten_cgroups`, none of them named by a lease.
    """
    if not found:
        return
    await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
    for folder in (*found, *{folder.parent for folder in found}):
        with suppress(OSError):  # in use after all, or removed by somebody else
            folder.rmdir()


def _folders_of_runs(shared: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from (folder for folder in sorted(shared.iterdir()) if RUN_NAME_PATTERN.fullmatch(folder.name))


def _is_old_and_ours(folder: Path, newest: float) -> bool:
    """Whether this user made it before then; the kernel may tell a later time than that, never an earlier one."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and status.st_mtime < newest


def _is_empty(folder: Path) -> bool:
    """Whether no process is in it, those that this process namespace does not see included."""
    with suppress(OSError):
        return not (folder / "cgroup.procs").read_bytes()
    return False
