"""Processes of this host are held on to by descriptors, never by numbers that may come to mean another."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.processes import pinned_members


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_members_are_pinned_by_their_numbers(sleeper: int) -> None:
    pinned = pinned_members(lambda: frozenset({sleeper, 1 << 22}))

    assert list(pinned) == [sleeper]
    os.close(pinned[sleeper])


def test_process_that_got_the_number_of_a_member_is_not_pinned(sleeper: int) -> None:
    descriptors = open_descriptors()
    answers = iter([frozenset({sleeper}), frozenset[int]()])

    assert pinned_members(lambda: next(answers)) == {}
    assert open_descriptors() == descriptors


def test_nothing_stays_pinned_where_members_cannot_be_told_any_more(sleeper: int) -> None:
    descriptors = open_descriptors()
    answers = iter([frozenset({sleeper})])

    def members() -> frozenset[int]:
        for answer in answers:
            return answer
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 -- its kind is all there is to it
        pinned_members(members)
    assert open_descriptors() == descriptors
