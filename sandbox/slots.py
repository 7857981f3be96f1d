"""Bounds the runs at once, over all processes of this user on this host, and lets those who come too many wait in turn.

A slot is a file with an exclusive `flock` on it, which a dead process cannot keep. A run needs one of its person's
slots, then one of the instance's, and waits for each in a line of its own: nobody passes another person by sending many
requests, since no more of theirs than they have slots stand in the instance's line. Names of files come from a hash,
never from what a person is called.

Limits may differ between callers, as policy changes or has scopes. Each takes only slots whose number is within their
own limit: there are never more runs at once than the loosest limit in use permits, and of the runs with a limit of n or
less never more than n. One who waits for such a low number does not hold up those who may have a higher one.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from policy.effective import EffectiveLimits
from policy.limits import MAX_CONCURRENT_RUNS, MAX_INSTANCE_RUNS, Limit
from policy.values import Unlimited
from sandbox.errors import BusyError
from sandbox.queue_lines import FullQueue, QueueLine, QueueTicket, drawn_ticket, slots_of_ticket, tickets_before

_QUEUE_FOLDER = "queue"
_INSTANCE_LINE = "instance"
_PERSONS_SLOT = "person-"
_PERSONS_SHARE = 4
"""One person may fill one part of so many of the queue."""
_POLL_SECONDS_A_PLACE = 0.02
"""How often the first of a line looks; those behind, who cannot be next so soon, look as many times less often."""
_MOST_PLACES_A_POLL = 200
"""Beyond this place they look no less often than that."""
_DRAWING_SECONDS = 0.002
"""How long to leave the next ticket to another process that draws it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBounds:
    """How many may wait for a slot, and for how long."""

    size: int
    """Places in the instance's queue, all persons together; 0 refuses at once. One person has a quarter, at least 1."""
    max_wait_seconds: float
    """The longest that a run waits, in seconds, before it is refused."""


@asynccontextmanager
async def taken_slots(
    folder: Path,
    person: str,
    limits: EffectiveLimits,
    *,
    bounds: QueueBounds,
    tell: Callable[[str], Awaitable[None]],
) -> AsyncIterator[None]:
    """Hold one slot of the person and one of the instance for as long as the context lasts; wait in turn for them.

    Args:
        folder: where the slot files are, private to the running user.
        person: whose run it is.
        limits: how many slots there are.
        bounds: how many may wait, and for how long.
        tell: gets a sentence for the person each time their place changes; nothing where slots are free at once.

    Raises:
        BusyError: all slots are taken, and too many wait already or it took too long.
    """
    with ExitStack() as held:
        with closing(_Applicant(folder, limits, bounds, tell)) as applicant:
            for wanted in _wanted_slots(person, limits):
                slot = await applicant.slot(wanted)
                held.callback(slot.release)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class _WantedSlot:
    """One of the two kinds of slot that a run needs."""

    limit: Limit[int | Unlimited]
    """How many there are."""
    line: QueueLine
    """Where one waits for them."""


def _wanted_slots(person: str, limits: EffectiveLimits) -> Iterator[_WantedSlot]:
    """The slots that a run needs, in the order in which everybody takes them; none where there is no limit."""
    hashed = hashlib.sha256(person.encode(errors="surrogatepass")).hexdigest()
    for name, limit in ((f"{_PERSONS_SLOT}{hashed}", MAX_CONCURRENT_RUNS), (_INSTANCE_LINE, MAX_INSTANCE_RUNS)):
        count = limits[limit]
        if not isinstance(count, Unlimited):
            yield _WantedSlot(limit=limit, line=QueueLine(name=name, person=hashed, slots=count))


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldSlot:
    """A slot that is taken."""

    path: Path
    """Its file."""
    descriptor: int
    """Holds the file's lock; never below 3."""

    def release(self) -> None:
        """Free it, also where a process that was forked meanwhile still has a copy of the descriptor.

        A person's file goes, so that not everybody who ever ran something leaves one. It goes while it is locked:
        whoever has opened it meanwhile finds out, once they get the lock, that another or no file has the name.
        """
        if self.path.name.startswith(_PERSONS_SLOT):
            with suppress(OSError):
                self.path.unlink()
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        os.close(self.descriptor)


def remove_free_slots(folder: Path) -> None:
    """Remove the files of persons' slots that dead processes left.

    Args:
        folder: where the slot files are.
    """
    for path in folder.glob(f"{_PERSONS_SLOT}*"):
        with suppress(OSError):
            slot = _taken_slot(path)
            if slot is not None:
                slot.release()


def _taken_slot(path: Path) -> _HeldSlot | None:
    """A slot that was free, or `None`."""
    while True:
        with ExitStack() as given_back:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            given_back.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.lstat()):
                    given_back.pop_all()
                    return _HeldSlot(path=path, descriptor=descriptor)
        # Whoever held it has removed it since it was opened: there is another now, or none.


