"""Boxes started beforehand, each with an interpreter that waits for code, so that a run need not wait for a start.

A box serves one request and is consumed at hand-over. Boxes are kept by the digest of their plan, so one can only stand
in for a box that would have been started just so. How many wait, over all processes of this user, is bounded by locked
files; how many of which plan follows from what was asked for last. They are refilled one at a time, off the path of any
run, and retired when nobody asked for their plan for a while, when the policy changes, and when their owner is gone.
"""

import asyncio
import fcntl
import os
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.ready_box import BoxPlan, ReadyBox
from sandbox.run_notes import RunState

POOL_IDLE_SECONDS = 600.0
"""How long boxes of a plan wait for somebody to ask for it again."""
POOL_WATCH_SECONDS = 1.0
"""How soon boxes are gone once the policy has changed."""
WAITING_BOX_BYTES = 64 << 20
"""Memory that one waiting box may take: measured were 24 to 65 MiB."""
_MEMORY_PART = 8
_MOST_AUTOMATIC = 4
_PAUSE_AFTER_FAILURE_SECONDS = 30.0


def automatic_pool_size(available_bytes: int, instance_runs: int | None) -> int:
    """How many boxes wait where nobody says: what an eighth of the free memory holds, at most four.

    Args:
        available_bytes: memory that could be had now.
        instance_runs: runs permitted at once; `None` is any number.
    """
    room = available_bytes // _MEMORY_PART // WAITING_BOX_BYTES
    return min(room, _MOST_AUTOMATIC, _MOST_AUTOMATIC if instance_runs is None else instance_runs)


def shares(digests: tuple[str, ...], size: int) -> dict[str, int]:
    """How many boxes of each plan should wait: one of each that was asked for, the rest of the one asked for last.

    Args:
        digests: of the plans asked for, the last first.
        size: how many may wait in all.
    """
    served = digests[:size]
    return {digest: 1 + (size - len(served) if place == 0 else 0) for place, digest in enumerate(served)}


@dataclass(slots=True)
class _Demand:
    """What is known of one plan."""

    plan: BoxPlan
    """How a box of it is started."""
    asked_at: float
    """When somebody last asked for it, on the monotonic clock."""


@dataclass(slots=True)
class _Waiting:
    """One box that waits, and its place among all that may."""

    box: ReadyBox
    """The box."""
    place: int
    """The descriptor of the locked file; free again once it is closed."""


@dataclass(slots=True)
class _Rack:
    """What outlives the pool itself for as long as it takes to clear it: the watch holds this, and nothing else."""

    demands: OrderedDict[str, _Demand] = field(default_factory=OrderedDict)
    """By digest; the last asked for is the last."""
    waiting: dict[str, deque[_Waiting]] = field(default_factory=dict)
    """By digest; the oldest box is the first."""
    removals: set[asyncio.Task[None]] = field(default_factory=set)
    """Boxes on their way out."""
    closed: bool = False
    """Whether nothing may wait here any more."""

    def taken(self, digest: str) -> _Waiting | None:
        queue = self.waiting.get(digest)
        return queue.popleft() if queue else None

    def count(self, digest: str) -> int:
        return len(self.waiting.get(digest, ()))

    def drop(self, digest: str, *, down_to: int = 0) -> None:
        while self.count(digest) > down_to:
            self.remove_later(self.waiting[digest].popleft())

    def drop_all(self) -> None:
        for digest in tuple(self.waiting):
            self.drop(digest)

    def remove_later(self, waiting: _Waiting) -> None:
        removal = waiting.box.removal()
        removal.add_done_callback(lambda _: os.close(waiting.place))
        self.removals.add(removal)
        removal.add_done_callback(self.removals.discard)

    def watch_ended(self, watch: asyncio.Task[None]) -> None:
        """Abandon what waits where the event loop is being closed: what a box leaves, the next start removes."""
        if watch.cancelled():
            self.closed = True
            for waiting in (waiting for queue in self.waiting.values() for waiting in queue):
                waiting.box.abandon()
                os.close(waiting.place)
            self.waiting.clear()


