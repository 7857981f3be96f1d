"""The runs of one user as `sandbox ps` shows them: leases, notes, and what the kernel counts at this moment."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.cgroup_counters import cgroup_memory_bytes
from sandbox.cgroups import RunCgroup
from sandbox.errors import SandboxError, UnenforceableError
from sandbox.leases import LeasedRun, leased_runs
from sandbox.noted_cgroups import noted_cgroup
from sandbox.run_notes import RunNote, RunState, read_run_note

ABANDONED = "abandoned"
UNKNOWN = "unknown"
SHORT_NAME_CHARACTERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRun:
    """One run at the moment of looking."""

    lease: LeasedRun
    """Its folder, and whether its caller lives."""
    note: RunNote | None
    """What its caller says of it."""
    cgroup: RunCgroup
    """Its own cgroups, as far as the note names them; with no places where there are none."""

    @property
    def name(self) -> str:
        """32 lower-case hexadecimal characters."""
        return self.lease.folder.name

    @property
    def short_name(self) -> str:
        """As much of the name as people need."""
        return self.name[:SHORT_NAME_CHARACTERS]

    @property
    def state(self) -> str:
        """`starting`, `waiting`, `running`; `abandoned` by a dead caller; `unknown` while there is no note."""
        if not self.lease.held:
            return ABANDONED
        return UNKNOWN if self.note is None else self.note.state.value

    @property
    def waits(self) -> bool:
        """Whether it is a box that waits for code, of a caller that lives."""
        return self.state == RunState.WAITING.value

    def age_seconds(self) -> float | None:
        """How long it has been in its state."""
        return None if self.note is None else max(0.0, time.time() - self.note.since)

    def cpu_seconds(self) -> float | None:
        """The CPU time used so far, gVisor's own included; absent where nothing counts it."""
        with suppress(UnenforceableError, OSError):
            return self.cgroup.counters().cpu_seconds
        return None

    def memory_bytes(self) -> int | None:
        """The memory used now, gVisor's own included; absent where nothing counts it."""
        with suppress(OSError, ValueError):
            return cgroup_memory_bytes(self.cgroup.places)
        return None


def seen_runs(runs: Path) -> tuple[SeenRun, ...]:
    """Every run of a folder of runs, the oldest first.

    Raises:
        SandboxError: the folder cannot be read.
    """
    try:
        leases = leased_runs(runs)
    except OSError as error:
        raise SandboxError(
            key="runs",
            origin=str(runs),
            reason=f"it cannot be read: {error.strerror}",
            remedy="Run it as the user whose runs these are",
        ) from error
    found = (_seen_run(lease) for lease in leases)
    # What has ended meanwhile has no folder any more.
    return tuple(sorted((run for run in found if run.lease.folder.exists()), key=_start))


def _seen_run(lease: LeasedRun) -> SeenRun:
    note = read_run_note(lease.folder)
    return SeenRun(lease=lease, note=note, cgroup=noted_cgroup(note, lease.folder.name))


def _start(run: SeenRun) -> tuple[float, str]:
    return (0.0 if run.note is None else run.note.started, run.name)
