"""The three pipes between a runner and its box, made here so that they are pipes under every event loop.

uvloop, which Open WebUI runs on, gives a child socket pairs where it is asked for pipes; those cannot be opened again
through `/dev/stdin`, which shells and people's code do.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxPipes:
    """The ends of the pipes, ours attached to the running event loop."""

    child_ends: tuple[int, int, int]
    """Descriptors for the child's standard input, output and error."""
    stdin: asyncio.WriteTransport
    """Ours, to write to."""
    stdout: asyncio.StreamReader
    """Ours, to read."""
    stderr: asyncio.StreamReader
    """Ours, to read."""
    transports: tuple[asyncio.BaseTransport, ...]
    """All that must be closed in the end."""

    @classmethod
    async def opened(cls) -> Self:
        """Make the pipes; the caller closes both sides, each at its time."""
        stdin_end, own_stdin = os.pipe()
        own_stdout, stdout_end = os.pipe()
        own_stderr, stderr_end = os.pipe()
        loop = asyncio.get_running_loop()
        stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(own_stdin, "wb", 0))
        stdout, stdout_transport = await _attached(own_stdout)
        stderr, stderr_transport = await _attached(own_stderr)
        return cls(
            child_ends=(stdin_end, stdout_end, stderr_end),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            transports=(stdin, stdout_transport, stderr_transport),
        )

    def close_child_ends(self) -> None:
        """Leave the child's ends to the child, so that the pipes end when it does."""
        for descriptor in self.child_ends:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of our ends, whatever is still in them."""
        for transport in self.transports:
            transport.close()


async def _attached(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    return reader, transport
