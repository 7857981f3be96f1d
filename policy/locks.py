"""Locks on files, across processes: taken within a time, so that a neighbour who holds one can hang nobody."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policy.errors import Problem
from policy.trusted_files import FileRule, opened_to_append

POLL_SECONDS = 0.005
"""How often a lock that somebody holds is tried again."""


@contextmanager
def locked_file(path: Path, rule: FileRule, seconds: float) -> Iterator[int]:
    """A file's descriptor, with its lock held; the file that others will lock too: none that was moved away meanwhile.

    One that does not exist is made, for its owner alone.

    Raises:
        AuditError, StateError: as the rule says, if it cannot be opened, others could write it, or another process has
            held its lock for that time.
    """
    deadline, held = time.monotonic() + seconds, False
    while not held:
        with opened_to_append(path, rule) as (descriptor, place):
            if not locked_within(descriptor, fcntl.LOCK_EX, deadline - time.monotonic()):
                reason = f"another process has held its lock for {seconds:g} seconds"
                remedy = "Find that process, for instance with fuser, and end it"
                raise rule.error((Problem(key=rule.kind, origin=str(place), reason=reason, remedy=remedy),))
            held = _is_still_at(place, descriptor)
            if held:
                try:
                    yield descriptor
                finally:
                    # Closing would do, but for a child that was forked meanwhile and has the descriptor too.
                    fcntl.flock(descriptor, fcntl.LOCK_UN)


def locked_within(descriptor: int, operation: int, seconds: float) -> bool:
    """Take a file's lock, `fcntl.LOCK_EX` or `LOCK_SH`, and say whether that was possible in that time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True


def _is_still_at(place: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(place.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
