"""Processes of this host: who descends from whom, and ending them without mistaking a reused number for one of them."""

import asyncio
import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_PINNED_AT_ONCE = 64


def process_family(process_id: int) -> frozenset[int]:
    """A process and all its descendants that have not ended. Source: proc(5), `stat`."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    itself = frozenset() if state in "ZX" else frozenset({process_id})
    return itself.union(*map(process_family, child_processes(process_id)))


def child_processes(process_id: int) -> tuple[int, ...]:
    """The children of all threads of a process. Source: proc(5), `task/[tid]/children`."""
    try:
        threads = tuple(Path(f"/proc/{process_id}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(child for thread in threads for child in _children_of_thread(thread))


def _children_of_thread(thread: Path) -> tuple[int, ...]:
    try:
        return tuple(map(int, (thread / "children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return ()


def command_line(process_id: int) -> tuple[str, ...]:
    """The words that a process was started with; none where it is gone. Source: proc(5), `cmdline`."""
    try:
        return tuple(Path(f"/proc/{process_id}/cmdline").read_text(errors="replace").split("\0"))
    except (FileNotFoundError, ProcessLookupError):
        return ()


def signal_pinned(descriptor: int, number: signal.Signals) -> None:
    """Signal a pinned process, if it is still there.

    gVisor's kernel may run as nobody, whom root without CAP_KILL cannot signal; it dies with `runsc run` all the same.
    """
    with suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(descriptor, number)


def kill_pinned(descriptors: Sequence[int]) -> None:
    """Kill pinned processes, waiting for nothing."""
    for descriptor in descriptors:
        signal_pinned(descriptor, signal.SIGKILL)


@contextmanager
def pinned_processes(process_ids: frozenset[int]) -> Iterator[tuple[int, ...]]:
    """Descriptors of processes, which keep meaning those processes whatever becomes of their numbers."""
    descriptors: list[int] = []
    try:
        for process_id in process_ids:
            with suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(process_id))
        yield tuple(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def kill_members(process_ids: Sequence[int], members: Callable[[], frozenset[int]]) -> None:
    """Kill processes in this order, as far as they still belong together once they are pinned; waiting for nothing.

    Args:
        process_ids: who did just before.
        members: who does now.
    """
    for begin in range(0, len(process_ids), _PINNED_AT_ONCE):
        pinned = pinned_members(process_ids[begin : begin + _PINNED_AT_ONCE], members)
        try:
            kill_pinned(tuple(pinned.values()))
        finally:
            for descriptor in pinned.values():
                os.close(descriptor)


def pinned_members(process_ids: Iterable[int], members: Callable[[], frozenset[int]]) -> dict[int, int]:
    """Descriptors of the processes that belong together, by number, for whoever closes them.

    Args:
        process_ids: who did just before.
        members: who does now; asked once they are pinned, since a number may mean another by then.
    """
    with ExitStack() as opened:
        pinned: dict[int, int] = {}
        for process_id in process_ids:
            with suppress(ProcessLookupError):
                pinned[process_id] = os.pidfd_open(process_id)
                opened.callback(os.close, pinned[process_id])
        strangers = pinned.keys() - members()
        opened.pop_all()
    for process_id in strangers:
        os.close(pinned.pop(process_id))
    return pinned


async def killed_processes(descriptors: Sequence[int], *, within_seconds: float) -> None:
    """Kill processes, and wait until they have ended, or could not be made to."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + within_seconds, 0.001
    kill_pinned(descriptors)
    while not all(map(_has_ended, descriptors)) and loop.time() < deadline:
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)


def _has_ended(descriptor: int) -> bool:
    """Whether a pinned process is over. Source: pidfd_open(2), readable once it has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
