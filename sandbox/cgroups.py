"""Control groups of one run: found, made, proved, counted, ended and removed by the runner itself.

The box's processes are born in these cgroups (a shell writes itself into `procs_files`, then becomes `runsc`), so the
limits bind before gVisor starts, the counters outlive the box, and no process of anybody else is ever moved. What
is made lies in a folder `sandbox-lockdown`, one folder for each run. Finding only reads; making proves each limit by
reading it back. Files are reached by plain paths below those that `/proc/self/mountinfo` names.
Source: the kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst; cgroup_namespaces(7).
"""

import asyncio
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeAlias, assert_never

from sandbox.errors import UnenforceableError
from sandbox.processes import kill_members

CGROUP_FOLDER = "sandbox-lockdown"
RUN_NAME_PATTERN = re.compile(r"[0-9a-f]{32}")
SHARED_FOLDER_TRIES = 10
MEMBERSHIP_LOOKS = 5
CPU_PERIOD_MICROSECONDS = 100_000
CPU_QUOTA_FLOOR_MICROSECONDS = 1_000

CGROUP_MOUNT_REMEDY = (
    "Docker: `--cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw`; Kubernetes: `securityContext.privileged: true` and "
    "a `hostPath` volume of `/sys/fs/cgroup` mounted there with `readOnly: false`; else mount /sys/fs/cgroup writable"
)
CGROUP_DELEGATION_REMEDY = (
    "systemd: `Delegate=yes` and `DelegateSubgroup=runner` (systemd 254 or newer) in the service, or run as root; "
    "Docker: `--cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw`; Kubernetes: `securityContext.privileged: true`"
)
CGROUP_KERNEL_REMEDY = (
    "Boot the kernel with `cgroup_enable={name}` and without `cgroup_disable={name}`, or use a kernel built with it"
)


class CgroupVersion(IntEnum):
    """Which interface the files of a hierarchy have."""

    V1 = 1
    V2 = 2


class CgroupController(StrEnum):
    """A kernel controller that a limit needs."""

    MEMORY = "memory"
    CPU = "cpu"
    PIDS = "pids"


LIMIT_OF_CONTROLLER = {
    CgroupController.MEMORY: "max_ram_megabytes",
    CgroupController.CPU: "max_cpus",
    CgroupController.PIDS: "max_processes",
}
ACCOUNTING_CONTROLLER = "cpuacct"
SOCKET_RAM_BYTES = 32 << 20
"""What the kernel may hold for the TCP sockets of a box; cgroup v1 counts it apart from all other memory."""
_SOCKET_MEMORY_FILE = "memory.kmem.tcp.limit_in_bytes"
_MEMORY_LIMIT_FILES = {CgroupVersion.V1: "memory.limit_in_bytes", CgroupVersion.V2: "memory.max"}
_MEMORY_USAGE_FILES = {CgroupVersion.V1: "memory.usage_in_bytes", CgroupVersion.V2: "memory.current"}


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
class CgroupPlace:
    """One cgroup of one hierarchy, and what it controls there."""

    folder: Path
    """The cgroup itself: in a `CgroupParent` the one that holds `sandbox-lockdown`, in a `RunCgroup` the run's own."""
    version: CgroupVersion
    """Which interface its files have."""
    controllers: frozenset[str]
    """Names of the controllers used there; on v1 `cpuacct` may be among them, which only counts."""


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
        return _cpu_seconds(self.places)

    def counters(self) -> Counters:
        """Read what was counted so far."""
        memory = _cgroup_place_of(self.places, CgroupController.MEMORY)
        pids = _cgroup_place_of(self.places, CgroupController.PIDS)
        return Counters(
            oom_kills=_oom_kills(memory) if memory else 0,
            peak_memory_bytes=_peak_memory_bytes(memory) if memory else None,
            cpu_seconds=_cpu_seconds(self.places),
            pids_limit_hits=_cgroup_number(pids.folder / "pids.events", "max") or 0 if pids else 0,
        )

    def hold_memory(self, more_bytes: int) -> int:
        """Lower the memory limit to what is used now, and so much more; returns what the limit is then.

        What the kernel caches of files counts as unused: it gives that up before it kills.

        Raises:
            UnenforceableError: the kernel does not tell what is used, or did not take the limit.
        """
        place = _cgroup_place_of(self.places, CgroupController.MEMORY)
        used = _memory_used_bytes(place) if place else None
        if place is None or used is None:
            reason = f"no cgroup of {self.run_name} tells how much memory is used"
            raise _unenforceable_controller(CgroupController.MEMORY, reason, CGROUP_DELEGATION_REMEDY)
        before = _cgroup_number(place.folder / _MEMORY_LIMIT_FILES[place.version], "") or 0
        lowered = CgroupLimits(
            memory_bytes=min(used + more_bytes, before), cpu_thousandths=None, processes_hard_stop=None
        )
        _set_cgroup_limit(self.places, CgroupController.MEMORY, lowered)
        return lowered.memory_pages_bytes

    def hold_cpu(self, thousandths: int) -> None:
        """Set the CPU limit anew.

        Raises:
            UnenforceableError: the kernel did not take it.
        """
        limits = CgroupLimits(memory_bytes=None, cpu_thousandths=thousandths, processes_hard_stop=None)
        _set_cgroup_limit(self.places, CgroupController.CPU, limits)

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
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + within_seconds, 0.001
        while remaining := self.kill_once():
            if loop.time() >= deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)
        return remaining

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
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + within_seconds, 0.001
        while remaining := self.remove_once():
            if loop.time() >= deadline:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)
        return remaining


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


