"""How long a run takes, from the request to its result: cold, out of the pool, and in bursts that drain the pool."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from policy.effective import EffectiveLimits
from policy.values import UNLIMITED
from sandbox.outcome import RunResult
from sandbox.pool import Pool
from sandbox.request import RunRequest
from sandbox.runner import Runner
from tests.bench.boxes_by_hand import bundle_by_hand, run_by_hand, waiting_by_hand
from tests.bench.measuring import Row, Whose, against, counted, sample_of, with_goal
from tests.bench.place import BenchPlace, limits_for_bench, until

CODE = "print(42)\n"
PRINTED = "42\n"
COLD_TURNS = 30
HIT_TURNS = 100
PACKAGE_COLD_TURNS = 8
PACKAGE_HIT_TURNS = 15
BURSTS = 6
BURST_SIZE = 6
BURST_POOL = 2
BURST_WORDS = f"{BURST_SIZE} at once on a pool of {BURST_POOL}"
MOST_COLD_RATIO = 1.10
MOST_HIT_SECONDS = 0.010
MOST_HIT_P99_SECONDS = 0.040
_TURNS_BETWEEN_BOXES_BY_HAND = 2
_REST_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run took."""

    seconds: float
    """Wall clock, as long as somebody waits for it."""
    box_cpu_seconds: float
    """CPU time of all its processes, gVisor's own included, until nothing is left of it."""
    own_cpu_seconds: float
    """CPU time of the process that had it run."""


async def cold_rows(place: BenchPlace) -> tuple[list[Row], list[Row]]:
    """Runs for which a box has to be started: how long they take, and what CPU time."""
    ours: list[Cost] = []
    by_hand: list[Cost] = []
    async with Runner(place.equipment) as runner:
        for _ in counted("Cold runs, beside runsc run by hand", COLD_TURNS):
            ours.append(await _cold_run(place, runner))
            by_hand.append(_cold_by_hand(place))
    return _cold_latency(ours, by_hand), _cold_cpu(ours, by_hand)


async def hit_rows(place: BenchPlace) -> list[Row]:
    """Runs for which a box waits; between two of them there is time to start the next."""
    pool = new_pool(place, size=1)
    hits: list[float] = []
    by_hand: list[tuple[float, float]] = []
    async with Runner(place.equipment, pool=pool) as runner:
        await runner.run(request_for_bench())
        for turn in counted("Pool hits, beside a box by hand", HIT_TURNS):
            hits.append(await hit_seconds(place, runner, pool))
            if turn % _TURNS_BETWEEN_BOXES_BY_HAND == 0:
                await _filled(place, pool, 1)
                by_hand.append(_served_by_hand(place))
    to_line = _reference("waiting box by hand: line is back", [told for told, _ in by_hand])
    to_end = _reference("waiting box by hand: box is gone", [ended for _, ended in by_hand])
    row = against(Row(what="pool hit", sample=sample_of(hits)), to_line)
    met = row.sample.median <= MOST_HIT_SECONDS and row.sample.p99 <= MOST_HIT_P99_SECONDS
    return [to_line, to_end, with_goal(row, "median ≤ 10 ms, p99 ≤ 40 ms", met=met)]


async def burst_rows(place: BenchPlace) -> list[Row]:
    """More requests at once than boxes wait: some are hits, the rest are cold, on a machine that is busy with both."""
    pool = new_pool(place, size=BURST_POOL)
    request = request_for_bench(max_concurrent_runs=UNLIMITED, max_instance_runs=UNLIMITED)
    taken: list[tuple[float, bool]] = []
    async with Runner(place.equipment, pool=pool) as runner:
        await runner.run(request)
        for _ in counted(f"Bursts of {BURST_SIZE} on a pool of {BURST_POOL}", BURSTS):
            await _filled(place, pool, BURST_POOL)
            runs = (timed_run(runner, request) for _ in range(BURST_SIZE))
            taken.extend((seconds, result.pooled) for seconds, result in await asyncio.gather(*runs))
    return [
        Row(what=f"{BURST_WORDS}: its hits", sample=sample_of([seconds for seconds, pooled in taken if pooled])),
        Row(what=f"{BURST_WORDS}: the rest", sample=sample_of([seconds for seconds, pooled in taken if not pooled])),
    ]


