"""Lines of those who wait for a slot, over all processes of this user on this host: first come, first served.

Whoever waits holds a ticket: an empty file with an exclusive `flock` on it, which a dead process cannot keep. Its name
says the line, when it was drawn, whose it is and how many slots there are for it; sorted names are a line's order.
Tickets are drawn one at a time, by renaming a file whose lock is held already: no ticket is ever seen unheld, and two
who count at once cannot both get the last one. What somebody is called is in no name. How to wait, and what a person is
told, is left to `slots`.

Source: flock(2); clock_gettime(2) for the boot-time clock, which all processes of a kernel share.
"""

import fcntl
import os
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_UNDRAWN_TICKET = "next"
"""The file that becomes the next ticket; its lock says who is drawing it."""
_TICKET_SUFFIX = ".ticket"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLine:
    """One line, as one of those who could stand in it sees it."""

    name: str
    """`instance`, or `person-` and the person's hash; one line for each set of slots."""
    person: str
    """The hash of whoever wants to stand in it, 64 hexadecimal digits."""
    slots: int
    """How many slots there are for them; others in the same line may have more or fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullQueue:
    """No ticket was to be had."""

    waiting: int
    """How many wait, all persons and lines together."""
    waiting_of_person: int
    """How many of them are this person's."""


@dataclass(slots=True, kw_only=True)
class QueueTicket:
    """A place in one line, for as long as this process lives and holds it."""

    path: Path
    """The ticket's file; its name is the place."""
    descriptor: int
    """Holds the file's lock."""

    def move(self, line: QueueLine) -> None:
        """Go to the end of another line; at every moment the ticket stands in exactly one."""
        self.path = self.path.rename(self.path.with_name(_ticket_name(line)))

    def leave(self) -> None:
        """Give the place up."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            os.close(self.descriptor)


def tickets_before(queue: Path, line: QueueLine, ticket: QueueTicket | None) -> frozenset[str]:
    """The names of the tickets before one, or before a newcomer to the line, of whom at least the last still waits.

    Tickets of dead processes right before one are removed. One further ahead is the business of whoever stands behind
    it, so that looking costs the same few calls in a line of any length.
    """
    begin = f"{line.name}-"
    mine = ticket.path.name if ticket is not None and ticket.path.name.startswith(begin) else None
    before = {name for name in _ticket_names(queue, begin) if mine is None or name < mine}
    while before and _removed_as_dead(queue / (last := max(before))):
        before.remove(last)
    return frozenset(before)


def slots_of_ticket(name: str) -> int:
    """How many slots there are for the holder of a ticket."""
    return int(name.removesuffix(_TICKET_SUFFIX).rpartition("-")[2])


def drawn_ticket(queue: Path, line: QueueLine, *, most: int, most_of_person: int) -> QueueTicket | FullQueue | None:
    """A place at the end of a line; `None` where another process is drawing one at this very moment.

    Args:
        queue: where the tickets are, private to the running user; made where missing.
        line: where to stand.
        most: how many may wait, all persons and lines together.
        most_of_person: how many of them may be one person's.
    """
    queue.mkdir(mode=0o700, exist_ok=True)
    undrawn = queue / _UNDRAWN_TICKET
    descriptor = _locked_undrawn(undrawn)
    if descriptor is None:
        return None
    with ExitStack() as given_back:
        given_back.callback(os.close, descriptor)
        given_back.callback(undrawn.unlink, missing_ok=True)
        full = _full_queue(queue, line.person, most, most_of_person)
        if full is not None:
            return full
        path = undrawn.rename(queue / _ticket_name(line))
        given_back.pop_all()
        return QueueTicket(path=path, descriptor=descriptor)


def _ticket_name(line: QueueLine) -> str:
    moment = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return f"{line.name}-{moment:020d}-{line.person}-{secrets.token_hex(4)}-{line.slots}{_TICKET_SUFFIX}"


def _ticket_names(queue: Path, begin: str = "") -> list[str]:
    try:
        names = os.listdir(queue)  # noqa: PTH208  five times as fast, in the path of every run
    except FileNotFoundError:
        return []
    return [name for name in names if name.endswith(_TICKET_SUFFIX) and name.startswith(begin)]


def _full_queue(queue: Path, person: str, most: int, most_of_person: int) -> FullQueue | None:
    """What fills the queue; the dead do not, and are looked for only where they might matter."""
    names = _ticket_names(queue)
    if _admits(names, person, most, most_of_person) is None:
        return None
    return _admits(
        [name for name in names if not _removed_as_dead(queue / name)],
        person,
        most,
        most_of_person,
    )


def _admits(names: list[str], person: str, most: int, most_of_person: int) -> FullQueue | None:
    of_person = sum(f"-{person}-" in name for name in names)
    if len(names) < most and of_person < most_of_person:
        return None
    return FullQueue(waiting=len(names), waiting_of_person=of_person)


def _locked_undrawn(undrawn: Path) -> int | None:
    """The descriptor of the next ticket, held; `None` where somebody else draws it, or has just drawn it."""
    descriptor = os.open(undrawn, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), undrawn.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _removed_as_dead(ticket: Path) -> bool:
    """Whether nobody holds a ticket any more; then it is gone afterwards."""
    try:
        descriptor = os.open(ticket, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        # Shared, so that two who look at once do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        ticket.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)