class _Applicant:
    """Somebody on the way to their slots, with at most one ticket at a time."""

    def __init__(
        self, folder: Path, limits: EffectiveLimits, bounds: QueueBounds, tell: Callable[[str], Awaitable[None]]
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._queue = folder / _QUEUE_FOLDER
        self._limits = limits
        self._bounds = bounds
        self._teller = _PlaceTeller(tell)
        self._clock = asyncio.get_running_loop().time
        self._deadline = self._clock() + bounds.max_wait_seconds
        self._ticket: QueueTicket | None = None

    async def slot(self, wanted: _WantedSlot) -> _HeldSlot:
        """A slot, once it is this one's turn.

        Raises:
            BusyError: too many wait already, or it took too long.
        """
        slot = self._free_slot(wanted.line, self._before(wanted.line))
        if slot is not None:
            return slot
        await self._line_up(wanted)
        while True:
            before = self._before(wanted.line)
            slot = self._free_slot(wanted.line, before)
            if slot is not None:
                return slot
            place = len(before) + 1
            self._refuse_if_late(wanted, f"its turn had not come, at place {place} of the queue,")
            self._teller.say(_place_sentence(wanted, place))
            await self._pause(_poll_seconds(place))

    def close(self) -> None:
        """Leave the line, and say no more."""
        self._teller.close()
        if self._ticket is not None:
            self._ticket.leave()
            self._ticket = None

    def _before(self, line: QueueLine) -> frozenset[str]:
        return tickets_before(self._queue, line, self._ticket)

    def _free_slot(self, line: QueueLine, before: frozenset[str]) -> _HeldSlot | None:
        """A slot that was free and that nobody before this one could take, or `None`."""
        first = max(map(slots_of_ticket, before), default=0)
        files = (self._folder / f"{line.name}-{number}" for number in range(first, line.slots))
        return next((found for found in map(_taken_slot, files) if found is not None), None)

    async def _line_up(self, wanted: _WantedSlot) -> None:
        """Stand at the end of a line; whoever comes out of another one has been admitted already."""
        if self._ticket is not None:
            self._ticket.move(wanted.line)
        while self._ticket is None:
            size = self._bounds.size
            of_person = min(size, max(1, size // _PERSONS_SHARE))
            drawn = drawn_ticket(self._queue, wanted.line, most=size, most_of_person=of_person)
            if isinstance(drawn, FullQueue):
                raise _busy(wanted, self._limits, _full_words(drawn, size, of_person))
            self._ticket = drawn
            if drawn is None:
                self._refuse_if_late(wanted, "no place in the queue was to be had")
                await self._pause(_DRAWING_SECONDS)

    def _refuse_if_late(self, wanted: _WantedSlot, standing: str) -> None:
        if self._clock() >= self._deadline:
            raise _busy(wanted, self._limits, f"{standing} after {self._bounds.max_wait_seconds:g} seconds")

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, min(seconds, self._deadline - self._clock())))


class _PlaceTeller:
    """Tells a person their place without making the line wait for it: whoever is slow to hear holds up nobody."""

    def __init__(self, tell: Callable[[str], Awaitable[None]]) -> None:
        self._tell = tell
        self._told = ""
        self._telling: asyncio.Future[None] | None = None

    def say(self, sentence: str) -> None:
        """Begin to tell a sentence, unless it was the last one told or that one is still on its way."""
        if self._telling is not None:
            if not self._telling.done():
                return
            self._telling.result()  # what went wrong there goes on here
        if sentence != self._told:
            self._told = sentence
            self._telling = asyncio.ensure_future(self._tell(sentence))

    def close(self) -> None:
        """Stop telling, since it is no longer true."""
        if self._telling is not None:
            self._telling.add_done_callback(_seen_to)
            self._telling.cancel()


def _seen_to(telling: asyncio.Future[None]) -> None:
    """Keep asyncio from reporting what failed after nobody waited for it any more."""
    if not telling.cancelled():
        telling.exception()


def _poll_seconds(place: int) -> float:
    """How long to wait before looking again; far behind it differs, so that not all who came together look together."""
    return _POLL_SECONDS_A_PLACE * min(place, _MOST_PLACES_A_POLL + place % (_MOST_PLACES_A_POLL // 2))


def _place_sentence(wanted: _WantedSlot, place: int) -> str:
    count = wanted.line.slots
    if wanted.limit is MAX_CONCURRENT_RUNS:
        return (
            f"{count} of your runs {'is' if count == 1 else 'are'} under way already: place {place} in your own queue…"
        )
    taken = "The only run of this instance is taken" if count == 1 else f"All {count} runs of this instance are taken"
    return f"{taken}: place {place} in the queue…"


def _full_words(full: FullQueue, size: int, of_person: int) -> str:
    if size == 0:
        return "no queue is permitted"
    if full.waiting < size:
        return f"{full.waiting_of_person} of this person's wait already, of at most {of_person}"
    return f"{full.waiting} wait already, of at most {size}"


def _busy(wanted: _WantedSlot, limits: EffectiveLimits, standing: str) -> BusyError:
    permitted = wanted.limit.words(wanted.line.slots)
    return BusyError(
        key=wanted.limit.name,
        origin=limits.origin_of(wanted.limit),
        reason=f"as many runs are under way as are permitted at once ({permitted}), and {standing}",
        remedy="Try again when one has ended, or stop one",
    )
