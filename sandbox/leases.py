"""Folders of runs, each held by a lock as long as its runner lives, and the removal of what dead runners left behind.

A server that is stopped by a signal never comes to its own clean-up; its boxes die with it, but their folders and
cgroups stay. The next runner of this user removes them. It acts only on what it can prove: a folder in our own private
folder, named as runs are named, whose lock nobody holds, and the cgroups of that very name.

Source: flock(2); the lock is on the folder itself, so there is no moment between making and locking a file in it.
"""

import asyncio
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.cgroups import RUN_NAME_PATTERN, CgroupParent, CgroupsUnavailable
from sandbox.control import control_socket_files
from sandbox.forgotten_cgroups import forgotten_cgroups, remove_forgotten
from sandbox.noted_cgroups import every_cgroup
from sandbox.run_notes import read_run_note

RUNS_FOLDER = "runs"
"""Where the folders of runs are, in the private folder."""
_REMOVAL_SECONDS = 5.0


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
        try:
            descriptor = _opened_folder(folder)
        except OSError:
            folder.rmdir()
            raise
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedRun:
    """A run's folder, and whether whoever made it still lives."""

    folder: Path
    """The folder, whose name is the run's."""
    held: bool
    """Whether somebody holds its lock; who lets go of it is dead, or done with the run."""


def leased_runs(runs: Path) -> tuple[LeasedRun, ...]:
    """Every run that has a folder, with none half-made meanwhile; links are no folders of runs.

    Raises:
        OSError: the folder of runs cannot be read.
    """
    if not runs.is_dir():
        return ()
    with _folder_lock_held(runs, fcntl.LOCK_EX):
        entries = [entry for entry in sorted(runs.iterdir()) if RUN_NAME_PATTERN.fullmatch(entry.name)]
        return tuple(LeasedRun(folder=entry, held=not _is_free(entry)) for entry in entries if _is_own_folder(entry))


def lease_held(folder: Path) -> bool:
    """Whether a run's folder is there, and whoever made it lives."""
    return folder.is_dir() and not _is_free(folder)


async def remove_leftovers(
    runs: Path, cgroups: CgroupParent | CgroupsUnavailable, *, clock: Callable[[], float] = time.time
) -> tuple[str, ...]:
    """Remove the folders and cgroups of runs whose runner is dead, and forgotten cgroups; returns the runs' names.

    Args:
        runs: where the folders are.
        cgroups: where this process makes cgroups.
        clock: tells seconds since 1970, for the age of cgroups.
    """
    # Looked for before the leases: a run has its folder before it has its cgroups.
    forgotten = await asyncio.to_thread(forgotten_cgroups, cgroups, now=clock())
    found = await asyncio.to_thread(leased_runs, runs)
    abandoned = [run for run in found if not run.held]
    for run in abandoned:
        await asyncio.to_thread(remove_leftover, run, cgroups)
    named = {run.folder.name for run in found}
    await remove_forgotten(tuple(folder for folder in forgotten if folder.name not in named))
    return tuple(run.folder.name for run in abandoned)


def remove_leftover(run: LeasedRun, cgroups: CgroupParent | CgroupsUnavailable) -> bool:
    """Remove the folder and the cgroups of one run whose runner is dead; returns whether nothing is left.

    Args:
        run: out of `leased_runs`, not held.
        cgroups: where this process makes cgroups; the run's note may name others.

    Raises:
        ValueError: it is held.
    """
    if run.held:
        raise ValueError("the run's caller lives")
    name = run.folder.name
    cgroup = every_cgroup(read_run_note(run.folder), name, cgroups)
    gone = _came_true(lambda: not cgroup.kill_once()) and _came_true(lambda: not cgroup.remove_once())
    if gone:
        # Not before: without its folder, nothing would lead to the cgroups any more.
        # The first lies in the folder and goes with it; what stands there now might be a link that leads elsewhere.
        for left in control_socket_files(run.folder / "state", name)[1:]:
            with suppress(OSError):
                left.unlink()
        shutil.rmtree(run.folder, ignore_errors=True)
    return gone and not run.folder.exists()


def _came_true(condition: Callable[[], bool]) -> bool:
    """Ask again and again, for as long as a kernel may need to end and remove what is in a cgroup."""
    deadline, pause = time.monotonic() + _REMOVAL_SECONDS, 0.001
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def _is_own_folder(path: Path) -> bool:
    """Whether it is a folder that this user made: another user's is no run of ours, whatever it is called."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _is_free(folder: Path) -> bool:
    """Whether nobody holds a run's folder; asked with a shared lock, so that those who ask do not see each other."""
    with suppress(OSError):
        descriptor = _opened_folder(folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
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
