"""Control groups of one run: made, held, ended and removed by the runner itself.

The box's processes are born in these cgroups (a shell writes itself into `procs_files`, then becomes `runsc`), so the
limits bind before gVisor starts, the counters outlive the box, and no process of anybody else is ever moved. What
is made lies in a folder `sandbox-lockdown`, one folder for each run.
"""

import asyncio
import errno
import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from sandbox.cgroup_counters import Counters, cgroup_cpu_seconds, cgroup_memory_used_bytes, counted
from sandbox.cgroup_files import cgroup_members, cgroup_number, controller_names, write_cgroup_file
from sandbox.cgroup_limits import CgroupLimits, set_cgroup_limit
from sandbox.cgroup_places import (
    CGROUP_DELEGATION_REMEDY,
    MEMORY_LIMIT_FILES,
    CgroupController,
    CgroupPlace,
    CgroupVersion,
    cgroup_place_of,
    unenforceable_controller,
)
from sandbox.errors import UnenforceableError
from sandbox.processes import kill_members

K = TypeVar("K", bound=Collection[object])

CGROUP_FOLDER = "sandbox-lockdown"
RUN_NAME_PATTERN = re.compile(r"[0-9a-f]{32}")
SHARED_FOLDER_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupsUnavailable:
    """No controller at all can be used here."""

    reason: str
    """Why, without full stop."""
    remedy: str
    """The exact settings that would help, without full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingController:
    """One controller that cannot be used here, though others may be."""

    controller: CgroupController
    """Which one."""
    reason: str
    """Why, without full stop."""
    remedy: str
    """The exact settings that would help, without full stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCgroup:
    """The cgroups of one run. Nothing else uses them, so whatever is in them belongs to that run."""

    run_name: str
    """32 lower-case hexadecimal characters."""
    places: tuple[CgroupPlace, ...]
    """The run's own folder in each hierarchy used."""

    @property
    def procs_files(self) -> tuple[Path, ...]:
        """The files into which the run's first process writes itself, one for each hierarchy."""
        return tuple(place.folder / "cgroup.procs" for place in self.places)

    def processes(self) -> frozenset[int]:
        """All processes in the run's cgroups; zombies are not among them."""
        return frozenset().union(*(cgroup_members(place.folder) for place in self.places))

    def cpu_seconds(self) -> float | None:
        """CPU time used so far; `None` where nothing counts it."""
        return cgroup_cpu_seconds(self.places)

    def counters(self) -> Counters:
        """Read what was counted so far."""
        return counted(self.places)

    def hold_memory(self, more_bytes: int) -> int:
        """Lower the memory limit to what is used now, and so much more; returns what the limit is then.

        What the kernel caches of files counts as unused: it gives that up before it kills.

        Raises:
            UnenforceableError: the kernel does not tell what is used, or did not take the limit.
        """
        place = cgroup_place_of(self.places, CgroupController.MEMORY)
        used = cgroup_memory_used_bytes(place) if place else None
        if place is None or used is None:
            reason = f"no cgroup of {self.run_name} tells how much memory is used"
            raise unenforceable_controller(CgroupController.MEMORY, reason, CGROUP_DELEGATION_REMEDY)
        before = cgroup_number(place.folder / MEMORY_LIMIT_FILES[place.version], "") or 0
        lowered = CgroupLimits(
            memory_bytes=min(used + more_bytes, before), cpu_thousandths=None, processes_hard_stop=None
        )
        set_cgroup_limit(self.places, CgroupController.MEMORY, lowered)
        return lowered.memory_pages_bytes

    def hold_cpu(self, thousandths: int) -> None:
        """Set the CPU limit anew.

        Raises:
            UnenforceableError: the kernel did not take it.
        """
        limits = CgroupLimits(memory_bytes=None, cpu_thousandths=thousandths, processes_hard_stop=None)
        set_cgroup_limit(self.places, CgroupController.CPU, limits)

    def kill_once(self) -> frozenset[int]:
        """Send SIGKILL to each process in the run's cgroups; returns those that were there just before."""
        seen: set[int] = {os.getpid()}
        for place in self.places:
            fresh = cgroup_members(place.folder) - seen
            seen |= fresh
            if place.version is CgroupVersion.V2 and _cgroup_kill_written(place.folder):
                continue
            # gVisor's kernel before its servants, which are older.
            kill_members(sorted(fresh, reverse=True), partial(cgroup_members, place.folder))
        return frozenset(seen - {os.getpid()})

    async def kill(self, *, within_seconds: float = 5.0) -> frozenset[int]:
        """Kill again and again until nothing is left; returns what still was there when the time was over."""
        return await _repeated(self.kill_once, within_seconds)

    def remove_once(self) -> tuple[Path, ...]:
        """Try to remove each folder; returns those that are still there (a process is in one, or just left it).

        The shared folder goes with its last run, so that nothing is left in a cgroup that somebody else made.
        """
        remaining = tuple(place.folder for place in self.places if not _cgroup_folder_removed(place.folder))
        for shared in (place.folder.parent for place in self.places):
            if shared.name == CGROUP_FOLDER:
                _cgroup_folder_removed(shared)
        return remaining

    async def remove(self, *, within_seconds: float = 5.0) -> tuple[Path, ...]:
        """Remove the folders, retrying while the kernel calls them busy; returns those still there at the end."""
        return await _repeated(self.remove_once, within_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupParent:
    """Where cgroups for runs can be made on this host."""

    places: tuple[CgroupPlace, ...]
    """One for each hierarchy used; at least one."""
    missing: tuple[MissingController, ...]
    """The controllers that cannot be used, each with its reason and remedy."""

    def run_cgroup(self, run_name: str) -> RunCgroup:
        """Name the cgroups of one run, whether they exist or not."""
        if not RUN_NAME_PATTERN.fullmatch(run_name):
            raise ValueError("a run's name is 32 lower-case hexadecimal characters")
        return RunCgroup(run_name=run_name, places=tuple(_run_cgroup_place(place, run_name) for place in self.places))

    def existing_runs(self) -> tuple[RunCgroup, ...]:
        """All runs that have a folder here, those of other runners of this account included."""
        names = {
            entry.name
            for place in self.places
            if (place.folder / CGROUP_FOLDER).is_dir()
            for entry in (place.folder / CGROUP_FOLDER).iterdir()
            if RUN_NAME_PATTERN.fullmatch(entry.name) and entry.is_dir()
        }
        return tuple(self.run_cgroup(name) for name in sorted(names))

    def remove_once(self) -> tuple[Path, ...]:
        """Remove the `sandbox-lockdown` folders that hold no run; returns the others."""
        folders = (place.folder / CGROUP_FOLDER for place in self.places)
        return tuple(folder for folder in folders if not _cgroup_folder_removed(folder))


def make_cgroup_folder(folder: Path) -> None:
    """Make one cgroup, which the kernel fills with its files."""
    folder.mkdir(mode=0o755)


def make_cgroup(
    parent: CgroupParent,
    run_name: str,
    limits: CgroupLimits,
    *,
    make_folder: Callable[[Path], None] = make_cgroup_folder,
) -> RunCgroup:
    """Make the cgroups of one run and set its limits, proved by reading them back.

    Args:
        parent: from `find_cgroup_parent`.
        run_name: 32 lower-case hexadecimal characters, never used before.
        limits: each that is not `None` must be enforceable.
        make_folder: makes one cgroup.

    Raises:
        UnenforceableError: a limit's controller is missing, or the kernel did not take it; nothing is left behind.
    """
    for missing in parent.missing:
        if limits.asked_for(missing.controller):
            raise unenforceable_controller(missing.controller, missing.reason, missing.remedy)
    run = parent.run_cgroup(run_name)
    made: list[CgroupPlace] = []
    try:
        for place, run_place in zip(parent.places, run.places, strict=True):
            _make_run_folder(place, run_place.folder, make_folder)
            made.append(run_place)
            _hand_down_to_run(place, run_place.folder)
        for controller in CgroupController:
            if limits.asked_for(controller):
                set_cgroup_limit(run.places, controller, limits)
    except UnenforceableError:
        for place in made:
            _cgroup_folder_removed(place.folder)
        raise
    return run


async def _repeated(once: Callable[[], K], within_seconds: float) -> K:
    """Do something again and again, less and less often, until it leaves nothing; what it left the last time."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + within_seconds, 0.001
    while remaining := once():
        if loop.time() >= deadline:
            break
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)
    return remaining


def _run_cgroup_place(place: CgroupPlace, run_name: str) -> CgroupPlace:
    return replace(place, folder=place.folder / CGROUP_FOLDER / run_name)


def _first_controller(place: CgroupPlace) -> CgroupController:
    """Name the controller that a fault of the whole place is reported under."""
    return next((name for name in CgroupController if name in place.controllers), CgroupController.CPU)


def _make_run_folder(place: CgroupPlace, folder: Path, make_folder: Callable[[Path], None]) -> None:
    """Make one run's folder, and the shared one above it, which another runner may remove at the same time."""
    for try_number in range(1, SHARED_FOLDER_TRIES + 1):
        try:
            with suppress(FileExistsError):
                make_folder(folder.parent)
            if place.version is CgroupVersion.V2:
                _hand_down_controllers(place.folder, place.controllers)
            make_folder(folder)
        except OSError as error:
            # A shared folder that is gone, or on its way, is made anew; v1 says ENODEV of one on its way.
            if error.errno not in {errno.ENOENT, errno.ENODEV} or try_number == SHARED_FOLDER_TRIES:
                reason = f"the cgroup {folder} cannot be made: {error.strerror}"
                raise unenforceable_controller(_first_controller(place), reason, CGROUP_DELEGATION_REMEDY) from error
        else:
            return


def _hand_down_to_run(place: CgroupPlace, folder: Path) -> None:
    """Enable the controllers of a run's folder, whose being there keeps others from making the shared one anew."""
    if place.version is CgroupVersion.V1:
        return
    try:
        _hand_down_controllers(folder.parent, place.controllers)
    except OSError as error:
        reason = f"{folder.parent} cannot hand its controllers down: {error.strerror}"
        raise unenforceable_controller(_first_controller(place), reason, CGROUP_DELEGATION_REMEDY) from error


def _hand_down_controllers(folder: Path, controllers: frozenset[str]) -> None:
    """Enable controllers for the children of a v2 cgroup, writing only where some are not."""
    switch = folder / "cgroup.subtree_control"
    lacking = controllers - controller_names(switch)
    if lacking:
        write_cgroup_file(switch, " ".join(f"+{name}" for name in sorted(lacking)))


def _cgroup_kill_written(folder: Path) -> bool:
    """End all of a v2 cgroup in one stroke, forks under way included; tells whether the kernel can (5.14)."""
    try:
        write_cgroup_file(folder / "cgroup.kill", "1")
    except OSError:
        return False
    return True


def _cgroup_folder_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
