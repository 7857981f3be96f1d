"""The cgroups that a run's note names, as far as they are proved to be that run's own.

Who cleans up or ends a run may stand in another cgroup than its caller, so the note says where the run's are. A note
is only text: a folder counts where it is a cgroup, reached through no link, named `…/sandbox-lockdown/<run name>`, and
made by the running user. Source: proc_pid_mountinfo(5), for the device number of each cgroup hierarchy.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sandbox.cgroup_places import CgroupPlace, CgroupVersion
from sandbox.cgroups import CGROUP_FOLDER, RUN_NAME_PATTERN, CgroupParent, CgroupsUnavailable, RunCgroup
from sandbox.run_notes import RunNote

_CGROUP_KINDS = {"cgroup": CgroupVersion.V1, "cgroup2": CgroupVersion.V2}


def noted_cgroup(note: RunNote | None, run_name: str) -> RunCgroup:
    """The cgroups that a note names and that are proved to be this run's; with no places where there are none.

    Args:
        note: what the run's folder says of it.
        run_name: the name of that folder, 32 lower-case hexadecimal characters.
    """
    folders = note.cgroup_folders if note is not None and RUN_NAME_PATTERN.fullmatch(run_name) else ()
    with suppress(OSError, ValueError):
        hierarchies = dict(_cgroup_hierarchies())
        places = (_proved_cgroup_place(Path(folder), run_name, hierarchies) for folder in dict.fromkeys(folders))
        return RunCgroup(run_name=run_name, places=tuple(place for place in places if place is not None))
    return RunCgroup(run_name=run_name, places=())


def every_cgroup(note: RunNote | None, run_name: str, here: CgroupParent | CgroupsUnavailable) -> RunCgroup:
    """The cgroups of one run: those of that name where this process makes cgroups, and those that the note names.

    Args:
        note: what the run's folder says of it.
        run_name: the name of that folder, 32 lower-case hexadecimal characters.
        here: where this process makes cgroups.
    """
    own = here.run_cgroup(run_name).places if isinstance(here, CgroupParent) else ()
    known = {place.folder for place in own}
    noted = (place for place in noted_cgroup(note, run_name).places if place.folder not in known)
    return RunCgroup(run_name=run_name, places=(*own, *noted))


def _proved_cgroup_place(
    folder: Path, run_name: str, hierarchies: dict[int, tuple[CgroupVersion, frozenset[str]]]
) -> CgroupPlace | None:
    if folder.name != run_name or folder.parent.name != CGROUP_FOLDER:
        return None
    # A text that is no path at all (NUL, half a surrogate pair) is a ValueError.
    with suppress(OSError, ValueError):
        found = folder.lstat()
        known = hierarchies.get(found.st_dev)
        if known is None or found.st_uid != os.geteuid() or os.path.realpath(folder) != str(folder):
            return None
        version, controllers = known
        if version is CgroupVersion.V2:
            controllers = frozenset((folder / "cgroup.controllers").read_text().split())
        return CgroupPlace(folder=folder, version=version, controllers=controllers)
    return None


def _cgroup_hierarchies() -> Iterator[tuple[int, tuple[CgroupVersion, frozenset[str]]]]:
    """Device number of each mounted cgroup hierarchy, with its interface and, on v1, its controllers."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, super_options = rest.split(" ", 2)
        version = _CGROUP_KINDS.get(kind)
        if version is not None:
            major, minor = map(int, fields.split(" ")[2].split(":"))
            yield os.makedev(major, minor), (version, frozenset(super_options.split(",")))