class Pool:
    """The boxes that wait for one owner. Used on one event loop, and of no use on any other."""

    def __init__(
        self,
        folder: Path,
        *,
        size: int,
        outdated: Callable[[], Awaitable[bool]],
        idle_seconds: float = POOL_IDLE_SECONDS,
    ) -> None:
        """Make an empty pool.

        Args:
            folder: where the locked files of waiting boxes are, shared by all processes of this user.
            size: how many boxes may wait in all those processes together.
            outdated: whether what the boxes were made under has changed, so that all are to go.
            idle_seconds: how long boxes of a plan wait for somebody to ask for it again.
        """
        self._folder = folder
        self._size = size
        self._outdated = outdated
        self._idle_seconds = idle_seconds
        self._rack = _Rack()
        self._refill: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._not_before = 0.0

    def taken(self, plan: BoxPlan) -> ReadyBox | None:
        """A box of this plan that waits, which is the caller's from now on; `None` where there is none."""
        digest = plan.digest
        self._asked_for(plan, digest)
        while (waiting := self._rack.taken(digest)) is not None:
            if waiting.box.usable:
                os.close(waiting.place)
                return waiting.box
            self._rack.remove_later(waiting)
        return None

    def waiting_count(self) -> int:
        """How many boxes wait now, of all plans together."""
        return sum(map(len, self._rack.waiting.values()))

    def refill(self) -> None:
        """Start what should be waiting, one box at a time, in the background."""
        if self._size and not self._rack.closed and (self._refill is None or self._refill.done()):
            self._refill = asyncio.get_running_loop().create_task(self._refilled())

    def retire(self) -> None:
        """Let no box wait any longer; those that are asked for anew will."""
        self._rack.demands.clear()
        self._rack.drop_all()

    async def close(self) -> None:
        """End all that wait, and wait until they are gone."""
        self._rack.closed = True
        await _cancelled(self._refill)
        self.retire()
        await _cancelled(self._watch)
        await asyncio.gather(*self._rack.removals)

    def _asked_for(self, plan: BoxPlan, digest: str) -> None:
        demands = self._rack.demands
        demands[digest] = _Demand(plan=plan, asked_at=time.monotonic())
        demands.move_to_end(digest)
        while len(demands) > max(self._size, 1):
            self._rack.drop(demands.popitem(last=False)[0])

    async def _refilled(self) -> None:
        if time.monotonic() < self._not_before:
            return
        while (digest := self._lacking()) is not None:
            try:
                place = self._free_place()
            except OSError:
                self._not_before = time.monotonic() + _PAUSE_AFTER_FAILURE_SECONDS
                return
            if place is None or not await self._added(digest, place):
                return

    async def _added(self, digest: str, place: int) -> bool:
        """Start one box; whether it waits now."""
        try:
            box = await ReadyBox.started(self._rack.demands[digest].plan)
        except (SandboxError, OSError):
            # Whoever runs code next starts a box himself and is told why it fails.
            self._not_before = time.monotonic() + _PAUSE_AFTER_FAILURE_SECONDS
            os.close(place)
            return False
        except BaseException:
            os.close(place)
            raise
        waiting = _Waiting(box=box, place=place)
        if digest not in self._rack.demands or self._rack.closed:
            self._rack.remove_later(waiting)
            return not self._rack.closed
        box.note(RunState.WAITING)
        self._rack.waiting.setdefault(digest, deque()).append(waiting)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(
                _watched(weakref.ref(self), self._rack, POOL_WATCH_SECONDS)
            )
            self._watch.add_done_callback(self._rack.watch_ended)
        return True

    def _lacking(self) -> str | None:
        """The plan of which the next box should be started; those of which too many wait make room for it."""
        wanted = shares(tuple(reversed(self._rack.demands)), self._size)
        lacking = next((digest for digest, count in wanted.items() if self._rack.count(digest) < count), None)
        if lacking is not None:
            for digest in tuple(self._rack.waiting):
                self._rack.drop(digest, down_to=wanted.get(digest, 0))
        return lacking

    def _free_place(self) -> int | None:
        """Lock one of the places for waiting boxes; `None` where other processes have them all."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(self._size):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._folder / f"waiting-{number}", flags, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            os.close(descriptor)
        return None

    async def _looked_after(self) -> None:
        """Retire what is outdated, has waited too long, or is dead."""
        if await self._outdated():
            self.retire()
        oldest = time.monotonic() - self._idle_seconds
        for digest, demand in tuple(self._rack.demands.items()):
            if demand.asked_at < oldest:
                del self._rack.demands[digest]
                self._rack.drop(digest)
        for queue in self._rack.waiting.values():
            for waiting in tuple(queue):
                if not waiting.box.usable:
                    queue.remove(waiting)
                    self._rack.remove_later(waiting)


async def _watched(pool: weakref.ref[Pool], rack: _Rack, pause_seconds: float) -> None:
    """Look after a pool while anything waits in it; where the pool itself is gone, so is whoever could use it."""
    while any(rack.waiting.values()):
        await asyncio.sleep(pause_seconds)
        owner = pool()
        if owner is None:
            rack.drop_all()
            return
        await owner._looked_after()  # noqa: SLF001 -- its own
        del owner


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
