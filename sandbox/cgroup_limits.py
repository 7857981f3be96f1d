"""What one run may use, set in its cgroups and proved by reading it back.

Source: the kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from sandbox.cgroup_files import cgroup_text, write_cgroup_file
from sandbox.cgroup_places import (
    CGROUP_DELEGATION_REMEDY,
    CGROUP_KERNEL_REMEDY,
    MEMORY_LIMIT_FILES,
    CgroupController,
    CgroupPlace,
    CgroupVersion,
    cgroup_place_of,
    unenforceable_controller,
)

CPU_PERIOD_MICROSECONDS = 100_000
CPU_QUOTA_FLOOR_MICROSECONDS = 1_000
SOCKET_RAM_BYTES = 32 << 20
"""What the kernel may hold for the TCP sockets of a box; cgroup v1 counts it apart from all other memory."""
_SOCKET_MEMORY_FILE = "memory.kmem.tcp.limit_in_bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """What one run may use; `None` is no limit."""

    memory_bytes: int | None
    """RAM of all its processes, gVisor's own included, in bytes; swap is shut off beside it."""
    cpu_thousandths: int | None
    """CPU time for each unit of wall time, in thousandths of one CPU; at least 10."""
    processes_hard_stop: int | None
    """Processes and threads, gVisor's own included: a stop behind the box's own softer limit."""

    def __post_init__(self) -> None:
        """Refuse what would mean something else to the kernel than to the reader."""
        if self.memory_bytes is not None and self.memory_bytes < os.sysconf("SC_PAGE_SIZE"):
            raise ValueError("memory_bytes is less than one page")
        if self.cpu_thousandths is not None and self.cpu_quota < CPU_QUOTA_FLOOR_MICROSECONDS:
            raise ValueError("cpu_thousandths is less than the kernel's smallest quota")
        if self.processes_hard_stop is not None and self.processes_hard_stop < 1:
            raise ValueError("processes_hard_stop is less than 1")

    @property
    def memory_pages_bytes(self) -> int:
        """The memory limit as the kernel keeps it: whole pages, rounded down."""
        memory_bytes = self.memory_bytes or 0
        return memory_bytes - memory_bytes % os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_quota(self) -> int:
        """Microseconds of CPU time in each period of 100 ms."""
        return (self.cpu_thousandths or 0) * CPU_PERIOD_MICROSECONDS // 1000

    def asked_for(self, controller: CgroupController) -> bool:
        """Whether a limit here needs that controller."""
        match controller:
            case CgroupController.MEMORY:
                return self.memory_bytes is not None
            case CgroupController.CPU:
                return self.cpu_thousandths is not None
            case CgroupController.PIDS:
                return self.processes_hard_stop is not None


def set_cgroup_limit(places: tuple[CgroupPlace, ...], controller: CgroupController, limits: CgroupLimits) -> None:
    """Set and prove one limit.

    Raises:
        UnenforceableError: its controller is not used here, or the kernel did not take it.
    """
    place = cgroup_place_of(places, controller)
    if place is None:
        raise unenforceable_controller(controller, f"no cgroup controls `{controller}`", CGROUP_DELEGATION_REMEDY)
    try:
        for name, value in _cgroup_limit_files(place, controller, limits):
            write_cgroup_file(place.folder / name, value)
            taken = cgroup_text(place.folder / name).split()
            if taken[: len(value.split())] != value.split():
                raise unenforceable_controller(
                    controller, f"{place.folder / name} says {' '.join(taken)} after {value}", CGROUP_DELEGATION_REMEDY
                )
    except OSError as error:
        reason = f"{error.filename or place.folder} cannot be set: {error.strerror}"
        raise unenforceable_controller(controller, reason, CGROUP_KERNEL_REMEDY.format(name=controller)) from error


def bounds_socket_memory(places: tuple[CgroupPlace, ...]) -> bool:
    """Whether the memory limit of cgroups here bounds kernel memory of sockets too. Source: memory.rst of v1 and v2."""
    of_memory = (place for place in places if CgroupController.MEMORY.value in place.controllers)
    return all(
        place.version is CgroupVersion.V2 or (place.folder / _SOCKET_MEMORY_FILE).exists() for place in of_memory
    )


def _cgroup_limit_files(
    place: CgroupPlace, controller: CgroupController, limits: CgroupLimits
) -> Iterator[tuple[str, str]]:
    """List the files to write in this order, and what they must say afterwards."""
    match controller:
        case CgroupController.MEMORY:
            yield from _cgroup_memory_files(place, str(limits.memory_pages_bytes))
        case CgroupController.PIDS:
            yield "pids.max", str(limits.processes_hard_stop)
        case CgroupController.CPU if place.version is CgroupVersion.V1:
            yield "cpu.cfs_period_us", str(CPU_PERIOD_MICROSECONDS)
            yield "cpu.cfs_quota_us", str(_permitted_quota(place.folder, limits.cpu_quota))
        case CgroupController.CPU:
            yield "cpu.max", f"{limits.cpu_quota} {CPU_PERIOD_MICROSECONDS}"
        case _:
            assert_never(controller)


def _cgroup_memory_files(place: CgroupPlace, limit: str) -> Iterator[tuple[str, str]]:
    """List the files that bound RAM and shut off swap, where the kernel has swap accounting."""
    wanted: tuple[tuple[str, str], ...]
    if place.version is CgroupVersion.V1:
        # A child inherits a switched-off killer, and would then hang at its limit instead of ending.
        wanted = (
            ("memory.limit_in_bytes", limit),
            ("memory.memsw.limit_in_bytes", limit),
            ("memory.swappiness", "0"),
            (_SOCKET_MEMORY_FILE, str(SOCKET_RAM_BYTES)),
        )
        write_cgroup_file(place.folder / "memory.oom_control", "0")
    else:
        wanted = (("memory.max", limit), ("memory.swap.max", "0"), ("memory.oom.group", "1"))
    for name, value in wanted:
        if name == MEMORY_LIMIT_FILES[place.version] or (place.folder / name).exists():
            yield name, value


def _permitted_quota(folder: Path, quota: int) -> int:
    """The CPU quota that is asked for, or what those above permit; they are looked at only where it is too much."""
    try:
        write_cgroup_file(folder / "cpu.cfs_quota_us", str(quota))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return min(quota, _quota_above(folder))
    return quota


def _quota_above(folder: Path) -> int:
    """Find the least CPU quota of the v1 cgroups above, for our period: a child with more is refused (EINVAL)."""
    quotas = [sys.maxsize]
    for above in folder.parents:
        if not (above / "cpu.cfs_quota_us").exists():
            break
        quota = int(cgroup_text(above / "cpu.cfs_quota_us"))
        period = int(cgroup_text(above / "cpu.cfs_period_us"))
        if quota > 0:
            quotas.append(max(quota * CPU_PERIOD_MICROSECONDS // period, CPU_QUOTA_FLOOR_MICROSECONDS))
    return min(quotas)
