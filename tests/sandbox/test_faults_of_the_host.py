"""A host that fails: a full disk, cgroups that are gone or cannot be written, no descriptors left.

Each is an error that names what failed, and leaves nothing; a waiting box's refill that fails harms no run.
"""

import asyncio
import errno
import itertools
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.errors import SandboxError, StartError, UnenforceableError
from sandbox.outcome import Outcome, RunResult
from sandbox.run_notes import RunState
from sandbox.runner import Runner
from tests.sandbox.caller import CallerOrders, called
from tests.sandbox.conftest import PATIENCE, Place, eventually, ran, request_of
from tests.sandbox.pooled import pooled_runner, states_of_runs
from tests.sandbox.traces import nothing_more_is_left, traces_of

pytestmark = pytest.mark.gvisor

PAGE = os.sysconf("SC_PAGE_SIZE")
DISK_PAGES = 256
DISK_INODES = 256


# Full disk


@pytest.fixture
def small_disk(place: Place, tmp_path: Path) -> Iterator[Place]:
    """A place whose private folder is a small file system of its own."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    size = f"size={DISK_PAGES * PAGE},nr_inodes={DISK_INODES}"
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", size, "tmpfs", mount_point], check=True)
    try:
        folder = mount_point / "private"
        folder.mkdir(mode=0o700)
        yield replace(place, equipment=replace(place.equipment, folder=folder))
    finally:
        subprocess.run(["/bin/umount", mount_point], check=True)


def fill(folder: Path, *, free_pages: int) -> Path:
    """Leave so many pages free on the file system of a folder."""
    filler = folder.parent / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PAGE))
    os.truncate(filler, filler.stat().st_size - free_pages * PAGE)
    return filler


def fill_with_files(folder: Path, *, free_inodes: int) -> list[Path]:
    """Leave so many inodes free on the file system of a folder."""
    fillers: list[Path] = []
    with suppress(OSError):
        while True:
            fillers.append(folder.parent / f"filler-{len(fillers)}")
            fillers[-1].touch()
    for _ in range(free_inodes):
        (folder.parent / f"filler-{len(fillers) - 2}").unlink()
        fillers.pop()
    return fillers


async def refused_for_a_full_disk(place: Place) -> bool:
    """Run on a disk that may be full; whether it was refused, which then says so."""
    before = traces_of(place)
    ended: RunResult | BaseException
    (ended,) = await asyncio.gather(place.run("print(1)"), return_exceptions=True)
    await nothing_more_is_left(place, before)
    if isinstance(ended, RunResult):
        assert (ended.outcome, ended.output) == (Outcome.OK, "1\n")
        return False
    assert isinstance(ended, StartError)
    assert "the disk is full" in ended.reason
    assert str(place.equipment.folder) in ended.reason
    assert "Free space" in ended.remedy
    return True


@pytest.mark.parametrize("free_pages", [0, 1, 2, 3, 5])
async def test_disk_that_is_full_at_some_moment_is_an_error_that_says_so(small_disk: Place, free_pages: int) -> None:
    filler = fill(small_disk.equipment.folder, free_pages=free_pages)

    refused = await refused_for_a_full_disk(small_disk)
    filler.unlink()

    assert refused or free_pages
    assert free_pages or not await refused_for_a_full_disk(small_disk)


@pytest.mark.parametrize("free_inodes", [0, 1, 2, 4, 6, 8, 9, 10, 12])
async def test_disk_without_inodes_at_some_moment_is_an_error_that_says_so(small_disk: Place, free_inodes: int) -> None:
    fill_with_files(small_disk.equipment.folder, free_inodes=free_inodes)

    refused = await refused_for_a_full_disk(small_disk)

    assert refused or free_inodes > 8


async def test_full_disk_harms_no_run_whose_box_waits_already(small_disk: Place) -> None:
    before = traces_of(small_disk)
    async with pooled_runner(small_disk) as runner:
        filler = fill(small_disk.equipment.folder, free_pages=0)
        result = await runner.run(request_of("print(2)"))
        await asyncio.sleep(0.5)  # the refill fails meanwhile

        filler.unlink()
        again = await runner.run(request_of("print(3)"))

    assert (result.pooled, result.output, again.output) == (True, "2\n", "3\n")
    await nothing_more_is_left(small_disk, before)


# Cgroups


async def test_cgroup_that_is_gone_before_a_run_is_an_error_that_names_a_limit(place: Place) -> None:
    gone = [replace(one, folder=one.folder / "gone") for one in place.cgroups.places]
    equipment = replace(place.equipment, cgroups=replace(place.cgroups, places=tuple(gone)))
    before = traces_of(place)

    with pytest.raises(UnenforceableError) as caught:
        await ran(equipment, request_of("print(1)"))

    assert caught.value.key.startswith("max_")
    assert "gone" in caught.value.reason
    await nothing_more_is_left(place, before)


async def test_cgroup_that_turned_read_only_is_an_error_that_names_a_limit(place: Place) -> None:
    folders = [str(one.folder) for one in place.cgroups.places]
    mounting = " && ".join(f"mount --bind {path} {path} && mount -o remount,ro,bind {path}" for path in folders)
    through = ("unshare", "--mount", "/bin/sh", "-c", f'{mounting} && exec "$@"', "sh")
    orders = CallerOrders(equipment=place.equipment, codes=("print(1)",))
    before = traces_of(place)

    async with called(orders, through=through) as caller:
        assert caller.stdout is not None
        said = (await caller.stdout.read()).decode()

    assert said.startswith("UnenforceableError max_")
    assert "Read-only file system" in said
    await nothing_more_is_left(place, before)


async def test_cgroup_taken_away_from_a_run_is_an_error_and_never_a_good_outcome(place: Place) -> None:
    """Without its counters nobody can tell whether it ran out of memory."""
    before = traces_of(place)
    run = asyncio.create_task(place.run("import time; time.sleep(1)"))
    await eventually(lambda: RunState.RUNNING in states_of_runs(place), 20 * PATIENCE)
    (cgroup,) = place.cgroups.existing_runs()
    for made, above in zip(cgroup.places, place.cgroups.places, strict=True):
        for number in (made.folder / "cgroup.procs").read_text().split():
            (above.folder / "cgroup.procs").write_text(number)
        made.folder.rmdir()

    with pytest.raises(UnenforceableError, match="oom_kill"):
        await run
    await nothing_more_is_left(place, before)


# Descriptors


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """Permit this process so many more descriptors than it has open, whatever gaps are between those."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    free = (number for number in itertools.count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, more, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("pooled", [False, True])
async def test_box_is_killed_at_its_deadline_though_no_descriptor_is_to_be_had(place: Place, *, pooled: bool) -> None:
    await place.run("print(1)")
    before = traces_of(place)

    async with pooled_runner(place) if pooled else Runner(place.equipment) as runner:
        run = asyncio.create_task(runner.run(request_of("while True: pass", max_runtime_seconds=3)))
        await eventually(lambda: RunState.RUNNING in states_of_runs(place), 20 * PATIENCE)
        with few_descriptors(0):
            result = await run

    assert result.outcome is Outcome.TIMED_OUT
    await nothing_more_is_left(place, before)


@pytest.mark.parametrize("more", range(20))
async def test_process_out_of_descriptors_is_refused_and_keeps_none(place: Place, more: int) -> None:
    await place.run("print(1)")
    before = traces_of(place)

    with few_descriptors(more):
        run: RunResult | BaseException
        (run,) = await asyncio.gather(place.run("print(2)"), return_exceptions=True)

    assert isinstance(run, SandboxError) or (isinstance(run, RunResult) and run.output == "2\n")
    if isinstance(run, StartError):
        assert os.strerror(errno.EMFILE) in run.reason
    await nothing_more_is_left(place, before)
