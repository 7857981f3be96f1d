"""Locks on files, across processes: taken within a time, so that a neighbour who holds one can hang nobody."""

import fcntl
import os
import time
from pathlib import Path

POLL_SECONDS = 0.005
"""How often a lock that somebody holds is tried again."""


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


def is_still_at(place: Path, descriptor: int) -> bool:
    """Whether an open file is the one of that name, and was not moved away or removed while its lock was waited for."""
    try:
        return os.path.samestat(place.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
