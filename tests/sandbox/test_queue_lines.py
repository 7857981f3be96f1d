"""Those who come too many wait in turn: bounded, fair between persons, told their place, and gone without a trace."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.effective import EffectiveLimits
from policy.values import UNLIMITED
from sandbox.errors import BusyError
from sandbox.queue_lines import QueueLine, QueueTicket, drawn_ticket
from sandbox.slots import QueueBounds, taken_slots
from tests.sandbox.conftest import eventually, limits_of

ROOMY = QueueBounds(size=400, max_wait_seconds=60)
ONE_EACH = limits_of(max_concurrent_runs=1, max_instance_runs=1)
DEAD_TICKET = f"instance-{7:020d}-{'a' * 64}-{'b' * 8}-1.ticket"
PERSON_LINE = "1 of your runs is under way already: place {} in your own queue…"
INSTANCE_LINE = "The only run of this instance is taken: place {} in the queue…"


class Scene:
    """Runs of several persons in one folder; each goes on until it is ended."""

    def __init__(self, folder: Path, group: asyncio.TaskGroup) -> None:
        self.folder = folder
        self.began: list[str] = []
        self.told: dict[str, list[str]] = {}
        self._group = group
        self._ended: dict[str, asyncio.Event] = {}

    async def come(self, label: str, limits: EffectiveLimits, bounds: QueueBounds = ROOMY) -> "asyncio.Task[None]":
        """A run whose person is the label's first letter comes, and goes as far as it gets at once."""
        self.told[label], self._ended[label] = [], asyncio.Event()
        task = self._group.create_task(self._run(label, limits, bounds))
        await asyncio.sleep(0)
        return task

    async def end(self, *labels: str) -> None:
        for label in labels:
            await self.until_begun(label)
            self._ended[label].set()

    async def until_begun(self, label: str) -> None:
        await eventually(lambda: label in self.began, within_seconds=20)

    def waiting(self) -> list[str]:
        queue = self.folder / "queue"
        return sorted(entry.name for entry in queue.iterdir()) if queue.exists() else []

    async def _run(self, label: str, limits: EffectiveLimits, bounds: QueueBounds) -> None:
        async def tell(sentence: str) -> None:
            self.told[label].append(sentence)

        async with taken_slots(self.folder, label[0], limits, bounds=bounds, tell=tell):
            self.began.append(label)
            await self._ended[label].wait()


@asynccontextmanager
async def scene_in(folder: Path) -> AsyncIterator[Scene]:
    """A scene at whose end nobody waits, no descriptor is open and no task is left."""
    descriptors, tasks = open_descriptors(), len(asyncio.all_tasks())
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        scene = Scene(folder, group)
        yield scene
    await asyncio.sleep(0)
    assert scene.waiting() == []
    assert open_descriptors() == descriptors
    assert len(asyncio.all_tasks()) == tasks


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  numbers, not paths


# Waiting in turn


