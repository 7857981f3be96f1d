"""How much this process and its boxes hold at one moment, and whether that grows.

At rest, when nothing runs, everything must be as it was before. Under load memory breathes, so its middle in the first
fifth of the time is held against that in the last.
"""

import asyncio
import gc
import os
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.sandbox.conftest import Place
from tests.sandbox.traces import children_of_this_process, traces_of

MOST_MEMORY_GROWTH_BYTES = 4 << 20
MOST_DESCRIPTOR_GROWTH = 16  # a box under way has a dozen: one more or less at the end is no growth
MOST_GROWTH = 8
_MOST_THREADS = 64
_REST_SECONDS = 10.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What is held at one moment."""

    seconds: float
    """When, on the monotonic clock."""
    memory_bytes: int
    """Resident memory of this process."""
    descriptors: int
    """Open in this process."""
    threads: int
    """Of this process."""
    tasks: int
    """Of the event loop."""
    processes: int
    """Descendants of this process."""
    folders: int
    """Folders of runs."""
    cgroups: int
    """Cgroups of runs."""

    def as_json(self) -> dict[str, float]:
        """For the file."""
        return asdict(self)


def levels_now(place: Place) -> Levels:
    """What is held at this moment."""
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return Levels(
        seconds=round(time.monotonic(), 2),
        memory_bytes=resident * os.sysconf("SC_PAGE_SIZE"),
        descriptors=len(list(Path("/proc/self/fd").iterdir())),
        threads=threading.active_count(),
        tasks=len(asyncio.all_tasks()),
        processes=len(children_of_this_process()),
        folders=len(list(place.runs.iterdir())) if place.runs.exists() else 0,
        cgroups=len(place.cgroups.existing_runs()),
    )


async def all_threads_started() -> None:
    """Have the loop's own threads started, which it starts one by one and keeps."""
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.02) for _ in range(_MOST_THREADS)))


async def traces_at_rest(place: Place, before: frozenset[str]) -> frozenset[str]:
    """What is there once nothing runs, and was not before; waits until that is nothing, for ten seconds at most."""
    gc.collect()
    more = traces_of(place) - before
    for _ in range(int(_REST_SECONDS / _LOOK_SECONDS)):
        if not more:
            break
        await asyncio.sleep(_LOOK_SECONDS)
        more = traces_of(place) - before
    return more


def growth(samples: Sequence[Levels], name: str) -> float:
    """How much more of something there is in the last fifth of the samples than in the first."""
    numbers = [float(getattr(sample, name)) for sample in samples]
    fifth = max(len(numbers) // 5, 1)
    return statistics.median(numbers[-fifth:]) - statistics.median(numbers[:fifth])


def growth_problems(samples: Sequence[Levels]) -> list[str]:
    """What grows under a steady load."""
    most = {
        "memory_bytes": MOST_MEMORY_GROWTH_BYTES,
        "descriptors": MOST_DESCRIPTOR_GROWTH,
        "threads": MOST_GROWTH,
        "tasks": MOST_GROWTH,
        "processes": MOST_GROWTH,
        "folders": MOST_GROWTH,
        "cgroups": MOST_GROWTH,
    }
    grown = {name: growth(samples, name) for name in most}
    return [f"{name} grew by {grown[name]:.0f}, more than {most[name]}" for name in most if grown[name] > most[name]]
