"""Boxes that wait: who gets one, how many there are, and when they go."""

import asyncio
import gc
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.values import UNLIMITED
from sandbox.errors import StartError
from sandbox.outcome import Outcome
from sandbox.pool import Pool, automatic_pool_size, shares
from sandbox.run_notes import RunNote, RunState, read_run_note
from sandbox.runner import Runner
from tests.sandbox.conftest import Place, eventually, request_of

MEBIBYTE = 1 << 20


# How many


@pytest.mark.parametrize(
    ("free_megabytes", "instance_runs", "size"),
    [
        pytest.param(64 * 1024, 8, 4, id="plenty-of-memory"),
        pytest.param(64 * 1024, None, 4, id="any-number-of-runs"),
        pytest.param(64 * 1024, 1, 1, id="no-more-than-may-run"),
        pytest.param(1024, 8, 2, id="an-eighth-of-a-gigabyte-holds-two"),
        pytest.param(400, 8, 0, id="too-little-memory-for-one"),
    ],
)
def test_automatic_size_follows_memory_and_policy(free_megabytes: int, instance_runs: int | None, size: int) -> None:
    assert automatic_pool_size(free_megabytes * MEBIBYTE, instance_runs) == size


@pytest.mark.parametrize(
    ("digests", "size", "expected"),
    [
        pytest.param(("a",), 3, {"a": 3}, id="all-of-the-only-one"),
        pytest.param(("a", "b"), 3, {"a": 2, "b": 1}, id="one-of-each-and-the-rest-of-the-last"),
        pytest.param(("a", "b", "c"), 2, {"a": 1, "b": 1}, id="the-oldest-goes-without"),
        pytest.param((), 2, {}, id="nobody-asked"),
        pytest.param(("a",), 0, {}, id="no-pool"),
    ],
)
def test_shares(digests: tuple[str, ...], size: int, expected: dict[str, int]) -> None:
    assert shares(digests, size) == expected


@given(st.lists(st.text(max_size=3), unique=True).map(tuple), st.integers(min_value=0, max_value=9))
def test_shares_never_exceed_the_size(digests: tuple[str, ...], size: int) -> None:
    assert sum(shares(digests, size).values()) == (size if digests else 0)


# With real boxes


async def _never() -> bool:
    return False


def pool_of(place: Place, *, size: int = 1, outdated: Callable[[], Awaitable[bool]] = _never, idle: float = 60) -> Pool:
    return Pool(place.equipment.folder / "slots", size=size, outdated=outdated, idle_seconds=idle)


def waiting(place: Place) -> int:
    notes = map(read_run_note, place.runs.iterdir() if place.runs.exists() else ())
    return sum(1 for note in notes if note is not None and note.state is RunState.WAITING)


@asynccontextmanager
async def warmed(place: Place, pool: Pool) -> AsyncIterator[Runner]:
    """A runner of which a box waits already."""
    async with Runner(place.equipment, pool=pool) as runner:
        await runner.run(request_of("print(1)"))
        await eventually(lambda: waiting(place) > 0, 30)
        yield runner


pytestmark = pytest.mark.gvisor


async def test_second_run_gets_the_box_that_waited(place: Place) -> None:
    async with warmed(place, pool_of(place)) as runner:
        result = await runner.run(request_of("import sys; print('hello'); sys.exit(3)"))

    assert (result.outcome, result.exit_code, result.output) == (Outcome.ERROR, 3, "hello\n")
    assert result.pooled
    assert result.startup_seconds < 0.2


async def test_a_box_serves_once(place: Place) -> None:
    async with warmed(place, pool_of(place, size=2)) as runner:
        await eventually(lambda: waiting(place) == 2, 30)
        results = await asyncio.gather(*(runner.run(request_of("open('/tmp/a', 'x')")) for _ in range(2)))

    assert [result.outcome for result in results] == [Outcome.OK, Outcome.OK]
    assert all(result.pooled for result in results)


async def test_notes_of_a_used_box_go_before_its_other_files_so_that_none_is_read_last(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, RunNote | None] = {}
    rmtree = shutil.rmtree

    def told_before(path: Path, *, ignore_errors: bool) -> None:
        told[path.name] = read_run_note(path)
        rmtree(path, ignore_errors=ignore_errors)

    async with warmed(place, pool_of(place)) as runner:
        monkeypatch.setattr(shutil, "rmtree", told_before)
        used = {path.name for path in place.runs.iterdir()}
        await runner.run(request_of("pass"))
        await eventually(lambda: used <= told.keys(), 30)

    assert set(told.values()) == {None}


