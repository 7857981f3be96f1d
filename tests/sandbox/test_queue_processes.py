"""The queue between processes: never more runs than permitted, first come first served, and the dead hold up nobody.

The processes are real, and each notes on the clock that they share when its runs came, began and ended.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.slots import QueueBounds, taken_slots
from tests.sandbox.conftest import limits_of

WAITERS = """
import asyncio, json, pathlib, sys, time
from policy.effective import fixed_limits
from sandbox.slots import QueueBounds, taken_slots

folder, order = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
limits = fixed_limits({"max_concurrent_runs": order["own"], "max_instance_runs": order["instance"]}, "test")
bounds = QueueBounds(size=1000, max_wait_seconds=60)

def say(**what): print(json.dumps(what), flush=True)

async def run(number, person):
    async def tell(sentence):
        if order["talks"]: say(told=sentence)
    came = time.monotonic()
    async with taken_slots(folder, person, limits, bounds=bounds, tell=tell):
        began = time.monotonic()
        say(began=person)
        await asyncio.sleep(order["seconds"])
        say(number=number, person=person, span=[came, began, time.monotonic()])

async def main():
    async with asyncio.TaskGroup() as group:
        for number, person in enumerate(order["persons"]):
            group.create_task(run(number, person))

say(ready=True)
sys.stdin.readline()
asyncio.run(main())
"""


@dataclass(frozen=True)
class Span:
    person: str
    came: float
    began: float
    ended: float


@contextmanager
def waiters(
    folder: Path, persons: Sequence[str], seconds: float, own: int = 1, instance: int = 1, *, talks: bool = True
) -> Iterator["subprocess.Popen[str]"]:
    """A process in which runs of these persons come all at once, as soon as it gets a line."""
    order = json.dumps({"persons": persons, "seconds": seconds, "own": own, "instance": instance, "talks": talks})
    command = [sys.executable, "-c", WAITERS, str(folder), order]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert said(process) == {"ready": True}
            yield process
        finally:
            process.kill()


def begin(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def said(process: "subprocess.Popen[str]") -> dict[str, object]:
    assert process.stdout is not None
    line: dict[str, object] = json.loads(process.stdout.readline())
    return line


def spans_of(process: "subprocess.Popen[str]") -> list[Span]:
    assert process.stdout is not None
    lines = [json.loads(line) for line in process.stdout]
    assert process.wait(20) == 0
    return [Span(line["person"], *line["span"]) for line in lines if "span" in line]


def most_at_once(spans: Sequence[Span]) -> int:
    """The largest number of spans that overlap at any moment."""
    steps = sorted([(span.began, 1) for span in spans] + [(span.ended, -1) for span in spans])
    at_once, most = 0, 0
    for _, step in steps:
        at_once += step
        most = max(most, at_once)
    return most


@pytest.mark.timeout(300)
def test_two_hundred_waiters_over_four_processes_never_exceed_a_limit(tmp_path: Path) -> None:
    persons = [f"person {number % 5}" for number in range(50)]
    four = [waiters(tmp_path, persons, 0.01, own=2, instance=7, talks=False) for _ in range(4)]
    with four[0] as one, four[1] as two, four[2] as three, four[3] as last:
        begin(one, two, three, last)
        spans = [span for process in (one, two, three, last) for span in spans_of(process)]

    assert len(spans) == 200
    assert 3 <= most_at_once(spans) <= 7
    assert all(most_at_once([span for span in spans if span.person == person]) <= 2 for person in persons)
    assert list((tmp_path / "queue").iterdir()) == []


def test_a_person_in_another_process_is_not_starved_by_one_with_many_requests(tmp_path: Path) -> None:
    with (
        waiters(tmp_path, ["ann"] * 10, 0.2, own=2, instance=2) as many,
        waiters(tmp_path, ["bob"], 0.05, own=2, instance=2) as single,
    ):
        begin(many)
        assert said(many) == {"began": "ann"}
        begin(single)
        (bob,) = spans_of(single)
        hers = spans_of(many)

    assert sum(bob.came < span.began < bob.began for span in hers) <= 2


def test_a_killed_waiter_and_a_killed_runner_free_their_places(tmp_path: Path) -> None:
    with (
        waiters(tmp_path, ["ann"], 60) as running,
        waiters(tmp_path, ["bob"], 0) as killed,
        waiters(tmp_path, ["cat"], 0) as waiting,
    ):
        begin(running)
        assert said(running) == {"began": "ann"}
        begin(killed)
        assert told_place(killed) == 1
        begin(waiting)
        assert told_place(waiting) == 2
        killed.send_signal(signal.SIGKILL)
        assert told_place(waiting) == 1
        running.send_signal(signal.SIGKILL)
        assert said(waiting) == {"began": "cat"}
        assert waiting.wait(20) == 0

    assert list((tmp_path / "queue").iterdir()) == []


def test_who_comes_after_killed_waiters_finds_their_places_free(tmp_path: Path) -> None:
    with waiters(tmp_path, ["ann", "bob", "cat"], 60) as killed:
        begin(killed)
        while len([*(tmp_path / "queue").glob("instance-*")] if (tmp_path / "queue").exists() else []) < 2:
            said(killed)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert len(list((tmp_path / "queue").iterdir())) == 2

    asyncio.run(run_at_once(tmp_path))

    assert list((tmp_path / "queue").iterdir()) == []


async def run_at_once(folder: Path) -> None:
    limits, bounds = limits_of(max_concurrent_runs=1, max_instance_runs=1), QueueBounds(size=0, max_wait_seconds=0)
    async with taken_slots(folder, "dan", limits, bounds=bounds, tell=never):
        pass


async def never(sentence: str) -> None:
    raise AssertionError(sentence)


def told_place(process: "subprocess.Popen[str]") -> int:
    sentence = str(said(process)["told"])
    return int(sentence.partition("place ")[2].split()[0])
