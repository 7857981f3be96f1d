"""A thousand runs of every kind, then five minutes of steady load; nothing may be left, and nothing may grow.

python -m tests.soak [--runs N] [--seconds N] [--at-once N] [--seed N] [--output FILE]
Ends with 0 where all was well, 1 where something was not, 2 where this host cannot run it.
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sandbox.cgroups import CgroupParent, make_cgroup
from sandbox.equipment import Equipment, found_runsc, prepared
from sandbox.errors import SandboxError
from sandbox.pool import Pool
from sandbox.release import release_source
from sandbox.runner import Runner
from tests.sandbox.conftest import NO_LIMITS, Place
from tests.sandbox.pooled import up_to_date
from tests.sandbox.traces import traces_of
from tests.soak.levels import Levels, all_threads_started, growth, growth_problems, levels_now, traces_at_rest
from tests.soak.load import Load

OUTPUT = Path(__file__).parents[2] / "build" / "soak.json"
WARM_UP_RUNS = 60
POOL_SIZE = 2
SAMPLE_SECONDS = 1.0
TOLD_SECONDS = 5.0


class Soak:
    """One soak: its place, what it has seen, and what was wrong."""

    def __init__(self, place: Place, *, at_once: int, seed: int, console: Console) -> None:
        self._place = place
        self._at_once = at_once
        self._seed = seed
        self._console = console
        self._nothing: frozenset[str] = frozenset()  # what is there at rest once the first runs are over
        self.problems: list[str] = []
        self.phases: dict[str, Any] = {}

    async def done(self, *, runs: int, seconds: float) -> None:
        """Warm up, then both phases."""
        await all_threads_started()
        await self._phase("warm-up", lambda load, _: load.begun < WARM_UP_RUNS)
        # What the first runs made is there for good: files that are only ever locked, modules, the loop's own sockets.
        self._nothing = traces_of(self._place)
        await self._phase("runs", lambda load, _: load.begun < runs)
        samples = await self._phase("steady load", lambda _, passed: passed < seconds)
        self.problems += growth_problems(samples)

    async def _phase(self, name: str, goes_on: Callable[[Load, float], bool]) -> list[Levels]:
        """Run, looking at the levels again and again; afterwards nothing may be there that was not before."""
        begun = time.monotonic()
        samples: list[Levels] = []
        pool = Pool(self._place.equipment.folder / "slots", size=POOL_SIZE, outdated=up_to_date)
        async with Runner(self._place.equipment, pool=pool) as pooled, Runner(self._place.equipment) as cold:
            load = Load((pooled, cold), self._seed)
            watching = asyncio.create_task(self._watched(name, load, samples))
            await load.run(at_once=self._at_once, goes_on=lambda: goes_on(load, time.monotonic() - begun))
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        self.problems += [f"{name}: {wrong}" for wrong in load.wrong]
        if self._nothing:
            more = await traces_at_rest(self._place, self._nothing)
            self.problems += [f"{name}: left behind {trace}" for trace in sorted(more)]
        self.phases[name] = self._account(load, samples, time.monotonic() - begun)
        self._tell(name, load, levels_now(self._place))
        return samples

    def _account(self, load: Load, samples: list[Levels], seconds: float) -> dict[str, Any]:
        return {
            "runs": load.begun,
            "seconds": round(seconds, 1),
            "ended": dict(load.ended),
            "pooled": load.pooled,
            "memory_growth_bytes": growth(samples, "memory_bytes") if samples else 0,
            "at_rest": levels_now(self._place).as_json(),
            "samples": [sample.as_json() for sample in samples],
        }

    async def _watched(self, name: str, load: Load, samples: list[Levels]) -> None:
        told = 0.0
        while True:
            samples.append(levels_now(self._place))
            if time.monotonic() - told >= TOLD_SECONDS:
                told = time.monotonic()
                self._tell(name, load, samples[-1])
            await asyncio.sleep(SAMPLE_SECONDS)

    def _tell(self, name: str, load: Load, levels: Levels) -> None:
        self._console.print(
            f"{name}: {load.begun} runs, {load.pooled} in boxes that waited, {len(load.wrong)} wrong; "
            f"{levels.memory_bytes / (1 << 20):.1f} MiB, {levels.descriptors} descriptors, {levels.threads} threads, "
            f"{levels.processes} processes, {levels.folders} folders, {levels.cgroups} cgroups",
            highlight=False,
        )


def found_equipment() -> Equipment:
    """What this host has for running boxes, all limits enforced.

    Raises:
        SandboxError: something is missing.
    """
    runsc = found_runsc(release_source(machine=platform.machine()), os.environ)
    if runsc is None:
        raise SandboxError(key="runsc", origin="this host", reason="it is not there", remedy="Run `sandbox install`")
    found = prepared(runsc, os.environ, print)
    if not isinstance(found.cgroups, CgroupParent) or found.cgroups.missing:
        raise SandboxError(
            key="cgroups",
            origin="this host",
            reason="it cannot enforce all limits",
            remedy="Run it as root; `sandbox doctor` says what is missing",
        )
    return found


@asynccontextmanager
async def own_place(equipment: Equipment) -> AsyncIterator[Place]:
    """A folder and a cgroup that nobody else uses, gone at the end."""
    assert isinstance(equipment.cgroups, CgroupParent)
    own = make_cgroup(equipment.cgroups, secrets.token_hex(16), NO_LIMITS)
    for one in own.places:
        os.utime(one.folder, (0, time.time() + 86_400))  # else a reaper of somebody else could take it for forgotten
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    inside = CgroupParent(places=own.places, missing=())
    try:
        yield Place(equipment=replace(equipment, folder=folder / "private", cgroups=inside))
    finally:
        for run in (*inside.existing_runs(), own):
            await run.kill()
            await run.remove()
        shutil.rmtree(folder, ignore_errors=True)


async def soaked(options: argparse.Namespace, console: Console) -> list[str]:
    """Do it all, and write it down; returns what was wrong."""
    async with own_place(await asyncio.to_thread(found_equipment)) as place:
        soak = Soak(place, at_once=options.at_once, seed=options.seed, console=console)
        await soak.done(runs=options.runs, seconds=options.seconds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    account = {"passed": not soak.problems, "problems": soak.problems, "seed": options.seed, "phases": soak.phases}
    options.output.write_text(json.dumps(account, indent=1) + "\n")
    return soak.problems


def main() -> int:
    """Run it, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000, help="how many runs before the steady load")
    parser.add_argument("--seconds", type=float, default=300, help="how long the steady load lasts")
    parser.add_argument("--at-once", type=int, default=4, help="how many runs at once")
    parser.add_argument("--seed", type=int, default=7, help="of everything that is drawn")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the result goes, as JSON")
    options, console = parser.parse_args(), Console(width=200)
    try:
        problems = asyncio.run(soaked(options, console))
    except SandboxError as error:
        console.print(f"It cannot be run here: {error}", style="red")
        return 2
    for problem in problems:
        console.print(problem, style="red", highlight=False)
    console.print(f"{'Nothing grew and nothing was left' if not problems else 'Not well'}; see {options.output}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