async def test_drained_pool_falls_back_to_a_cold_start(place: Place) -> None:
    async with warmed(place, pool_of(place)) as runner:
        limits = {"max_concurrent_runs": UNLIMITED}
        await runner.run(request_of("pass", "python", **limits))
        results = await asyncio.gather(*(runner.run(request_of("print(2)", "python", **limits)) for _ in range(3)))

    assert [result.output for result in results] == ["2\n"] * 3
    assert not all(result.pooled for result in results)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"max_ram_megabytes": 64}, id="ram"),
        pytest.param({"max_cpus": UNLIMITED}, id="cpus"),
        pytest.param({"max_processes": 9}, id="processes"),
        pytest.param({"max_disk_megabytes": 3}, id="disk"),
    ],
)
async def test_a_box_of_other_limits_is_not_taken(place: Place, values: dict[str, object]) -> None:
    async with warmed(place, pool_of(place)) as runner:
        result = await runner.run(request_of("print(1)", "python", **values))

    assert not result.pooled


async def test_limits_that_hold_outside_the_box_share_it(place: Place) -> None:
    async with warmed(place, pool_of(place)) as runner:
        result = await runner.run(
            request_of("import time\nprint('x' * 2000)\ntime.sleep(9)", max_runtime_seconds=1, max_output_kilobytes=1)
        )

    assert result.pooled
    assert result.outcome is Outcome.TIMED_OUT
    assert len(result.output) == 1024


async def test_limits_of_a_pooled_box_bite(place: Place) -> None:
    async with warmed(place, pool_of(place)) as runner:
        result = await runner.run(request_of("x = bytearray(300 << 20); print('had it')"))

    assert result.pooled
    assert result.outcome is Outcome.OUT_OF_MEMORY


async def test_a_change_of_policy_retires_waiting_boxes(place: Place) -> None:
    changed = False

    async def outdated() -> bool:
        return changed

    async with warmed(place, pool_of(place, outdated=outdated)):
        changed = True
        await eventually(lambda: place.leftovers() == [], 10)


async def test_boxes_nobody_asks_for_are_retired(place: Place) -> None:
    async with warmed(place, pool_of(place, idle=0.1)):
        await eventually(lambda: place.leftovers() == [], 10)


async def test_boxes_of_a_forgotten_pool_are_removed(place: Place) -> None:
    runner = Runner(place.equipment, pool=pool_of(place))
    await runner.run(request_of("print(1)"))
    await eventually(lambda: waiting(place) > 0, 30)

    del runner
    gc.collect()

    await eventually(lambda: place.leftovers() == [], 10)


async def test_a_dead_box_is_noticed_and_not_handed_out(place: Place) -> None:
    async with warmed(place, pool_of(place)) as runner:
        (cgroup,) = place.cgroups.existing_runs()
        await cgroup.kill()
        result = await runner.run(request_of("print(1)"))

    assert (result.outcome, result.pooled) == (Outcome.OK, False)


async def test_two_owners_share_the_places(place: Place) -> None:
    async with warmed(place, pool_of(place)), Runner(place.equipment, pool=pool_of(place)) as other:
        await other.run(request_of("print(1)"))
        await asyncio.sleep(1.5)

        assert waiting(place) == 1


HOLDER = """
import fcntl, sys
place = open(sys.argv[1], "w")
fcntl.flock(place, fcntl.LOCK_EX)
print(flush=True)
input()
"""


async def test_pool_of_another_process_is_counted(place: Place) -> None:
    folder = place.equipment.folder / "slots"
    folder.mkdir(parents=True)
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-c", HOLDER, str(folder / "waiting-0"))
    holder = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert holder.stdout is not None
    await holder.stdout.readline()

    async with Runner(place.equipment, pool=pool_of(place)) as runner:
        await runner.run(request_of("print(1)"))
        await asyncio.sleep(1)
        waited = waiting(place)
    await holder.communicate(b"\n")

    assert waited == 0


async def test_a_pool_whose_boxes_do_not_start_leaves_nothing(place: Place) -> None:
    broken = replace(place.equipment, runsc=replace(place.equipment.runsc, arguments=("--no-such-flag",)))
    async with Runner(broken, pool=pool_of(place)) as runner:
        with pytest.raises(StartError, match="gVisor ended"):
            await runner.run(request_of("print(1)"))
        await asyncio.sleep(1)

    assert place.leftovers() == []
