"""What the kernel counted in the cgroups of one run, and what it still permits.

Source: the kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

from dataclasses import dataclass
from pathlib import Path

from sandbox.cgroup_files import cgroup_number
from sandbox.cgroup_places import (
    ACCOUNTING_CONTROLLER,
    MEMORY_LIMIT_FILES,
    CgroupController,
    CgroupPlace,
    CgroupVersion,
    cgroup_place_of,
    unenforceable_controller,
)

_MEMORY_USAGE_FILES = {CgroupVersion.V1: "memory.usage_in_bytes", CgroupVersion.V2: "memory.current"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the kernel counted for one run; read them before the cgroup is removed."""

    oom_kills: int
    """Kills because memory ran out, none of them missed; v2 counts one process twice where it ends a whole group."""
    peak_memory_bytes: int | None
    """The most memory used at once; absent where the kernel does not tell (v2 before 5.19)."""
    cpu_seconds: float | None
    """CPU time used; absent where nothing counts it."""
    pids_limit_hits: int
    """How often a new process or thread was refused."""


def counted(places: tuple[CgroupPlace, ...]) -> Counters:
    """Read what was counted so far in the cgroups of one run.

    Raises:
        UnenforceableError: the kernel does not tell whether memory ran out.
    """
    memory = cgroup_place_of(places, CgroupController.MEMORY)
    pids = cgroup_place_of(places, CgroupController.PIDS)
    return Counters(
        oom_kills=_oom_kills(memory) if memory else 0,
        peak_memory_bytes=_peak_memory_bytes(memory) if memory else None,
        cpu_seconds=cgroup_cpu_seconds(places),
        pids_limit_hits=cgroup_number(pids.folder / "pids.events", "max") or 0 if pids else 0,
    )


def cgroup_cpu_seconds(places: tuple[CgroupPlace, ...]) -> float | None:
    """Read the CPU time used: v1's `cpuacct` counts nanoseconds, v2's `cpu` microseconds."""
    accounting = cgroup_place_of(places, ACCOUNTING_CONTROLLER)
    if accounting is not None:
        nanoseconds = cgroup_number(accounting.folder / "cpuacct.usage", "")
        return None if nanoseconds is None else nanoseconds / 1e9
    unified = next((place for place in places if place.version is CgroupVersion.V2), None)
    microseconds = cgroup_number(unified.folder / "cpu.stat", "usage_usec") if unified else None
    return None if microseconds is None else microseconds / 1e6


def cgroup_memory_bytes(places: tuple[CgroupPlace, ...]) -> int | None:
    """All memory that is charged now, the cache of files included; `None` where nothing counts it."""
    place = cgroup_place_of(places, CgroupController.MEMORY)
    return None if place is None else _memory_usage_bytes(place)


def cgroup_memory_used_bytes(place: CgroupPlace) -> int | None:
    """Memory that cannot be had back: all that is charged but the cache of files."""
    used = _memory_usage_bytes(place)
    prefix = "total_" if place.version is CgroupVersion.V1 else ""
    cached = [cgroup_number(place.folder / "memory.stat", f"{prefix}{name}_file") for name in ("active", "inactive")]
    return None if used is None else used - sum(number or 0 for number in cached)


def memory_left_bytes(places: tuple[CgroupPlace, ...]) -> int | None:
    """Memory that the cgroups above those of runs still permit; `None` where none of them has a limit."""
    place = cgroup_place_of(places, CgroupController.MEMORY)
    lefts = (
        []
        if place is None
        else [_memory_left(place.version, folder) for folder in (place.folder, *place.folder.parents)]
    )
    return min((left for left in lefts if left is not None), default=None)


def _oom_kills(place: CgroupPlace) -> int:
    """Count kills for lack of memory; v1 tells since Linux 4.13, which is older than gVisor supports."""
    name = "memory.oom_control" if place.version is CgroupVersion.V1 else "memory.events"
    kills = cgroup_number(place.folder / name, "oom_kill")
    if kills is None:
        # Without it, running out of memory would pass for an ordinary failure.
        reason = f"{place.folder / name} tells no oom_kill"
        raise unenforceable_controller(CgroupController.MEMORY, reason, "Leave the cgroup alone while the run lasts")
    return kills


def _memory_usage_bytes(place: CgroupPlace) -> int | None:
    return cgroup_number(place.folder / _MEMORY_USAGE_FILES[place.version], "")


def _peak_memory_bytes(place: CgroupPlace) -> int | None:
    name = "memory.max_usage_in_bytes" if place.version is CgroupVersion.V1 else "memory.peak"
    return cgroup_number(place.folder / name, "")


def _memory_left(version: CgroupVersion, folder: Path) -> int | None:
    try:
        limit = cgroup_number(folder / MEMORY_LIMIT_FILES[version], "")
        used = cgroup_number(folder / _MEMORY_USAGE_FILES[version], "")
    except ValueError:  # the word `max`
        return None
    return None if limit is None or used is None else max(limit - used, 0)
