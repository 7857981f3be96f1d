"""Counts runs at once, over all processes of this user on this host, with file locks that a dead process cannot keep.

A slot is a file with an exclusive `flock` on it. A run needs one of its person's slots and one of the instance's.
Names of files come from a hash, never from what a person is called.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policy.effective import EffectiveLimits
from policy.limits import MAX_CONCURRENT_RUNS, MAX_INSTANCE_RUNS, Limit
from policy.values import Unlimited
from sandbox.errors import BusyError


@contextmanager
def taken_slots(folder: Path, person: str, limits: EffectiveLimits) -> Iterator[None]:
    """Hold one slot of the person and one of the instance for as long as the context lasts.

    Args:
        folder: where the slot files are, private to the running user.
        person: whose run it is.
        limits: how many there are.

    Raises:
        BusyError: all are taken.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    hashed = hashlib.sha256(person.encode(errors="surrogatepass")).hexdigest()
    with (
        _taken(folder, f"person-{hashed}", MAX_CONCURRENT_RUNS, limits),
        _taken(folder, "instance", MAX_INSTANCE_RUNS, limits),
    ):
        yield


@contextmanager
def _taken(folder: Path, name: str, limit: Limit[int | Unlimited], limits: EffectiveLimits) -> Iterator[None]:
    count = limits[limit]
    if isinstance(count, Unlimited):
        yield
        return
    descriptor = next(filter(None, (_locked(folder / f"{name}-{number}") for number in range(count))), None)
    if descriptor is None:
        raise BusyError(
            key=limit.name,
            origin=limits.origin_of(limit),
            reason=f"as many runs are under way as are permitted at once ({limit.words(count)})",
            remedy="Wait for one to end, or stop it",
        )
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int | None:
    """The descriptor of a slot that was free, or `None`; descriptors below 3 are never among them."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
