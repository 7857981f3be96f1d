"""Everything that a run could leave behind, as lines to compare: what there was before, and what there is after.

Only what can be told to be ours is looked at, since others run boxes on the same host: processes that this one started
or that name a test's folder, what these hold, and what stands in the test's own folder and cgroups.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sandbox.control import CONTROL_SOCKET_FOLDERS
from sandbox.processes import process_family
from tests.sandbox.conftest import Place, command_lines_with, eventually

KEPT_FOR_GOOD = re.compile(r"(runs|slots(/queue|/(instance|waiting)-[0-9]+)?)")
"""What a private folder holds whether or not anything runs: files that are only ever locked."""
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def traces_of(place: Place, *, descriptors: bool = True) -> frozenset[str]:
    """Every trace of runs at a place.

    Args:
        place: where they run.
        descriptors: whether those that this process has open count too.
    """
    held = _open_descriptors() if descriptors else ()
    return frozenset((*_processes(place), *_mounts(place), *_files(place), *_cgroups(place), *_sockets(), *held))


async def nothing_more_is_left(
    place: Place, before: frozenset[str], *, within_seconds: float = 10.0, descriptors: bool = True
) -> None:
    """Wait until there is no trace of runs at a place that was not there before."""
    try:
        await eventually(lambda: traces_of(place, descriptors=descriptors) <= before, within_seconds)
    except AssertionError:
        more = sorted(traces_of(place, descriptors=descriptors) - before)
        raise AssertionError(f"left behind: {more}") from None


def children_of_this_process() -> frozenset[int]:
    """All descendants of the process that runs the tests."""
    return process_family(os.getpid()) - {os.getpid()}


def _processes(place: Place) -> Iterator[str]:
    """Processes, and the namespaces that they are in and this one is not."""
    for number in children_of_this_process() | command_lines_with(f"{place.equipment.folder}/").keys():
        yield f"process {number}"
        for kind in NAMESPACES:
            inside, own = _namespace(number, kind), _namespace(os.getpid(), kind)
            if inside not in {own, ""}:
                yield f"namespace {inside}"


def _namespace(process: int, kind: str) -> str:
    try:
        return str(Path(f"/proc/{process}/ns/{kind}").readlink())
    except OSError:
        return ""


def _mounts(place: Place) -> Iterator[str]:
    """What is mounted at a place, and namespaces that a mount keeps."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        if " nsfs " in line or f"{place.equipment.folder}/" in line:
            yield f"mount {line}"


def _files(place: Place) -> Iterator[str]:
    for path in _below(place.equipment.folder):
        name = str(path.relative_to(place.equipment.folder))
        if not KEPT_FOR_GOOD.fullmatch(name):
            yield f"file {name}"


def _cgroups(place: Place) -> Iterator[str]:
    for found in place.cgroups.places:
        for path, _, _ in os.walk(found.folder):
            if path != str(found.folder):
                yield f"cgroup {path}"


def _below(folder: Path) -> Iterator[Path]:
    """Everything in a folder; what goes away meanwhile is no error."""
    for path, folders, files in os.walk(folder):
        yield from (Path(path, name) for name in (*folders, *files))


def _sockets() -> Iterator[str]:
    """Control sockets of boxes of which no process lives any more."""
    for folder in CONTROL_SOCKET_FOLDERS:
        for path in folder.glob("runsc-*.sock"):
            if not command_lines_with(path.stem.removeprefix("runsc-")):
                yield f"socket {path}"


def _open_descriptors() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            yield f"descriptor {entry.name} {entry.readlink()}"
        except FileNotFoundError:  # the one that this very listing has open
            continue
