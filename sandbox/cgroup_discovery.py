"""Finds where this process can make cgroups for runs; it only reads.

The memory, CPU and process controllers may be at a v1 hierarchy each, or together at v2; each that cannot be used is
told with its reason and remedy. Folders are plain paths below those that `/proc/self/mountinfo` names, believed only
where they list this process.
Source: cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5).
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from sandbox.cgroup_files import cgroup_members, cgroup_text, controller_names
from sandbox.cgroup_places import (
    ACCOUNTING_CONTROLLER,
    CGROUP_DELEGATION_REMEDY,
    CGROUP_KERNEL_REMEDY,
    CGROUP_MOUNT_REMEDY,
    CgroupController,
    CgroupPlace,
    CgroupVersion,
)
from sandbox.cgroups import CgroupParent, CgroupsUnavailable, MissingController

MEMBERSHIP_LOOKS = 5


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


def find_cgroup_parent(*, proc_root: Path = Path("/proc"), pid: int | None = None) -> CgroupParent | CgroupsUnavailable:
    """Find where the running process can make cgroups with memory, CPU and process limits; changes nothing.

    Args:
        proc_root: where `self/mountinfo` and `self/cgroup` are read.
        pid: the process they are about, as seen in `cgroup.procs`; the running one if absent.
    """
    try:
        mounts = _parsed_cgroup_mounts(cgroup_text(proc_root / "self" / "mountinfo"))
        own_paths = _parsed_own_paths(cgroup_text(proc_root / "self" / "cgroup"))
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
    present = controller_names(mount_point / "cgroup.controllers")
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
    if kind.exists() and cgroup_text(kind).strip() != "domain":
        return frozenset()
    if not (os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)):
        return frozenset()
    switch = folder / "cgroup.subtree_control"
    free = _is_root_cgroup(folder) or not cgroup_text(folder / "cgroup.procs").split()
    if free and os.access(switch, os.W_OK):
        return controller_names(folder / "cgroup.controllers")
    return controller_names(switch)


def _is_root_cgroup(folder: Path) -> bool:
    """Tell the true root: only there the file `cgroup.type` is missing, also seen from a cgroup namespace."""
    return not (folder / "cgroup.type").exists()


def _grouped_places(found: _FoundPlaces) -> tuple[CgroupPlace, ...]:
    """Make one place of controllers that share a hierarchy."""
    grouped: dict[Path, CgroupPlace] = {}
    for place in found.values():
        if isinstance(place, CgroupPlace):
            before = grouped.get(place.folder, place)
            grouped[place.folder] = replace(place, controllers=before.controllers | place.controllers)
    return tuple(grouped.values())
