"""How something is measured: many calls, their median and 99th percentile, and the same for what it is held against."""

import gc
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long calls took."""

    calls: int
    """How many there were."""
    median_seconds: float
    """Half took no longer."""
    p99_seconds: float
    """99 of 100 took no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement."""

    what: str
    """What was done, in words."""
    timing: Timing
    """How long it took."""
    reference: str = ""
    """What it is held against, in words; empty for a reference itself."""
    ratio: float | None = None
    """Its median as a multiple of the reference's median."""
    goal: str = ""
    """What is asked for, in words."""
    met: bool | None = None
    """Whether that was so in this run; `None` where nothing is asked."""


def timed(calls: Sequence[Callable[[], object]]) -> Timing:
    """Time each of these calls, one after the other, without the garbage collector's say."""
    seconds: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for call in calls:
            begun = time.perf_counter_ns()
            call()
            seconds.append((time.perf_counter_ns() - begun) / 1e9)
    finally:
        gc.enable()
    return timing_of(seconds)


def timed_in_turn(one: Sequence[str], other: Sequence[str], runs: int) -> tuple[Timing, Timing]:
    """Time two programs as processes, by turns, so that a noisy moment hits both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for command, kept in zip((one, other), seconds, strict=True):
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn:  # the first turn only warms the file cache
                kept.append(time.perf_counter() - begun)
    return timing_of(seconds[0]), timing_of(seconds[1])


def against(row: Row, reference: Row) -> Row:
    """The row with its ratio to a reference."""
    ratio = row.timing.median_seconds / reference.timing.median_seconds
    return replace(row, reference=reference.what, ratio=ratio)


def with_goal(row: Row, goal: str, *, met: bool) -> Row:
    """The row with what is asked for."""
    return replace(row, goal=goal, met=met)


def told(title: str, rows: Sequence[Row], file: Path) -> None:
    """Print the rows, and write them as JSON."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for heading in ("what", "calls", "median", "p99", "beside its reference", "asked for"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=150).print(table)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")


def timing_of(seconds: Sequence[float]) -> Timing:
    """Median and 99th percentile of times that were taken."""
    centiles = statistics.quantiles(seconds, n=100, method="inclusive")
    return Timing(calls=len(seconds), median_seconds=statistics.median(seconds), p99_seconds=centiles[98])


def _cells(row: Row) -> Iterator[str]:
    yield row.what
    yield f"{row.timing.calls:,}"
    yield _duration(row.timing.median_seconds)
    yield _duration(row.timing.p99_seconds)
    yield "" if row.ratio is None else f"{row.ratio:.3g} times {row.reference}"
    yield row.goal if row.met is None else f"{row.goal}: {'met' if row.met else 'MISSED'}"


def _duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