async def package_rows(place: BenchPlace, module: str) -> list[Row]:
    """Code that imports a large package, cold and on a box that has imported it beforehand."""
    code = f"import {module}\n{CODE}"
    pool = new_pool(place, size=1)
    cold: list[float] = []
    async with Runner(place.equipment) as runner:
        for _ in counted(f"Cold runs that import {module}", PACKAGE_COLD_TURNS):
            seconds, _result = await timed_run(runner, request_for_bench(code))
            cold.append(seconds)
            await runner.close()
    async with Runner(place.equipment, pool=pool) as runner:
        await runner.run(request_for_bench(code))
        turns = counted(f"Pool hits that import {module}", PACKAGE_HIT_TURNS)
        hits = [await hit_seconds(place, runner, pool, code) for _ in turns]
    cold_row = Row(what=f"cold run that imports {module}", sample=sample_of(cold))
    return [cold_row, against(Row(what=f"pool hit that imports {module}", sample=sample_of(hits)), cold_row)]


async def hit_seconds(place: BenchPlace, runner: Runner, pool: Pool, code: str = CODE, **values: object) -> float:
    """Run on a box that waits, once one does and nothing else is going on."""
    await _filled(place, pool, 1)
    await asyncio.sleep(_REST_SECONDS)
    seconds, result = await timed_run(runner, request_for_bench(code, **values))
    if not result.pooled:
        raise RuntimeError("a box waited, and another was started")
    return seconds


def request_for_bench(code: str = CODE, **values: object) -> RunRequest:
    """Ask for code to be run under the built-in limits without a network, but for what is named."""
    return RunRequest(language="python", code=code, limits=_limits(**values), person="somebody")


def new_pool(place: BenchPlace, *, size: int) -> Pool:
    """An empty pool, of a policy that never changes."""
    return Pool(place.equipment.folder / "slots", size=size, outdated=_never)


async def timed_run(runner: Runner, request: RunRequest) -> tuple[float, RunResult]:
    """How long a run of the bench's code took, and its result."""
    begun = time.perf_counter()
    result = await runner.run(request)
    seconds = time.perf_counter() - begun
    if result.output != PRINTED:
        raise RuntimeError(f"a run ended as {result.outcome} and printed {result.output!r}")
    return seconds, result


async def _cold_run(place: BenchPlace, runner: Runner) -> Cost:
    box, own = place.cpu_seconds(), time.process_time()
    seconds, _ = await timed_run(runner, request_for_bench())
    await runner.close()  # what is left of the box, off the clock but not for free
    own = time.process_time() - own
    await place.settled()
    return Cost(seconds=seconds, box_cpu_seconds=place.cpu_seconds() - box, own_cpu_seconds=own)


def _cold_by_hand(place: BenchPlace) -> Cost:
    with bundle_by_hand(place, place.plan(_limits())) as bundle:
        box, own, begun = place.cpu_seconds(), time.process_time(), time.perf_counter()
        run_by_hand(bundle, CODE.encode())
        seconds, own = time.perf_counter() - begun, time.process_time() - own
    return Cost(seconds=seconds, box_cpu_seconds=place.cpu_seconds() - box, own_cpu_seconds=own)


def _served_by_hand(place: BenchPlace) -> tuple[float, float]:
    with bundle_by_hand(place, place.plan(_limits())) as bundle, waiting_by_hand(bundle) as waiting:
        time.sleep(_REST_SECONDS)
        return waiting.served(CODE.encode())


def _cold_latency(ours: Sequence[Cost], by_hand: Sequence[Cost]) -> list[Row]:
    reference = _reference("runsc run by hand", [cost.seconds for cost in by_hand])
    row = against(Row(what="cold run", sample=sample_of([cost.seconds for cost in ours])), reference)
    met = row.ratio is not None and row.ratio <= MOST_COLD_RATIO
    return [reference, with_goal(row, "at most 1.10 times", met=met)]


def _cold_cpu(ours: Sequence[Cost], by_hand: Sequence[Cost]) -> list[Row]:
    box = _reference("CPU of a box by hand", [cost.box_cpu_seconds for cost in by_hand])
    starter = _reference("CPU of whoever starts it by hand", [cost.own_cpu_seconds for cost in by_hand])
    own_box = Row(what="CPU of a cold run's box", sample=sample_of([cost.box_cpu_seconds for cost in ours]))
    runner = Row(what="CPU of the runner for it", sample=sample_of([cost.own_cpu_seconds for cost in ours]))
    return [box, against(own_box, box), starter, against(runner, starter)]


def _reference(what: str, seconds: Sequence[float]) -> Row:
    return Row(what=what, sample=sample_of(seconds), whose=Whose.REFERENCE)


async def _filled(place: BenchPlace, pool: Pool, boxes: int) -> None:
    """Wait, off the clock, until so many boxes wait and nothing is left of those before."""
    await until(lambda: pool.waiting_count() >= boxes)
    await place.settled(boxes)


def _limits(**values: object) -> EffectiveLimits:
    return limits_for_bench(**values)


async def _never() -> bool:
    return False
