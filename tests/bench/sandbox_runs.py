"""Running code: latency, throughput, CPU and memory, each beside `runsc run` by hand in the same run, and peers."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from tests.bench.capacity import memory_rows, throughput_rows
from tests.bench.egress import egress_rows
from tests.bench.latency import burst_rows, cold_rows, hit_rows, package_rows
from tests.bench.measuring import Row, Skip, shown, written
from tests.bench.peers import peer_rows
from tests.bench.place import BenchPlace, NoPlaceError, bench_place, machine_words

BENCH_VENV = Path(__file__).parents[2] / "build" / "bench-venv"
"""Made by `make bench` for what is no dependency of this project: the wheel, matplotlib, and numpy for code to use."""
PICTURE_PROGRAM = Path(__file__).with_name("picture.py")
PACKAGE = "numpy"
LATENCY = "Latency, from request to result"
THROUGHPUT = "Throughput of cold runs"
EGRESS = "The network"
CPU = "CPU time of a cold run"
MEMORY = "Memory of a box that waits"
_BUSY_LOAD = 1.0

Sections = Mapping[str, Sequence[Row | Skip]]


def sandbox_bench(results: Path) -> None:
    """Measure everything, print it, and write it as JSON and as a picture into a folder."""
    begun, load = datetime.now(UTC), os.getloadavg()
    try:
        machine, sections = uvloop.run(_measured())  # the event loop that Open WebUI runs on
    except NoPlaceError as error:
        shown("Running code", [Skip(what="everything", reason=str(error))])
        return
    for title, rows in sections.items():
        shown(title, rows)
    document = {
        "machine": f"{machine}{busy_words(load[0])}",
        "measured_on": f"{begun:%Y-%m-%d}",
        "load_before_and_after": [round(load[0], 1), round(os.getloadavg()[0], 1)],
        "sections": {title: [asdict(row) for row in rows] for title, rows in sections.items()},
    }
    written(document, results / "sandbox.json")
    _drawn(results / "sandbox.json", results / "sandbox.png")


def busy_words(load: float) -> str:
    """What to say of a machine that had other work already when this began; nothing of one that had none."""
    return f"; busy with other work (load {load:.1f}), so trust ratios alone" if load >= _BUSY_LOAD else ""


async def _measured() -> tuple[str, Sections]:
    async with bench_place() as place:
        colds, cpu = await cold_rows(place)
        latency = [*colds, *await hit_rows(place), *await burst_rows(place)]
        throughput = await throughput_rows(place)
        memory = await memory_rows(place)
        egress = await egress_rows(place)
        package_latency, package_memory = await _package_rows()
        peers = peer_rows(place, BENCH_VENV / "bin" / "python")
        sections: Sections = {
            LATENCY: [*latency, *package_latency, *peers],
            THROUGHPUT: throughput,
            EGRESS: egress,
            CPU: cpu,
            MEMORY: [*memory, *package_memory],
        }
        return machine_words(place), sections


async def _package_rows() -> tuple[list[Row | Skip], list[Row | Skip]]:
    """The same with a package that the administrator offers and has imported beforehand."""
    async with AsyncExitStack() as stack:
        try:
            place = await _place_with_package(stack)
        except NoPlaceError as error:
            return [Skip(what=PACKAGE, reason=str(error))], []
        return [*await package_rows(place, PACKAGE)], [*await memory_rows(place, (PACKAGE,))]


async def _place_with_package(stack: AsyncExitStack) -> BenchPlace:
    if not BENCH_VENV.exists():
        raise NoPlaceError("it is not installed: `make bench` does it")
    return await stack.enter_async_context(bench_place(packages=BENCH_VENV, imports=(PACKAGE,)))


def _drawn(document: Path, picture: Path) -> None:
    """Draw the picture, with the matplotlib of an environment of its own."""
    python = BENCH_VENV / "bin" / "python"
    if not python.exists():
        shown("Picture", [Skip(what=picture.name, reason="matplotlib is not installed: `make bench` does it")])
        return
    subprocess.run([python, PICTURE_PROGRAM, document, picture], check=True)