async def test_who_finds_a_slot_free_is_told_nothing_and_makes_no_queue(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        await scene.come("a1", ONE_EACH)
        assert scene.began == ["a1"]
        assert scene.told["a1"] == []
        assert not (tmp_path / "queue").exists()
        await scene.end("a1")


async def test_each_is_told_their_place_when_it_changes_and_only_then(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        for label in ("a1", "b1", "c1", "d1"):
            await scene.come(label, ONE_EACH)
        await eventually(lambda: scene.told["d1"] == [INSTANCE_LINE.format(3)])
        await scene.end("a1")
        await eventually(lambda: scene.told["d1"][1:] == [INSTANCE_LINE.format(2)])
        await asyncio.sleep(0.2)  # in which nothing changes, and nothing is told
        await scene.end("b1")
        await eventually(lambda: scene.told["d1"][2:] == [INSTANCE_LINE.format(1)])
        await scene.end("c1", "d1")

    assert scene.told["b1"] == [INSTANCE_LINE.format(1)]
    assert scene.told["c1"] == [INSTANCE_LINE.format(2), INSTANCE_LINE.format(1)]
    assert scene.told["d1"] == [INSTANCE_LINE.format(3), INSTANCE_LINE.format(2), INSTANCE_LINE.format(1)]


async def test_a_persons_own_line_and_the_instances_are_told_apart(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        for label in ("a1", "a2", "b1"):
            await scene.come(label, ONE_EACH)
        await eventually(lambda: bool(scene.told["a2"] and scene.told["b1"]))
        await scene.end("a1")
        await scene.until_begun("b1")
        await eventually(lambda: scene.told["a2"][-1] == INSTANCE_LINE.format(1))
        await scene.end("b1", "a2")

    assert scene.told["a2"][0] == PERSON_LINE.format(1)
    assert scene.told["b1"] == [INSTANCE_LINE.format(1)]


async def test_sentences_count_slots(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=2, max_instance_runs=3)
    async with scene_in(tmp_path) as scene:
        for label in ("a1", "a2", "a3", "b1", "b2"):
            await scene.come(label, limits)
        await eventually(lambda: bool(scene.told["a3"] and scene.told["b2"]))
        await scene.end("a1", "a2", "a3", "b1", "b2")

    assert scene.told["a3"][0] == "2 of your runs are under way already: place 1 in your own queue…"
    assert scene.told["b2"][0] == "All 3 runs of this instance are taken: place 1 in the queue…"


async def test_runs_of_one_person_begin_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    labels = [f"a{number}" for number in range(8)]
    async with scene_in(tmp_path) as scene:
        for label in labels:
            await scene.come(label, ONE_EACH)
        await scene.end(*labels)

    assert scene.began == labels


@pytest.mark.parametrize("instance_runs", [1, 2])
async def test_one_with_many_requests_does_not_starve_another(tmp_path: Path, instance_runs: int) -> None:
    limits = limits_of(max_concurrent_runs=2, max_instance_runs=instance_runs)
    hers = [f"a{number}" for number in range(10)]
    async with scene_in(tmp_path) as scene:
        for label in (*hers, "b1"):
            await scene.come(label, limits)
        await scene.end(*hers[:2], "b1", *hers[2:])

    assert scene.began.index("b1") <= 2


async def test_a_newcomer_does_not_overtake_who_waits_for_the_slot_that_has_just_become_free(tmp_path: Path) -> None:
    at_once = QueueBounds(size=0, max_wait_seconds=0)
    async with scene_in(tmp_path) as scene:
        async with taken_slots(tmp_path, "a", ONE_EACH, bounds=ROOMY, tell=print_place):
            await scene.come("b1", ONE_EACH)
            await eventually(lambda: bool(scene.told["b1"]))
        with pytest.raises(BusyError, match="no queue is permitted"):
            # Nothing has run since the slot became free.
            await taken_slots(tmp_path, "c", ONE_EACH, bounds=at_once, tell=print_place).__aenter__()
        await scene.end("b1")

    assert scene.began == ["b1"]


async def test_who_is_bound_by_the_instance_alone_waits_in_its_line_alone(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=UNLIMITED, max_instance_runs=1)
    async with scene_in(tmp_path) as scene:
        await scene.come("a1", limits)
        await scene.come("a2", limits)
        await eventually(lambda: bool(scene.told["a2"]))
        await scene.end("a1", "a2")

    assert scene.told["a2"] == [INSTANCE_LINE.format(1)]


async def test_who_may_only_have_a_low_slot_does_not_hold_up_who_may_have_a_higher_one(tmp_path: Path) -> None:
    strict, loose = limits_of(max_instance_runs=1), limits_of(max_instance_runs=2)
    async with scene_in(tmp_path) as scene:
        await scene.come("a1", loose)
        await scene.come("b1", strict)
        await scene.come("c1", loose)
        await scene.come("d1", loose)
        assert scene.began == ["a1", "c1"]
        await scene.end("a1")  # slot 0, for which both wait: the first of them gets it
        await scene.until_begun("b1")
        await scene.end("c1", "b1", "d1")

    assert scene.began == ["a1", "c1", "b1", "d1"]


async def test_no_name_in_the_queue_tells_a_person(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        await scene.come("z1", ONE_EACH)
        await scene.come("z2", ONE_EACH)
        await scene.come("y1", ONE_EACH)
        assert [name.split("-")[0] for name in scene.waiting()] == ["instance", "person"]
        assert not {"z", "y"} & set("".join(scene.waiting()))
        assert (tmp_path / "queue").stat().st_mode & 0o777 == 0o700
        await scene.end("z1", "y1", "z2")


# Bounds


async def test_a_full_queue_refuses_and_says_how_many_wait(tmp_path: Path) -> None:
    bounds = QueueBounds(size=2, max_wait_seconds=60)
    async with scene_in(tmp_path) as scene:
        for label in ("a1", "b1", "c1"):
            await scene.come(label, ONE_EACH, bounds)
        with pytest.raises(BusyError) as caught:
            await taken_slots(tmp_path, "d", ONE_EACH, bounds=bounds, tell=print_place).__aenter__()
        assert len(scene.waiting()) == 2
        await scene.end("a1", "b1", "c1")

    assert caught.value.key == "max_instance_runs"
    assert "test" in caught.value.origin
    assert caught.value.reason == (
        "as many runs are under way as are permitted at once (1 run), and 2 wait already, of at most 2"
    )


async def test_one_person_fills_no_more_than_a_quarter_of_the_queue(tmp_path: Path) -> None:
    bounds = QueueBounds(size=8, max_wait_seconds=60)
    async with scene_in(tmp_path) as scene:
        for label in ("a1", "a2", "a3"):
            await scene.come(label, ONE_EACH, bounds)
        with pytest.raises(BusyError) as caught:
            await taken_slots(tmp_path, "a", ONE_EACH, bounds=bounds, tell=print_place).__aenter__()
        await scene.come("b1", ONE_EACH, bounds)
        assert len(scene.waiting()) == 3
        await scene.end("a1", "b1", "a2", "a3")

    assert caught.value.key == "max_concurrent_runs"
    assert caught.value.reason == (
        "as many runs are under way as are permitted at once (1 run), and 2 of this person's wait already, of at most 2"
    )


async def test_one_place_of_a_queue_of_one_is_anybodys(tmp_path: Path) -> None:
    bounds = QueueBounds(size=1, max_wait_seconds=60)
    async with scene_in(tmp_path) as scene:
        await scene.come("a1", ONE_EACH, bounds)
        await scene.come("b1", ONE_EACH, bounds)
        await scene.end("a1", "b1")

    assert scene.began == ["a1", "b1"]


async def test_who_waits_in_their_own_line_is_not_refused_when_the_queue_fills_meanwhile(tmp_path: Path) -> None:
    bounds = QueueBounds(size=2, max_wait_seconds=60)
    async with scene_in(tmp_path) as scene:
        for label in ("a1", "a2", "b1"):
            await scene.come(label, ONE_EACH, bounds)
        assert len(scene.waiting()) == 2
        await scene.end("a1", "b1", "a2")

    assert scene.began == ["a1", "b1", "a2"]


async def test_who_waited_too_long_is_refused_and_told_the_place_reached(tmp_path: Path) -> None:
    bounds = QueueBounds(size=8, max_wait_seconds=0.3)
    async with scene_in(tmp_path) as scene:
        await scene.come("a1", ONE_EACH)
        await scene.come("b1", ONE_EACH)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(BusyError) as caught:
            await taken_slots(tmp_path, "c", ONE_EACH, bounds=bounds, tell=print_place).__aenter__()
        waited = asyncio.get_running_loop().time() - begun
        await scene.end("a1", "b1")

    assert 0.3 <= waited < 5
    assert caught.value.reason == (
        "as many runs are under way as are permitted at once (1 run), "
        "and its turn had not come, at place 2 of the queue, after 0.3 seconds"
    )


# Nothing is left behind


@pytest.mark.parametrize("label", ["a2", "b1"], ids=["own-line", "instance-line"])
@pytest.mark.parametrize("pause", [0, 0.001, 0.03], ids=["at-once", "soon", "later"])
async def test_who_is_stopped_while_waiting_leaves_nothing(tmp_path: Path, label: str, pause: float) -> None:
    async with scene_in(tmp_path) as scene:
        await scene.come("a1", ONE_EACH)
        waiter = await scene.come(label, ONE_EACH)
        await asyncio.sleep(pause)
        waiter.cancel()
        await eventually(waiter.cancelled)
        assert scene.waiting() == []
        await scene.end("a1")
        for again in ("a8", "b8"):  # one after the other, since every slot is free
            await scene.come(again, ONE_EACH)
            await scene.end(again)


async def test_who_is_stopped_before_anything_began_leaves_nothing(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        await scene.come("a1", ONE_EACH)
        async with asyncio.TaskGroup() as group:
            group.create_task(scene._run("b1", ONE_EACH, ROOMY)).cancel()
        await scene.end("a1")


async def test_the_line_closes_up_when_one_in_its_middle_is_stopped(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        for label in ("a1", "b1"):
            await scene.come(label, ONE_EACH)
        stopped = await scene.come("c1", ONE_EACH)
        await scene.come("d1", ONE_EACH)
        await eventually(lambda: scene.told["d1"] == [INSTANCE_LINE.format(3)])
        stopped.cancel()
        await eventually(lambda: scene.told["d1"][1:] == [INSTANCE_LINE.format(2)])
        await scene.end("a1", "b1", "d1")


async def test_who_never_hears_their_place_holds_up_nobody_and_can_be_stopped(tmp_path: Path) -> None:
    async def deaf(_: str) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        async with taken_slots(tmp_path, "b", ONE_EACH, bounds=ROOMY, tell=deaf):
            began.set()
            await asyncio.Event().wait()

    began = asyncio.Event()
    async with scene_in(tmp_path) as scene:
        await scene.come("a1", ONE_EACH)
        task = asyncio.create_task(run())
        await asyncio.sleep(0.1)
        await scene.end("a1")
        await asyncio.wait_for(began.wait(), 10)
        task.cancel()
        await asyncio.wait({task})


async def test_an_error_while_telling_ends_the_wait_and_leaves_nothing(tmp_path: Path) -> None:
    async def failing(_: str) -> None:
        raise ZeroDivisionError

    async with scene_in(tmp_path) as scene:
        await scene.come("a1", ONE_EACH)
        with pytest.raises(ZeroDivisionError):
            await taken_slots(tmp_path, "b", ONE_EACH, bounds=ROOMY, tell=failing).__aenter__()
        assert scene.waiting() == []
        await scene.end("a1")


async def test_tickets_of_the_dead_are_ignored_and_removed_and_what_is_no_ticket_is_left_alone(tmp_path: Path) -> None:
    bounds = QueueBounds(size=1, max_wait_seconds=60)
    put_files(tmp_path / "queue", DEAD_TICKET, DEAD_TICKET.replace("7", "8"), "instance-notes.txt")
    descriptors = open_descriptors()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        scene = Scene(tmp_path, group)
        await scene.come("a1", ONE_EACH, bounds)
        assert scene.waiting() == ["instance-notes.txt"]
        put_files(tmp_path / "queue", DEAD_TICKET, DEAD_TICKET.replace("instance", f"person-{'a' * 64}"))
        await scene.come("b1", ONE_EACH, bounds)
        await eventually(lambda: scene.told["b1"] == [INSTANCE_LINE.format(1)])
        await scene.end("a1", "b1")

    assert scene.waiting() == ["instance-notes.txt"]
    assert open_descriptors() == descriptors


async def test_who_cannot_draw_a_ticket_since_another_is_drawing_tries_until_it_can(tmp_path: Path) -> None:
    (undrawn,) = put_files(tmp_path / "queue", "next")
    soon = QueueBounds(size=4, max_wait_seconds=0.2)
    async with scene_in(tmp_path) as scene:
        with undrawn.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            await scene.come("a1", ONE_EACH)
            await scene.come("b1", ONE_EACH)
            with pytest.raises(BusyError, match=r"no place in the queue was to be had after 0\.2 seconds"):
                await taken_slots(tmp_path, "c", ONE_EACH, bounds=soon, tell=print_place).__aenter__()
            assert scene.told["b1"] == []
        await eventually(lambda: bool(scene.told["b1"]))
        await scene.end("a1", "b1")


async def test_who_is_stopped_while_another_is_drawing_leaves_nothing(tmp_path: Path) -> None:
    (undrawn,) = put_files(tmp_path / "queue", "next")
    async with scene_in(tmp_path) as scene:
        with undrawn.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            await scene.come("a1", ONE_EACH)
            waiter = await scene.come("b1", ONE_EACH)
            waiter.cancel()
            await eventually(waiter.cancelled)
            assert scene.waiting() == ["next"]
        undrawn.unlink()
        await scene.end("a1")


# Laws


def test_tickets_drawn_and_left_by_many_at_once_are_never_too_many_nor_lost(tmp_path: Path) -> None:
    lines = [QueueLine(name="instance", person=f"{number:064d}", slots=1) for number in range(4)]
    held: list[QueueTicket] = []
    most_held: list[int] = []

    def draw_and_leave(line: QueueLine) -> int:
        drawn = 0
        for _ in range(1000):
            ticket = drawn_ticket(tmp_path / "queue", line, most=3, most_of_person=1)
            if isinstance(ticket, QueueTicket):
                held.append(ticket)
                most_held.append(len(held))
                drawn += 1
                held.remove(ticket)
                ticket.leave()
        return drawn

    descriptors = open_descriptors()
    with ThreadPoolExecutor(len(lines)) as pool:
        drawn = sum(pool.map(draw_and_leave, lines))

    assert drawn > 0
    assert max(most_held) <= 3
    assert list((tmp_path / "queue").iterdir()) == []
    assert open_descriptors() == descriptors


@given(
    arrivals=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.booleans()), min_size=1, max_size=14),
    own=st.integers(1, 3),
    instance=st.integers(1, 3),
)
@settings(max_examples=12, deadline=None)
def test_whoever_comes_and_is_stopped_bounds_and_order_hold(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[tuple[str, int, bool]], own: int, instance: int
) -> None:
    under_way: list[str] = []
    began: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    folder = tmp_path_factory.mktemp("law")
    limits = limits_of(max_concurrent_runs=own, max_instance_runs=instance)

    async def run(number: int, person: str, length: int) -> None:
        async with taken_slots(folder, person, limits, bounds=ROOMY, tell=print_place):
            began[person].append(number)
            under_way.append(person)
            assert len(under_way) <= instance
            assert under_way.count(person) <= own
            try:
                await asyncio.sleep(length / 100)
            finally:
                under_way.remove(person)

    async def all_come() -> None:
        async with scene_in(folder):
            tasks = [asyncio.create_task(run(number, who, length)) for number, (who, length, _) in enumerate(arrivals)]
            await asyncio.sleep(0.01)
            for task, (_, _, stopped) in zip(tasks, arrivals, strict=True):
                if stopped:
                    task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for result, (_, _, stopped) in zip(results, arrivals, strict=True):
                assert result is None or (stopped and isinstance(result, asyncio.CancelledError))

    asyncio.run(all_come())

    assert all(numbers == sorted(numbers) for numbers in began.values())


async def print_place(sentence: str) -> None:
    print(sentence)  # noqa: T201  shown where the test fails


def put_files(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]
