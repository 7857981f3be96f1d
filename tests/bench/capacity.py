"""How many cold runs a second there are, and how much memory a box takes that waits."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from policy.values import UNLIMITED
from sandbox.ready_box import BoxPlan, ReadyBox
from sandbox.runner import Runner
from tests.bench.boxes_by_hand import bundle_by_hand, memory_bytes, run_by_hand, waiting_by_hand
from tests.bench.latency import CODE, PRINTED, request_for_bench
from tests.bench.measuring import Row, Unit, Whose, against, counted, sample_of, with_goal
from tests.bench.place import BenchPlace, limits_for_bench

AT_ONCE = (1, 2, 4, 8)
ROUNDS = 4
LEAST_RUNS_A_ROUND = 12
LEAST_THROUGHPUT_RATIO = 0.95
MEMORY_TURNS = 5
MOST_MEMORY_RATIO = 1.15
_REST_SECONDS = 0.3


async def throughput_rows(place: BenchPlace) -> list[Row]:
    """Cold runs a second with so many at once, from nothing until nothing is left of the last.

    Beside two references: by hand likewise, where each run has its folder and cgroups made and removed; and by hand
    with all of these made before the clock starts and removed after it stops.
    """
    ours: dict[int, list[float]] = {number: [] for number in AT_ONCE}
    likewise: dict[int, list[float]] = {number: [] for number in AT_ONCE}
    beforehand: dict[int, list[float]] = {number: [] for number in AT_ONCE}
    for turn in counted("Throughput with 1, 2, 4 and 8 at once", ROUNDS * len(AT_ONCE)):
        at_once = AT_ONCE[turn % len(AT_ONCE)]
        # Each goes first in its turn, since the machine's own speed drifts.
        for which in sorted(range(3), key=lambda number: (number + turn // len(AT_ONCE)) % 3):
            if which == 0:
                ours[at_once].append(await _runs_a_second(place, at_once))
            elif which == 1:
                likewise[at_once].append(_runs_a_second_by_hand(place, at_once))
            else:
                beforehand[at_once].append(_runs_a_second_of_bundles(place, at_once))
    return [row for number in AT_ONCE for row in _throughput_rows(number, ours, likewise, beforehand)]


async def memory_rows(place: BenchPlace, imports: tuple[str, ...] = ()) -> list[Row]:
    """Memory of a box that waits for code, alone on the machine; its processes share no pages with other boxes."""
    plan = place.plan(limits_for_bench(), imports)
    ours: list[float] = []
    by_hand: list[float] = []
    with_imports = f" with {', '.join(imports)}" if imports else ""
    for _ in counted(f"Memory of boxes that wait{with_imports}", MEMORY_TURNS):
        ours.append(await _idle_bytes(place, plan))
        by_hand.append(_idle_bytes_by_hand(place, plan))
    reference = Row(
        what=f"a box by hand that waits{with_imports}", sample=sample_of(by_hand, Unit.BYTES), whose=Whose.REFERENCE
    )
    row = against(Row(what=f"a box that waits{with_imports}", sample=sample_of(ours, Unit.BYTES)), reference)
    met = row.ratio is not None and row.ratio <= MOST_MEMORY_RATIO
    return [reference, with_goal(row, "at most 1.15 times", met=met)]


async def _runs_a_second(place: BenchPlace, at_once: int) -> float:
    request = request_for_bench(max_concurrent_runs=UNLIMITED, max_instance_runs=UNLIMITED)
    runs = _runs_a_round(at_once)
    left = iter(range(runs))
    async with Runner(place.equipment) as runner:

        async def work() -> None:
            for _ in left:
                result = await runner.run(request)
                if result.output != PRINTED:
                    raise RuntimeError(f"a run ended as {result.outcome} and printed {result.output!r}")

        begun = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(at_once)))
        await runner.close()
        seconds = time.perf_counter() - begun
    await place.settled()
    return runs / seconds


def _runs_a_second_by_hand(place: BenchPlace, at_once: int) -> float:
    plan, runs = place.plan(limits_for_bench()), _runs_a_round(at_once)

    def run() -> None:
        with bundle_by_hand(place, plan) as bundle:
            run_by_hand(bundle, CODE.encode())

    with ThreadPoolExecutor(at_once) as threads:
        begun = time.perf_counter()
        for done in [threads.submit(run) for _ in range(runs)]:
            done.result()
        return runs / (time.perf_counter() - begun)


def _runs_a_second_of_bundles(place: BenchPlace, at_once: int) -> float:
    plan, runs = place.plan(limits_for_bench()), _runs_a_round(at_once)
    with ExitStack() as made, ThreadPoolExecutor(at_once) as threads:
        bundles = [made.enter_context(bundle_by_hand(place, plan)) for _ in range(runs)]
        begun = time.perf_counter()
        for done in [threads.submit(run_by_hand, bundle, CODE.encode()) for bundle in bundles]:
            done.result()
        return runs / (time.perf_counter() - begun)


def _runs_a_round(at_once: int) -> int:
    """Four times through for as many as there are, so that the last of a round do not count for much."""
    return max(LEAST_RUNS_A_ROUND, 4 * at_once)


def _throughput_rows(
    at_once: int,
    ours: Mapping[int, Sequence[float]],
    likewise: Mapping[int, Sequence[float]],
    beforehand: Mapping[int, Sequence[float]],
) -> tuple[Row, ...]:
    unit, whose = Unit.RUNS_A_SECOND, Whose.REFERENCE
    what = f"runsc run by hand, {at_once} at once"
    reference = Row(what=what, sample=sample_of(likewise[at_once], unit), whose=whose)
    bundles = Row(what=f"{what}, all made beforehand", sample=sample_of(beforehand[at_once], unit), whose=whose)
    row = against(Row(what=f"cold runs, {at_once} at once", sample=sample_of(ours[at_once], unit)), reference)
    met = row.ratio is not None and row.ratio >= LEAST_THROUGHPUT_RATIO
    return bundles, reference, with_goal(row, "at least 0.95 times", met=met)


async def _idle_bytes(place: BenchPlace, plan: BoxPlan) -> int:
    """As the pool starts it."""
    box = await ReadyBox.started(plan)
    try:
        await asyncio.sleep(_REST_SECONDS)
        (cgroup,) = place.boxes()
        return memory_bytes(cgroup)
    finally:
        await box.remove()


def _idle_bytes_by_hand(place: BenchPlace, plan: BoxPlan) -> int:
    with bundle_by_hand(place, plan) as bundle, waiting_by_hand(bundle):
        time.sleep(_REST_SECONDS)
        return memory_bytes(bundle.cgroup)
