"""Processes of this host are held on to by descriptors, never by numbers that may come to mean another."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.processes import kill_members, pinned_members, process_family


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
    pinned = pinned_members([sleeper, 1 << 22], lambda: frozenset({sleeper, 1 << 22}))

    assert list(pinned) == [sleeper]
    os.close(pinned[sleeper])


def test_process_that_got_the_number_of_a_member_is_not_pinned(sleeper: int) -> None:
    descriptors = open_descriptors()

    assert pinned_members([sleeper], frozenset[int]) == {}
    assert open_descriptors() == descriptors


def test_nothing_stays_pinned_where_members_cannot_be_told_any_more(sleeper: int) -> None:
    descriptors = open_descriptors()

    def members() -> frozenset[int]:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 -- its kind is all there is to it
        pinned_members([sleeper], members)
    assert open_descriptors() == descriptors


def test_process_that_got_the_number_of_a_member_is_not_killed(sleeper: int) -> None:
    kill_members([sleeper], frozenset[int])

    assert process_family(sleeper) == {sleeper}


def test_members_are_killed_and_nothing_stays_pinned(sleeper: int) -> None:
    descriptors = open_descriptors()

    kill_members([sleeper], lambda: frozenset({sleeper}))

    assert os.waitstatus_to_exitcode(os.waitpid(sleeper, 0)[1]) == -signal.SIGKILL
    assert open_descriptors() == descriptors
