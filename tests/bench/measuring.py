"""How something is measured: many times, its median and 99th percentile, and the same for what it is held against."""

import gc
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

_MEBIBYTE = 1 << 20


class Unit(StrEnum):
    """What is counted."""

    SECONDS = "s"
    """Time; less is better."""
    BYTES = "bytes"
    """Memory; less is better."""
    RUNS_A_SECOND = "runs/s"
    """Throughput; more is better."""


class Whose(StrEnum):
    """Who did what was measured."""

    OURS = "ours"
    """This project."""
    REFERENCE = "reference"
    """The least that it could cost, which ours is held against."""
    PEER = "peer"
    """Another project, for the same job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What came out of measuring the same thing many times."""

    calls: int
    """How often."""
    median: float
    """Half were no greater."""
    p99: float
    """99 of 100 were no greater."""
    unit: Unit = Unit.SECONDS
    """What these are numbers of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement."""

    what: str
    """What was done, in words."""
    sample: Sample
    """What came out."""
    reference: str = ""
    """What it is held against, in words; empty for a reference itself."""
    ratio: float | None = None
    """Its median as a multiple of the reference's median."""
    goal: str = ""
    """What is asked for, in words."""
    met: bool | None = None
    """Whether that was so in this run; `None` where nothing is asked."""
    whose: Whose = Whose.OURS
    """Whose it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Something that could not be measured here."""

    what: str
    """What would have been done."""
    reason: str
    """Why it was not."""


def timed(calls: Sequence[Callable[[], object]]) -> Sample:
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
    return sample_of(seconds)


def timed_in_turn(one: Sequence[str], other: Sequence[str], runs: int) -> tuple[Sample, Sample]:
    """Time two programs as processes, by turns, so that a noisy moment hits both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for command, kept in zip((one, other), seconds, strict=True):
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn:  # the first turn only warms the file cache
                kept.append(time.perf_counter() - begun)
    return sample_of(seconds[0]), sample_of(seconds[1])


def against(row: Row, reference: Row) -> Row:
    """The row with its ratio to a reference."""
    return replace(row, reference=reference.what, ratio=row.sample.median / reference.sample.median)


def with_goal(row: Row, goal: str, *, met: bool) -> Row:
    """The row with what is asked for."""
    return replace(row, goal=goal, met=met)


def told(title: str, rows: Sequence[Row], file: Path) -> None:
    """Print the rows, and write them as JSON."""
    shown(title, rows)
    written([asdict(row) for row in rows], file)


def shown(title: str, rows: Sequence[Row | Skip]) -> None:
    """Print the rows as a table."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for heading in ("what", "calls", "median", "p99", "beside its reference", "asked for"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=150).print(table)


def written(content: object, file: Path) -> None:
    """Write something as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def counted(what: str, count: int) -> Iterator[int]:
    """Count from 0, with a progress line that is drawn only between one turn and the next, never during one."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"{what}: {count} turns…")
        yield from range(count)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task(what, total=count)
        for turn in range(count):
            progress.update(task, completed=turn, refresh=True)
            yield turn


def sample_of(numbers: Sequence[float], unit: Unit = Unit.SECONDS) -> Sample:
    """Median and 99th percentile of numbers that were taken."""
    centiles = statistics.quantiles(numbers, n=100, method="inclusive")
    return Sample(calls=len(numbers), median=statistics.median(numbers), p99=centiles[98], unit=unit)


def amount_words(amount: float, unit: Unit) -> str:
    """A number and its unit, for people."""
    match unit:
        case Unit.SECONDS:
            return _duration(amount)
        case Unit.BYTES:
            return f"{amount / _MEBIBYTE:.1f} MiB"
        case Unit.RUNS_A_SECOND:
            return f"{amount:.2f} runs/s"


def _cells(row: Row | Skip) -> Iterator[str]:
    yield row.what
    if isinstance(row, Skip):
        yield from ("", "skipped", "", row.reason, "")
        return
    sample = row.sample
    yield f"{sample.calls:,}"
    yield amount_words(sample.median, sample.unit)
    yield amount_words(sample.p99, sample.unit) if sample.unit is Unit.SECONDS else ""
    yield "" if row.ratio is None else f"{row.ratio:.3g} times {row.reference}"
    yield row.goal if row.met is None else f"{row.goal}: {'met' if row.met else 'MISSED'}"


def _duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 0.9995:  # three digits of less read as 1
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