def find_cgroup_parent(*, proc_root: Path = Path("/proc"), pid: int | None = None) -> CgroupParent | CgroupsUnavailable:
    """Find where the running process can make cgroups with memory, CPU and process limits; changes nothing.

    Args:
        proc_root: where `self/mountinfo` and `self/cgroup` are read.
        pid: the process they are about, as seen in `cgroup.procs`; the running one if absent.
    """
    try:
        mounts = _parsed_cgroup_mounts(_cgroup_text(proc_root / "self" / "mountinfo"))
        own_paths = _parsed_own_paths(_cgroup_text(proc_root / "self" / "cgroup"))
    except (OSError, ValueError) as error:
        return CgroupsUnavailable(
            reason=f"{proc_root}/self cannot be read: {error}", remedy="Mount /proc of this container's own processes"
        )
    own_pid = os.getpid() if pid is None else pid
    found = _found_v1(mounts, own_paths, own_pid)
    found |= _found_v2(mounts, own_paths, own_pid, wanted=frozenset(CgroupController) - found.keys())
    obstacles = {name: place for name, place in found.items() if isinstance(place, _CgroupObstacle)}
    missing = tuple(
        MissingController(controller=name, reason=obstacles[name].reason, remedy=obstacles[name].remedy)
        for name in CgroupController
        if name in obstacles
    )
    if len(missing) == len(CgroupController):
        return CgroupsUnavailable(reason=missing[0].reason, remedy=missing[0].remedy)
    return CgroupParent(places=_grouped_places(found), missing=missing)


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
            raise _unenforceable_controller(missing.controller, missing.reason, missing.remedy)
    run = parent.run_cgroup(run_name)
    made: list[CgroupPlace] = []
    try:
        for place, run_place in zip(parent.places, run.places, strict=True):
            _make_run_folder(place, run_place.folder, make_folder)
            made.append(run_place)
            _hand_down_to_run(place, run_place.folder)
        for controller in CgroupController:
            if limits.asked_for(controller):
                _set_cgroup_limit(run.places, controller, limits)
    except UnenforceableError:
        for place in made:
            _cgroup_folder_removed(place.folder)
        raise
    return run


