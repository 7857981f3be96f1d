"""A command of which nothing is left afterwards, whatever it started and however it hangs.

It blocks, unlike the box's own ending, and needs no cgroup: what the command started is found below it.
Source: pidfd_open(2), proc(5).
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from sandbox.processes import process_family, signal_pinned

_FAMILY_END_SECONDS = 5.0
_FAMILY_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@contextmanager
def ended_family(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command that writes both its outputs to one pipe, and end it with all that it started."""
    process = subprocess.Popen(
        command,
        cwd="/",
        env={"PATH": _FAMILY_PATH},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end_family(process.pid)
        process.communicate()


def _end_family(process_id: int) -> None:
    """Kill a process with all its descendants: held still first, so that none forks away meanwhile."""
    pinned: dict[int, int] = {}
    try:
        while fresh := process_family(process_id) - pinned.keys():
            for member in fresh:
                with suppress(ProcessLookupError):
                    pinned[member] = os.pidfd_open(member)
                    signal_pinned(pinned[member], signal.SIGSTOP)
        for descriptor in pinned.values():
            signal_pinned(descriptor, signal.SIGKILL)
        _wait_for_pinned(tuple(pinned.values()))
    finally:
        for descriptor in pinned.values():
            os.close(descriptor)


def _wait_for_pinned(descriptors: tuple[int, ...]) -> None:
    """Wait until processes have ended, or could not be made to. Source: pidfd_open(2)."""
    poll, deadline = select.poll(), time.monotonic() + _FAMILY_END_SECONDS
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = len(descriptors)
    while left and (ended := poll.poll(max(deadline - time.monotonic(), 0.0) * 1_000)):
        for descriptor, _ in ended:
            poll.unregister(descriptor)
        left -= len(ended)
