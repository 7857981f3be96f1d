"""Ends runs by hand, for `sandbox kill`: first the mark, then the box, and only what is proved to be of that run.

Proved is what is in the run's own cgroups; where it has none, a process named `runsc…` that has a path inside the run's
folder among its arguments, asked again once it is pinned. What a dead caller left is for the reaper's rules.
Source: pidfd_open(2): a descriptor keeps meaning its process, whatever becomes of the number.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sandbox.cgroups import CgroupParent, CgroupsUnavailable
from sandbox.leases import LeasedRun, lease_held, remove_leftover
from sandbox.noted_cgroups import every_cgroup
from sandbox.processes import kill_members
from sandbox.run_notes import (
    RunState,
    mark_ended_by_administrator,
    read_run_note,
    unmark_ended_by_administrator,
)
from sandbox.seen_runs import SeenRun

ENDING_SECONDS = 10.0
"""How long a box may take to go, once it is killed."""
_UNFOUND_SECONDS = 3.0
_UNTIDIED_SECONDS = 2.0
_PAUSE_SECONDS = 0.02


class Ending(Enum):
    """What became of a run that was to be ended."""

    ENDED = "ended"
    """Its box was killed."""
    REMOVED = "removed"
    """Its caller was dead; what was left of it was removed."""
    GONE = "gone"
    """It had ended by itself meanwhile."""
    SPARED = "spared"
    """It waited when it was chosen, and was given code meanwhile."""
    FAILED = "failed"
    """It is still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """One run, and what became of it."""

    run: SeenRun
    """The run as it was seen before."""
    ending: Ending
    """What became of it."""
    reason: str = ""
    """Why it is still there, or what of it is, without full stop."""


@dataclass(slots=True)
class _Struck:
    """A run that is being ended."""

    run: SeenRun
    since: float
    """When the mark was made, on the monotonic clock."""
    last_seen: float | None = None
    """When a process of it was last found, on that clock."""


def end_runs(
    runs: Sequence[SeenRun], cgroups: CgroupParent | CgroupsUnavailable, *, only_waiting: bool = False
) -> tuple[EndedRun, ...]:
    """End runs, all at once; in their order, what became of each.

    Args:
        runs: which.
        cgroups: where this process makes cgroups; the notes of the runs may name others.
        only_waiting: spare those that were given code since they were seen.
    """
    ended: dict[str, EndedRun] = {}
    struck: list[_Struck] = []
    for run in runs:
        if not run.lease.held:
            ended[run.name] = _removed(run, cgroups)
        elif (ending := _marked(run, only_waiting=only_waiting)) is None:
            struck.append(_Struck(run=run, since=time.monotonic()))
        else:
            ended[run.name] = EndedRun(run=run, ending=ending)
    while struck:
        for each in tuple(struck):
            if (end := _struck_once(each, cgroups)) is not None:
                struck.remove(each)
                ended[end.run.name] = end
        time.sleep(_PAUSE_SECONDS)
    return tuple(ended[run.name] for run in runs)


def box_processes(folder: Path) -> frozenset[int]:
    """The processes of gVisor whose command line names a path inside a run's folder."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return frozenset(number for number in numbers if _serves_folder(number, folder))


def _removed(run: SeenRun, cgroups: CgroupParent | CgroupsUnavailable) -> EndedRun:
    _kill_box_processes(run.lease.folder)
    if remove_leftover(run.lease, cgroups):
        return EndedRun(run=run, ending=Ending.REMOVED)
    return EndedRun(run=run, ending=Ending.FAILED, reason=f"{run.lease.folder} or its cgroup cannot be removed")


def _marked(run: SeenRun, *, only_waiting: bool) -> Ending | None:
    """Make the mark; where the run needs no end any more, what became of it instead."""
    folder = run.lease.folder
    try:
        mark_ended_by_administrator(folder)
    except OSError:
        if not lease_held(folder):
            return Ending.GONE
        return None  # the mark only tells how it ended: a full disk does not keep anybody from ending it
    if only_waiting:
        # A caller looks for the mark, hands code over, and notes that: only within these three can it be missed here.
        note = read_run_note(folder)
        if note is None or note.state is not RunState.WAITING:
            unmark_ended_by_administrator(folder)
            return Ending.SPARED
    return None


def _struck_once(each: _Struck, cgroups: CgroupParent | CgroupsUnavailable) -> EndedRun | None:
    """Kill whatever is there of a run; once it is over, what became of it."""
    folder, now = each.run.lease.folder, time.monotonic()
    cgroup = every_cgroup(read_run_note(folder), each.run.name, cgroups)
    found = cgroup.kill_once() or _kill_box_processes(folder)
    if found:
        each.last_seen = now
        if now - each.since < ENDING_SECONDS:
            return None
        reason = f"{len(found)} of its processes cannot be ended"
        return EndedRun(run=each.run, ending=Ending.FAILED, reason=reason)
    if not lease_held(folder):
        if folder.is_dir():
            remove_leftover(LeasedRun(folder=folder, held=False), cgroups)
        return EndedRun(run=each.run, ending=Ending.GONE if each.last_seen is None else Ending.ENDED)
    return _still_leased(each, now)


def _still_leased(each: _Struck, now: float) -> EndedRun | None:
    """What became of a run of which no process is left, while its caller still holds the lease."""
    if each.last_seen is None and now - each.since >= _UNFOUND_SECONDS:
        unmark_ended_by_administrator(each.run.lease.folder)
        return EndedRun(run=each.run, ending=Ending.FAILED, reason="no process of it can be found here")
    if each.last_seen is not None and now - each.last_seen >= _UNTIDIED_SECONDS:
        return EndedRun(run=each.run, ending=Ending.ENDED, reason="its caller has not tidied up after it yet")
    return None


def _kill_box_processes(folder: Path) -> frozenset[int]:
    """Kill each process of a run's box that its command line proves; returns those that were there just before."""
    found = box_processes(folder)
    with suppress(OSError):
        # gVisor's kernel before its servants, which are older.
        kill_members(
            sorted(found, reverse=True), lambda: frozenset(number for number in found if _serves_folder(number, folder))
        )
    return found


def _serves_folder(number: int, folder: Path) -> bool:
    """Whether a process is one of gVisor's that works on something inside a folder. Source: proc_pid_cmdline(5)."""
    try:
        program, *arguments = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    inside = os.fsencode(folder) + b"/"
    return program.rpartition(b"/")[2].startswith(b"runsc") and any(
        argument.startswith(inside) or argument.partition(b"=")[2].startswith(inside) for argument in arguments
    )