def cgroup_members(folder: Path) -> frozenset[int]:
    """The processes in one cgroup, none where it is gone; those outside our process namespace are left out.

    Raises:
        OSError: it is there, and cannot be read.
    """
    try:
        words = _cgroup_text(folder / "cgroup.procs").split()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV}:
            return frozenset()
        raise
    return frozenset(map(int, words)) - {0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _CgroupMount:
    """One mounted hierarchy, or part of one."""

    root: PurePosixPath
    """The cgroup that is seen at the mount point."""
    point: Path
    """Where it is mounted."""
    version: CgroupVersion
    """Which interface it has."""
    controllers: frozenset[str]
    """On v1, its controllers."""
    read_only: bool
    """Whether the mount refuses writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CgroupObstacle:
    """Why a controller cannot be used."""

    reason: str
    """Without full stop."""
    remedy: str
    """Without full stop."""


_FoundPlaces: TypeAlias = dict[str, CgroupPlace | _CgroupObstacle]


def _cgroup_text(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        return file.readall().decode(errors="surrogateescape")


def _write_cgroup_file(path: Path, text: str) -> None:
    """Write in one call, and never create: a file that the kernel does not offer is an error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _unescaped_mount_field(field: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _parsed_cgroup_mounts(text: str) -> tuple[_CgroupMount, ...]:
    """Read the cgroup lines of mountinfo. Source: proc_pid_mountinfo(5)."""
    mounts: list[_CgroupMount] = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, super_options = rest.split(" ", 2)
        if kind not in {"cgroup", "cgroup2"}:
            continue
        root, point, options = fields.split(" ")[3:6]
        mounts.append(
            _CgroupMount(
                root=PurePosixPath(_unescaped_mount_field(root)),
                point=Path(_unescaped_mount_field(point)),
                version=CgroupVersion.V1 if kind == "cgroup" else CgroupVersion.V2,
                controllers=frozenset(super_options.split(",")),
                read_only="ro" in options.split(",") or "ro" in super_options.split(","),
            )
        )
    return tuple(mounts)


def _parsed_own_paths(text: str) -> dict[str, str]:
    """Map each v1 controller, and the empty name for v2, to the process's cgroup. Source: cgroups(7)."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    return paths


def _own_folder(mount: _CgroupMount, own_path: str, pid: int) -> Path | _CgroupObstacle:
    """Find the process's own cgroup below one mount, believing it only if it lists the process."""
    path = PurePosixPath(own_path)
    if ".." in path.parts or ".." in mount.root.parts or not path.is_relative_to(mount.root):
        return _CgroupObstacle(
            reason=f"{mount.point} shows {mount.root}, which does not hold this process's cgroup {own_path}",
            remedy=CGROUP_MOUNT_REMEDY,
        )
    folder = mount.point / path.relative_to(mount.root)
    # v1 tells a long list in pieces, and may leave out one that moved in it meanwhile: seen 3 times in 7,000.
    if not any(pid in cgroup_members(folder) for _ in range(MEMBERSHIP_LOOKS)):
        return _CgroupObstacle(reason=f"{folder} does not hold this process", remedy=CGROUP_MOUNT_REMEDY)
    if mount.read_only:
        return _CgroupObstacle(reason=f"{mount.point} is mounted read-only", remedy=CGROUP_MOUNT_REMEDY)
    return folder


def _found_v1(mounts: tuple[_CgroupMount, ...], own_paths: dict[str, str], pid: int) -> _FoundPlaces:
    """Find the place of each controller that is bound to a v1 hierarchy."""
    names = (*CgroupController, ACCOUNTING_CONTROLLER)
    return {name: _v1_place(name, mounts, own_paths[name], pid) for name in names if name in own_paths}


def _v1_place(name: str, mounts: tuple[_CgroupMount, ...], own_path: str, pid: int) -> CgroupPlace | _CgroupObstacle:
    obstacle = _CgroupObstacle(reason=f"the cgroup hierarchy of `{name}` is not mounted", remedy=CGROUP_MOUNT_REMEDY)
    for mount in mounts:
        if mount.version is not CgroupVersion.V1 or name not in mount.controllers:
            continue
        folder = _own_folder(mount, own_path, pid)
        if isinstance(folder, _CgroupObstacle):
            obstacle = folder
        elif os.access(folder, os.W_OK):
            return CgroupPlace(folder=folder, version=CgroupVersion.V1, controllers=frozenset({name}))
        else:
            obstacle = _CgroupObstacle(
                reason=f"this account may not make cgroups in {folder}", remedy=CGROUP_DELEGATION_REMEDY
            )
    return obstacle


def _found_v2(
    mounts: tuple[_CgroupMount, ...], own_paths: dict[str, str], pid: int, *, wanted: frozenset[CgroupController]
) -> _FoundPlaces:
    """Find the place of the controllers that v1 does not have: one for all of them."""
    if not wanted:
        return {}
    obstacle = _CgroupObstacle(reason="no cgroup v2 hierarchy is mounted", remedy=CGROUP_MOUNT_REMEDY)
    for mount in mounts:
        if mount.version is CgroupVersion.V1 or "" not in own_paths:
            continue
        folder = _own_folder(mount, own_paths[""], pid)
        if isinstance(folder, Path):
            return _v2_places(mount.point, folder, wanted)
        obstacle = folder
    return dict.fromkeys(wanted, obstacle)


def _v2_places(mount_point: Path, own: Path, wanted: frozenset[CgroupController]) -> _FoundPlaces:
    """Choose the nearest ancestor, `own` included, whose children can have most of the wanted controllers."""
    levels = (own, *own.parents)
    candidates = levels[: levels.index(mount_point) + 1]
    best = max(candidates, key=lambda folder: len(_grantable(folder) & wanted))
    granted = _grantable(best) & wanted
    place = CgroupPlace(folder=best, version=CgroupVersion.V2, controllers=frozenset(granted))
    present = _controller_names(mount_point / "cgroup.controllers")
    obstacles = {name: _v2_obstacle(name, mount_point, own, present=name in present) for name in wanted - granted}
    return dict.fromkeys(granted, place) | obstacles


def _v2_obstacle(name: str, mount_point: Path, own: Path, *, present: bool) -> _CgroupObstacle:
    if not present and _is_root_cgroup(mount_point):
        return _CgroupObstacle(
            reason=f"this kernel does not offer the cgroup controller `{name}`",
            remedy=CGROUP_KERNEL_REMEDY.format(name=name),
        )
    return _CgroupObstacle(
        reason=f"neither {own} nor a cgroup above it lets this account make a child limited by `{name}` "
        "without moving processes of others",
        remedy=CGROUP_DELEGATION_REMEDY,
    )


def _grantable(folder: Path) -> frozenset[str]:
    """Tell which controllers a new child of a v2 cgroup can have, moving nobody.

    A cgroup other than the true root cannot both hold processes and hand out controllers. A process may be
    placed only by who may write `cgroup.procs` of the nearest common ancestor, which is the folder itself.
    """
    kind = folder / "cgroup.type"
    if kind.exists() and _cgroup_text(kind).strip() != "domain":
        return frozenset()
    if not (os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)):
        return frozenset()
    switch = folder / "cgroup.subtree_control"
    free = _is_root_cgroup(folder) or not _cgroup_text(folder / "cgroup.procs").split()
    if free and os.access(switch, os.W_OK):
        return _controller_names(folder / "cgroup.controllers")
    return _controller_names(switch)


def _is_root_cgroup(folder: Path) -> bool:
    """Tell the true root: only there the file `cgroup.type` is missing, also seen from a cgroup namespace."""
    return not (folder / "cgroup.type").exists()


def _controller_names(path: Path) -> frozenset[str]:
    return frozenset(_cgroup_text(path).split())


def _grouped_places(found: _FoundPlaces) -> tuple[CgroupPlace, ...]:
    """Make one place of controllers that share a hierarchy."""
    grouped: dict[Path, CgroupPlace] = {}
    for place in found.values():
        if isinstance(place, CgroupPlace):
            before = grouped.get(place.folder, place)
            grouped[place.folder] = replace(place, controllers=before.controllers | place.controllers)
    return tuple(grouped.values())


def _run_cgroup_place(place: CgroupPlace, run_name: str) -> CgroupPlace:
    return replace(place, folder=place.folder / CGROUP_FOLDER / run_name)


def _cgroup_place_of(places: tuple[CgroupPlace, ...], controller: str) -> CgroupPlace | None:
    return next((place for place in places if controller in place.controllers), None)


def _unenforceable_controller(controller: CgroupController, reason: str, remedy: str) -> UnenforceableError:
    return UnenforceableError(key=LIMIT_OF_CONTROLLER[controller], origin="this host", reason=reason, remedy=remedy)


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
                raise _unenforceable_controller(_first_controller(place), reason, CGROUP_DELEGATION_REMEDY) from error
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
        raise _unenforceable_controller(_first_controller(place), reason, CGROUP_DELEGATION_REMEDY) from error


def _hand_down_controllers(folder: Path, controllers: frozenset[str]) -> None:
    """Enable controllers for the children of a v2 cgroup, writing only where some are not."""
    switch = folder / "cgroup.subtree_control"
    lacking = controllers - _controller_names(switch)
    if lacking:
        _write_cgroup_file(switch, " ".join(f"+{name}" for name in sorted(lacking)))


def _set_cgroup_limit(places: tuple[CgroupPlace, ...], controller: CgroupController, limits: CgroupLimits) -> None:
    """Set and prove one limit."""
    place = _cgroup_place_of(places, controller)
    if place is None:
        raise _unenforceable_controller(controller, f"no cgroup controls `{controller}`", CGROUP_DELEGATION_REMEDY)
    try:
        for name, value in _cgroup_limit_files(place, controller, limits):
            _write_cgroup_file(place.folder / name, value)
            taken = _cgroup_text(place.folder / name).split()
            if taken[: len(value.split())] != value.split():
                raise _unenforceable_controller(
                    controller, f"{place.folder / name} says {' '.join(taken)} after {value}", CGROUP_DELEGATION_REMEDY
                )
    except OSError as error:
        reason = f"{error.filename or place.folder} cannot be set: {error.strerror}"
        raise _unenforceable_controller(controller, reason, CGROUP_KERNEL_REMEDY.format(name=controller)) from error


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
        _write_cgroup_file(place.folder / "memory.oom_control", "0")
    else:
        wanted = (("memory.max", limit), ("memory.swap.max", "0"), ("memory.oom.group", "1"))
    for name, value in wanted:
        if name == _MEMORY_LIMIT_FILES[place.version] or (place.folder / name).exists():
            yield name, value


def bounds_socket_memory(parent: CgroupParent) -> bool:
    """Whether the memory limit of cgroups here bounds kernel memory of sockets too. Source: memory.rst of v1 and v2."""
    places = (place for place in parent.places if CgroupController.MEMORY.value in place.controllers)
    return all(place.version is CgroupVersion.V2 or (place.folder / _SOCKET_MEMORY_FILE).exists() for place in places)


def _permitted_quota(folder: Path, quota: int) -> int:
    """The CPU quota that is asked for, or what those above permit; they are looked at only where it is too much."""
    try:
        _write_cgroup_file(folder / "cpu.cfs_quota_us", str(quota))
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
        quota = int(_cgroup_text(above / "cpu.cfs_quota_us"))
        period = int(_cgroup_text(above / "cpu.cfs_period_us"))
        if quota > 0:
            quotas.append(max(quota * CPU_PERIOD_MICROSECONDS // period, CPU_QUOTA_FLOOR_MICROSECONDS))
    return min(quotas)


def _cgroup_number(path: Path, key: str) -> int | None:
    """Read one number of a file of `key number` lines, or of a lone number with the empty key."""
    try:
        lines = [line.split() for line in _cgroup_text(path).splitlines()]
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise  # it may well be there
        return None
    return next((int(words[-1]) for words in lines if words[:-1] == key.split()), None)


def _oom_kills(place: CgroupPlace) -> int:
    """Count kills for lack of memory; v1 tells since Linux 4.13, which is older than gVisor supports."""
    name = "memory.oom_control" if place.version is CgroupVersion.V1 else "memory.events"
    kills = _cgroup_number(place.folder / name, "oom_kill")
    if kills is None:
        # Without it, running out of memory would pass for an ordinary failure.
        reason = f"{place.folder / name} tells no oom_kill"
        raise _unenforceable_controller(CgroupController.MEMORY, reason, "Leave the cgroup alone while the run lasts")
    return kills


def _memory_used_bytes(place: CgroupPlace) -> int | None:
    """Memory that cannot be had back: all that is charged but the cache of files."""
    used = _cgroup_number(place.folder / _MEMORY_USAGE_FILES[place.version], "")
    prefix = "total_" if place.version is CgroupVersion.V1 else ""
    cached = [_cgroup_number(place.folder / "memory.stat", f"{prefix}{name}_file") for name in ("active", "inactive")]
    return None if used is None else used - sum(number or 0 for number in cached)


def _peak_memory_bytes(place: CgroupPlace) -> int | None:
    name = "memory.max_usage_in_bytes" if place.version is CgroupVersion.V1 else "memory.peak"
    return _cgroup_number(place.folder / name, "")


def _cpu_seconds(places: tuple[CgroupPlace, ...]) -> float | None:
    """Read the CPU time used: v1's `cpuacct` counts nanoseconds, v2's `cpu` microseconds."""
    accounting = _cgroup_place_of(places, ACCOUNTING_CONTROLLER)
    if accounting is not None:
        nanoseconds = _cgroup_number(accounting.folder / "cpuacct.usage", "")
        return None if nanoseconds is None else nanoseconds / 1e9
    unified = next((place for place in places if place.version is CgroupVersion.V2), None)
    microseconds = _cgroup_number(unified.folder / "cpu.stat", "usage_usec") if unified else None
    return None if microseconds is None else microseconds / 1e6


def _cgroup_kill_written(folder: Path) -> bool:
    """End all of a v2 cgroup in one stroke, forks under way included; tells whether the kernel can (5.14)."""
    try:
        _write_cgroup_file(folder / "cgroup.kill", "1")
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


def memory_left_bytes(cgroups: CgroupParent | CgroupsUnavailable) -> int | None:
    """Memory that the cgroups above those of runs still permit; `None` where none of them has a limit."""
    if isinstance(cgroups, CgroupsUnavailable):
        return None
    place = _cgroup_place_of(cgroups.places, CgroupController.MEMORY)
    lefts = (
        []
        if place is None
        else [_memory_left(place.version, folder) for folder in (place.folder, *place.folder.parents)]
    )
    return min((left for left in lefts if left is not None), default=None)


def _memory_left(version: CgroupVersion, folder: Path) -> int | None:
    try:
        limit = _cgroup_number(folder / _MEMORY_LIMIT_FILES[version], "")
        used = _cgroup_number(folder / _MEMORY_USAGE_FILES[version], "")
    except ValueError:  # the word `max`
        return None
    return None if limit is None or used is None else max(limit - used, 0)
