"""The three pipes between a runner and its box, made here so that they are pipes under every event loop.

uvloop, which Open WebUI runs on, gives a child socket pairs where it is asked for pipes; those cannot be opened again
through `/dev/stdin`, which shells and people's code do. Our ends never block the event loop, and what is in a pipe can
be read without waiting for its end, since a box takes some time to be gone.
"""

import asyncio
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

_READ_BYTES = 1 << 16


class _PipeEnd:
    """Our end of a pipe, which never blocks."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go of it, whatever is still in it; a box that reads from it reads its end."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class OutputPipe(_PipeEnd):
    """Our end of a pipe that the box writes to."""

    async def read(self, most_bytes: int = _READ_BYTES) -> bytes:
        """Wait for something to come; empty at the end."""
        while (data := self.read_now(most_bytes)) is None:
            await _ready_for(self._descriptor, writing=False)
        return data

    def read_now(self, most_bytes: int = _READ_BYTES) -> bytes | None:
        """What is there already: empty at the end, `None` where there is nothing yet."""
        try:
            return os.read(self._descriptor, most_bytes)
        except BlockingIOError:
            return None


class InputPipe(_PipeEnd):
    """Our end of a pipe that the box reads from."""

    async def write_all(self, data: bytes) -> None:
        """Write everything and close; a box that is gone takes nothing, and that is no error here."""
        rest = memoryview(data)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:
                    await _ready_for(self._descriptor, writing=True)
        except BrokenPipeError:
            return
        finally:
            self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxPipes:
    """The ends of the pipes."""

    child_ends: tuple[int, int, int]
    """Descriptors for the child's standard input, output and error."""
    stdin: InputPipe
    """Ours, to write to."""
    stdout: OutputPipe
    """Ours, to read."""
    stderr: OutputPipe
    """Ours, to read."""

    @classmethod
    def opened(cls) -> Self:
        """Make the pipes; the caller closes both sides, each at its time.

        Raises:
            OSError: this process has no descriptors left; it keeps none of these then.
        """
        with ExitStack() as opened:
            (stdin_end, own_stdin), (own_stdout, stdout_end), (own_stderr, stderr_end) = (
                _pipe(opened) for _ in range(3)
            )
            opened.pop_all()
        return cls(
            child_ends=(stdin_end, stdout_end, stderr_end),
            stdin=InputPipe(own_stdin),
            stdout=OutputPipe(own_stdout),
            stderr=OutputPipe(own_stderr),
        )

    def close_child_ends(self) -> None:
        """Leave the child's ends to the child, so that the pipes end when it does."""
        for descriptor in self.child_ends:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of our ends, whatever is still in them."""
        for end in (self.stdin, self.stdout, self.stderr):
            end.close()


def _pipe(opened: ExitStack) -> tuple[int, int]:
    """The reading and the writing end of a new pipe, both closed with what they are noted in."""
    ends = os.pipe()
    for descriptor in ends:
        opened.callback(os.close, descriptor)
    return ends


async def _ready_for(descriptor: int, *, writing: bool) -> None:
    """Wait until a descriptor can be read or written without waiting."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(descriptor, _told, ready)
    try:
        await ready
    finally:
        remove(descriptor)


def _told(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
