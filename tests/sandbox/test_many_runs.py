"""Many runs: a hundred of every kind, and fifty at once, a third of them cancelled. `make soak` does it for longer."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from policy.values import UNLIMITED
from sandbox.outcome import Outcome, RunResult
from sandbox.runner import Runner
from tests.sandbox.conftest import Place, request_of
from tests.sandbox.pooled import pooled_runner
from tests.sandbox.traces import nothing_more_is_left, traces_of
from tests.soak.load import KINDS, Load

pytestmark = [pytest.mark.gvisor, pytest.mark.timeout(600)]

RUNS = 100
AT_ONCE = 50
FREELY = {"max_concurrent_runs": UNLIMITED, "max_runtime_seconds": 120}


async def test_hundred_runs_of_every_kind_end_as_they_should_and_leave_nothing(place: Place) -> None:
    await place.run("print(1)")  # what a first run opens for good does not count
    before = traces_of(place)

    async with pooled_runner(place, size=2) as pooled, Runner(place.equipment) as cold:
        load = Load((pooled, cold), seed=7)
        await load.run(at_once=4, goes_on=lambda: load.begun < RUNS)

    assert load.wrong == []
    assert set(load.ended) == {kind.name for kind in KINDS}
    assert load.pooled > 0
    await nothing_more_is_left(place, before)


@pytest.mark.parametrize("pool_size", [0, 4])
async def test_fifty_runs_at_once_a_third_of_them_cancelled_leave_nothing(place: Place, pool_size: int) -> None:
    await place.run("print(1)")
    before, drawn = traces_of(place), random.Random(pool_size)  # noqa: S311 -- the same each time is what it is for
    stopped = set(drawn.sample(range(AT_ONCE), AT_ONCE // 3))

    async with AsyncExitStack() as stack:
        like = request_of("true", "bash", **FREELY)
        context = pooled_runner(place, size=pool_size, like=like) if pool_size else Runner(place.equipment)
        runner = await stack.enter_async_context(context)
        requests = [request_of(f"echo {n}; exit {n % 5}", "bash", **FREELY) for n in range(AT_ONCE)]
        runs = [asyncio.create_task(runner.run(request)) for request in requests]
        for number in stopped:
            asyncio.get_running_loop().call_later(drawn.uniform(0, 4), runs[number].cancel)
        ended = await asyncio.gather(*runs, return_exceptions=True)

    for number, run in enumerate(ended):
        if isinstance(run, RunResult):
            assert (run.outcome, run.exit_code, run.output) == (
                Outcome.ERROR if number % 5 else Outcome.OK,
                number % 5,
                f"{number}\n",
            )
        else:
            assert number in stopped
            assert isinstance(run, asyncio.CancelledError)
    await nothing_more_is_left(place, before)
