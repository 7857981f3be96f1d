"""Processes that are killed from outside: the caller at every stage, `runsc`, the gofer, the sandbox.

Whoever is killed, and whenever: nothing of the run is left, or the next runner removes it and nothing of anybody else.
"""

import asyncio
import gc
import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest

from policy.values import UNLIMITED
from sandbox.errors import StartError
from sandbox.leases import remove_leftovers
from sandbox.outcome import Outcome
from sandbox.pool import Pool
from sandbox.run_notes import RunState
from sandbox.runner import Runner
from sandbox.slots import remove_free_slots
from tests.sandbox.caller import CallerOrders, called
from tests.sandbox.conftest import PATIENCE, Place, eventually, request_of
from tests.sandbox.pooled import pooled_runner, states_of_runs, up_to_date, waiting_boxes
from tests.sandbox.traces import nothing_more_is_left, traces_of

pytestmark = pytest.mark.gvisor

SLEEP = "import time; time.sleep(60)"
USE_FILES = "import decimal, uuid, wave; print(2)"
"""Reads files that no waiting interpreter has read yet."""


def has_any_folder(place: Place) -> bool:
    return place.runs.exists() and any(place.runs.iterdir())


def has_any_cgroup(place: Place) -> bool:
    return bool(place.cgroups.existing_runs())


# The caller


@pytest.mark.parametrize(
    "reached",
    [
        pytest.param(lambda _: True, id="before-the-start"),
        pytest.param(has_any_folder, id="with-a-folder"),
        pytest.param(has_any_cgroup, id="with-a-cgroup"),
        pytest.param(lambda place: RunState.STARTING in states_of_runs(place), id="starting"),
        pytest.param(lambda place: bool(place.processes()), id="with-a-first-process"),
        pytest.param(lambda place: bool(victims(place, "runsc-gofer")), id="with-a-gofer"),
        pytest.param(lambda place: bool(victims(place, "runsc-sandbox")), id="with-a-sandbox"),
        pytest.param(lambda place: RunState.RUNNING in states_of_runs(place), id="running"),
    ],
)
async def test_killed_caller_leaves_nothing_that_the_next_runner_does_not_remove(
    place: Place, reached: Callable[[Place], bool]
) -> None:
    before = traces_of(place)
    async with called(CallerOrders(equipment=place.equipment, codes=(SLEEP,))) as caller:
        await eventually(lambda: reached(place), 20 * PATIENCE)
        caller.kill()

    await all_is_removed(place, before)


@pytest.mark.parametrize("milliseconds", [2, 8, 20, 60])
async def test_caller_killed_at_any_moment_of_a_start_leaves_nothing(place: Place, milliseconds: int) -> None:
    before = traces_of(place)
    async with called(CallerOrders(equipment=place.equipment, codes=(SLEEP,))) as caller:
        await eventually(lambda: has_any_folder(place), 20 * PATIENCE)
        await asyncio.sleep(milliseconds / 1000)
        caller.kill()

    await all_is_removed(place, before)


@pytest.mark.parametrize("milliseconds", [0, 5])
async def test_caller_killed_while_it_cleans_up_leaves_nothing(place: Place, milliseconds: int) -> None:
    before = traces_of(place)
    async with called(CallerOrders(equipment=place.equipment, codes=("print(1)",))) as caller:
        assert caller.stdout is not None
        assert await caller.stdout.readline() == b"ok 1\n"
        await asyncio.sleep(milliseconds / 1000)
        with suppress(ProcessLookupError):
            caller.kill()

    await all_is_removed(place, before)


async def test_caller_killed_with_a_waiting_and_a_running_box_leaves_nothing(place: Place) -> None:
    before = traces_of(place)
    orders = CallerOrders(equipment=place.equipment, codes=("pass", SLEEP), pool_size=2)
    async with called(orders) as caller:
        await eventually(lambda: {RunState.WAITING, RunState.RUNNING} <= set(states_of_runs(place)), 20 * PATIENCE)
        caller.kill()

    await all_is_removed(place, before)


async def all_is_removed(place: Place, before: frozenset[str]) -> None:
    """The boxes of a dead caller die by themselves; the next runner removes the rest."""
    await eventually(lambda: not place.processes(), 5 * PATIENCE)
    await remove_leftovers(place.runs, place.cgroups)
    remove_free_slots(place.equipment.folder / "slots")
    await nothing_more_is_left(place, before)


# The box


def victims(place: Place, part: str) -> list[int]:
    return [number for number, line in place.processes().items() if part in line]


def kill_part(place: Place, part: str) -> None:
    for number in victims(place, part):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


PARTS = [
    pytest.param(" run --bundle=", id="runsc-run"),
    pytest.param("runsc-gofer", id="gofer"),
    pytest.param("runsc-sandbox", id="sandbox"),
]


