"""Locks on files, across processes: taken within a time, so that a neighbour who holds one can hang nobody."""

import fcntl
import time

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
