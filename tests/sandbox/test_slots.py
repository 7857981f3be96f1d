"""Runs at once are counted by locks that a dead process cannot keep, under names that nobody chose."""

import asyncio
import os
import re
import subprocess
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest

from policy.effective import EffectiveLimits
from policy.values import UNLIMITED
from sandbox.errors import BusyError
from sandbox.slots import QueueBounds, remove_free_slots, taken_slots
from tests.sandbox.conftest import limits_of

SLOT_NAME = re.compile(r"(person-[0-9a-f]{64}|instance)-[0-9]+")
REFUSE = QueueBounds(size=0, max_wait_seconds=0)
HOLDER = """
import asyncio, pathlib, sys
from policy.effective import fixed_limits
from sandbox.slots import QueueBounds, taken_slots

async def tell(sentence): raise AssertionError(sentence)

async def main():
    limits, bounds = fixed_limits({"max_concurrent_runs": 1}, "test"), QueueBounds(size=0, max_wait_seconds=0)
    async with taken_slots(pathlib.Path(sys.argv[1]), "ann", limits, bounds=bounds, tell=tell):
        print("held", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


RIVAL = """
import asyncio, os, pathlib, sys, time
from policy.effective import fixed_limits
from sandbox.errors import BusyError
from sandbox.slots import QueueBounds, taken_slots

async def tell(sentence): pass

async def main():
    limits, bounds = fixed_limits({"max_concurrent_runs": 1}, "test"), QueueBounds(size=0, max_wait_seconds=0)
    folder, held, end = pathlib.Path(sys.argv[1]), 0, time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        try:
            async with taken_slots(folder / "slots", "ann", limits, bounds=bounds, tell=tell):
                os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
                os.sched_yield()
                (folder / "alone").unlink()
                held += 1
        except BusyError:
            continue
    print(held)

