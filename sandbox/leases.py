"""Folders of runs, each held by a lock as long as its runner lives, and the removal of what dead runners left behind.

A server that is stopped by a signal never comes to its own clean-up; its boxes die with it, but their folders and
cgroups stay. The next runner of this user removes them. It acts only on what it can prove: a folder in our own private
folder, named as runs are named, whose lock nobody holds, and the cgroup of that very name.

Source: flock(2); the lock is on the folder itself, so there is no moment between making and locking a file in it.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sandbox.cgroups import RUN_NAME_PATTERN, CgroupParent, CgroupsUnavailable

RUNS_FOLDER = "runs"
"""Where the folders of runs are, in the private folder."""


@contextmanager
def leased_folder(runs: Path, run_name: str) -> Iterator[Path]:
    """Make a run's folder, and hold its lock for as long as the context lasts; whoever made it removes it.

    Args:
        runs: where such folders are, private to the running user.
        run_name: 32 lower-case hexadecimal characters, never used before.
    """
    runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _folder_lock_held(runs, fcntl.LOCK_SH):
        folder = runs / run_name
        folder.mkdir(mode=0o700)
        descriptor = _opened_folder(folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        os.close(descriptor)


async def remove_leftovers(runs: Path, cgroups: CgroupParent | CgroupsUnavailable) -> tuple[str, ...]:
    """Remove the folders and cgroups of runs whose runner is dead; returns their names."""
    abandoned = await asyncio.to_thread(_abandoned_runs, runs)
    for run_name in abandoned:
        if isinstance(cgroups, CgroupParent):
            cgroup = cgroups.run_cgroup(run_name)
            await cgroup.kill()
            await cgroup.remove()
        await asyncio.to_thread(shutil.rmtree, runs / run_name, ignore_errors=True)
    return abandoned


def _abandoned_runs(runs: Path) -> tuple[str, ...]:
    """The names of run folders that nobody holds, with no folder half-made meanwhile."""
    if not runs.is_dir():
        return ()
    with _folder_lock_held(runs, fcntl.LOCK_EX):
        return tuple(
            entry.name for entry in sorted(runs.iterdir()) if RUN_NAME_PATTERN.fullmatch(entry.name) and _is_free(entry)
        )


def _is_free(folder: Path) -> bool:
    with suppress(OSError):
        descriptor = _opened_folder(folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
        return True
    return False


@contextmanager
def _folder_lock_held(folder: Path, operation: int) -> Iterator[None]:
    descriptor = _opened_folder(folder)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _opened_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