@pytest.mark.parametrize("part", PARTS)
async def test_part_of_a_box_killed_while_it_starts_is_an_error_at_once(place: Place, part: str) -> None:
    before = traces_of(place)
    run = asyncio.create_task(place.run("print(1)"))
    await eventually(lambda: bool(victims(place, part)), 20 * PATIENCE)

    kill_part(place, part)

    with pytest.raises(StartError, match="before the interpreter was ready"):
        await asyncio.wait_for(run, 5 * PATIENCE)
    await nothing_more_is_left(place, before)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        pytest.param(" run --bundle=", (Outcome.KILLED, None), id="runsc-run"),
        pytest.param("runsc-sandbox", (Outcome.GVISOR_FAILED, None), id="sandbox"),
        # gVisor then ends the code itself, and tells it as a signal that the code could have sent to itself.
        pytest.param("runsc-gofer", (Outcome.ERROR, 137), id="gofer"),
    ],
)
async def test_part_of_a_box_killed_while_code_runs_is_never_a_good_end(
    place: Place, part: str, told: tuple[Outcome, int | None]
) -> None:
    before = traces_of(place)
    run = asyncio.create_task(place.run(f"print('here', flush=True)\n{SLEEP}"))
    await eventually(lambda: RunState.RUNNING in states_of_runs(place), 20 * PATIENCE)
    await asyncio.sleep(0.2)

    kill_part(place, part)
    result = await asyncio.wait_for(run, 5 * PATIENCE)

    assert result.output == "here\n"
    assert (result.outcome, result.exit_code) == told
    await nothing_more_is_left(place, before)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("milliseconds", [15, 200])
async def test_part_of_a_waiting_box_killed_gives_the_person_a_normal_result(
    place: Place, part: str, milliseconds: int
) -> None:
    before = traces_of(place)
    async with pooled_runner(place) as runner:
        kill_part(place, part)
        await asyncio.sleep(milliseconds / 1000)

        result = await runner.run(request_of(USE_FILES))

    assert (result.outcome, result.output) == (Outcome.OK, "2\n")
    await nothing_more_is_left(place, before)


async def test_box_that_is_stopped_as_a_whole_is_ended_at_the_deadline(place: Place) -> None:
    run = asyncio.create_task(place.run(SLEEP, max_runtime_seconds=1))
    await eventually(lambda: RunState.RUNNING in states_of_runs(place), 20 * PATIENCE)

    for number in place.processes():
        os.kill(number, signal.SIGSTOP)

    assert (await asyncio.wait_for(run, 10 * PATIENCE)).outcome is Outcome.TIMED_OUT


async def test_box_that_is_stopped_while_it_starts_is_given_up_at_the_deadline(place: Place) -> None:
    runner = Runner(place.equipment, startup_seconds=1)
    run = asyncio.create_task(runner.run(request_of("print(1)", max_cpus=UNLIMITED)))
    await eventually(lambda: bool(victims(place, "runsc-sandbox")), 20 * PATIENCE)
    for number in place.processes():
        os.kill(number, signal.SIGSTOP)

    with pytest.raises(StartError, match="was not ready after"):
        await asyncio.wait_for(run, 10 * PATIENCE)


# The pool's owner


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5])
async def test_pool_whose_closing_is_cancelled_leaves_nothing(place: Place, turns: int) -> None:
    before = traces_of(place)
    pool = Pool(place.equipment.folder / "slots", size=1, outdated=up_to_date)
    runner = Runner(place.equipment, pool=pool)
    await runner.run(request_of("pass"))
    await eventually(lambda: waiting_boxes(place) == 1, 20 * PATIENCE)

    closing = asyncio.create_task(runner.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    del closing, runner, pool
    gc.collect()

    await nothing_more_is_left(place, before)


FORGETFUL = """
import asyncio, os, pickle, sys
from sandbox.pool import Pool
from sandbox.run_notes import RunState, read_run_note
from sandbox.runner import Runner
from tests.sandbox.conftest import eventually, request_of

equipment = pickle.load(sys.stdin.buffer)

async def up_to_date():
    return False

def comes_to(state):
    notes = map(read_run_note, (equipment.folder / "runs").iterdir())
    return any(note is not None and note.state is state for note in notes)

async def forgotten():
    runner = Runner(equipment, pool=Pool(equipment.folder / "slots", size=1, outdated=up_to_date))
    await runner.run(request_of("pass"))
    await eventually(lambda: comes_to(RunState.WAITING), 60)
    await runner.run(request_of("pass"))  # which takes that box; another is started a moment later
    for state in sys.argv[1:]:
        await eventually(lambda: comes_to(RunState[state]), 60)

asyncio.run(forgotten())
held = []
for number in os.listdir("/proc/self/fd"):
    path = f"/proc/self/fd/{number}"
    held += [os.readlink(path)] if int(number) > 2 and os.path.lexists(path) else []
print([target for target in held if any(word in target for word in ("pipe:", "pidfd", "waiting", "/runs/"))])
"""


@pytest.mark.parametrize(
    "states",
    [
        pytest.param((), id="a-used-box-is-removed"),
        pytest.param((RunState.STARTING,), id="a-box-starts"),
        pytest.param((RunState.WAITING,), id="a-box-waits"),
    ],
)
async def test_event_loop_that_ends_meanwhile_leaves_nothing_that_the_next_runner_does_not_remove(
    place: Place, states: tuple[RunState, ...]
) -> None:
    before = traces_of(place)
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-W", "ignore", "-c", FORGETFUL, *(state.name for state in states))
    caller = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)

    said, _ = await caller.communicate(pickle.dumps(place.equipment))

    assert said == b"[]\n"
    await all_is_removed(place, before)