asyncio.run(main())
"""
"""Takes the one slot of a person again and again, and fails if somebody else has it at the same time."""


async def tell_nobody(sentence: str) -> None:
    raise AssertionError(f"nobody waits, but was told {sentence}")


def at_once(folder: Path, person: str, limits: EffectiveLimits) -> AbstractAsyncContextManager[None]:
    """The slots of one run, or a refusal: nobody may wait."""
    return taken_slots(folder, person, limits, bounds=REFUSE, tell=tell_nobody)


async def attempt(folder: Path, person: str, limits: EffectiveLimits) -> None:
    async with at_once(folder, person, limits):
        pass


async def test_as_many_runs_as_permitted_go_at_once_and_the_next_names_limit_and_origin(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=2)

    async with at_once(tmp_path, "ann", limits), at_once(tmp_path, "ann", limits):
        with pytest.raises(BusyError) as caught:
            await attempt(tmp_path, "ann", limits)

    assert caught.value.key == "max_concurrent_runs"
    assert "test" in caught.value.origin
    assert (
        caught.value.reason == "as many runs are under way as are permitted at once (2 runs), and no queue is permitted"
    )
    assert caught.value.remedy == "Try again when one has ended, or stop one"


async def test_a_slot_is_free_again_once_its_run_has_ended_or_failed(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=1)

    with pytest.raises(ZeroDivisionError):
        async with at_once(tmp_path, "ann", limits):
            raise ZeroDivisionError
    async with at_once(tmp_path, "ann", limits):
        pass


async def test_a_slot_is_free_again_although_a_forked_process_still_has_its_descriptor(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=1)

    async with at_once(tmp_path, "ann", limits):
        (copy,) = copied_descriptors(tmp_path)
    try:
        async with at_once(tmp_path, "ann", limits):
            pass
    finally:
        os.close(copy)


async def test_one_persons_runs_do_not_count_for_another(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=1)

    async with at_once(tmp_path, "ann", limits), at_once(tmp_path, "bob", limits):
        pass


async def test_the_instances_limit_counts_all_persons_and_frees_the_persons_slot_on_refusal(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=1, max_instance_runs=1)

    async with at_once(tmp_path, "ann", limits):
        with pytest.raises(BusyError, match=r"permitted at once \(1 run\)") as caught:
            await attempt(tmp_path, "bob", limits)
    async with at_once(tmp_path, "bob", limits):
        pass

    assert caught.value.key == "max_instance_runs"


async def test_a_tighter_limit_counts_runs_that_began_under_a_looser_one(tmp_path: Path) -> None:
    async with at_once(tmp_path, "ann", limits_of(max_concurrent_runs=5)):
        with pytest.raises(BusyError):
            await attempt(tmp_path, "ann", limits_of(max_concurrent_runs=1))


async def test_unlimited_runs_take_no_slot(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=UNLIMITED, max_instance_runs=UNLIMITED)

    async with AsyncExitStack() as stack:
        for _ in range(50):
            await stack.enter_async_context(at_once(tmp_path, "ann", limits))
        assert names_in(tmp_path) == []


async def test_a_hundred_starts_at_limit_three_never_over_run_it(tmp_path: Path) -> None:
    limits, all_tried, admitted = limits_of(max_concurrent_runs=3), asyncio.Barrier(100), []

    async def start() -> None:
        try:
            async with at_once(tmp_path, "ann", limits):
                admitted.append(1)
                await all_tried.wait()
        except BusyError:
            await all_tried.wait()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(start())

    assert len(admitted) == 3


def test_a_killed_process_keeps_no_slot(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError):
            asyncio.run(attempt(tmp_path, "ann", limits))
        process.kill()
        process.wait()
        asyncio.run(attempt(tmp_path, "ann", limits))


async def test_persons_slot_leaves_no_file_behind(tmp_path: Path) -> None:
    for person in ("ann", "bob", "cleo"):
        async with at_once(tmp_path, person, limits_of(max_concurrent_runs=1, max_instance_runs=2)):
            assert len(names_in(tmp_path)) == 2

    assert names_in(tmp_path) == ["instance-0"]


def test_slot_that_is_removed_and_made_anew_all_the_time_never_has_two_holders(tmp_path: Path) -> None:
    rivals = [
        subprocess.Popen([sys.executable, "-c", RIVAL, str(tmp_path), "1.5"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    held = [rival.communicate(timeout=60)[0] for rival in rivals]

    assert [rival.returncode for rival in rivals] == [0, 0, 0]
    assert sum(map(int, held)) > 0


def test_files_of_slots_that_killed_processes_left_are_removed_and_held_ones_stay(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        held = sorted(names_in(tmp_path))
        remove_free_slots(tmp_path)
        assert sorted(names_in(tmp_path)) == held
        process.kill()
    assert sorted(names_in(tmp_path)) == held

    remove_free_slots(tmp_path)

    assert names_in(tmp_path) == ["instance-0"]
    remove_free_slots(tmp_path / "absent")


@pytest.mark.parametrize(
    "person",
    [
        pytest.param("../../x", id="path"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("", id="empty"),
        pytest.param("x" * (1 << 20), id="1-MiB"),
        pytest.param("\ud800", id="lone-surrogate"),
        pytest.param("instance", id="like-ours"),
    ],
)
async def test_hostile_person_id_names_no_file(tmp_path: Path, person: str) -> None:
    inside = tmp_path / "slots"

    async with at_once(inside, person, limits_of(max_instance_runs=1)):
        names = names_in(inside)

    assert all(SLOT_NAME.fullmatch(name) for name in names)
    assert names_in(tmp_path) == ["slots"]


def test_a_planted_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "instance-0").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        asyncio.run(attempt(tmp_path, "ann", limits_of(max_instance_runs=1)))

    assert not (tmp_path / "elsewhere").exists()


def test_the_folder_is_private(tmp_path: Path) -> None:
    asyncio.run(attempt(tmp_path / "slots", "ann", limits_of()))

    assert (tmp_path / "slots").stat().st_mode & 0o777 == 0o700


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def copied_descriptors(folder: Path) -> list[int]:
    """Copies, as a fork makes them, of all of this process's descriptors of files in a folder."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if str(folder) in str(entry.resolve())]
    return [os.dup(number) for number in numbers]
