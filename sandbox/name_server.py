"""Carries DNS questions from a box to what answers them, over UDP and TCP, no more at a time than do harm.

Source: RFC 1035 section 4.2 (transport), RFC 7766 (over TCP).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from sandbox.egress_network import EgressStreams

_MOST_DATAGRAMS_AT_ONCE = 256
_DATAGRAMS_A_TURN = 16
_MOST_MESSAGE_BYTES = 1 << 12
_MOST_CONNECTIONS_AT_ONCE = 16
_QUESTION_SECONDS = 10.0
_LENGTH_BYTES = 2
_QUESTION_PAUSE_SECONDS = 0.05
"""Between two questions of one connection: a client that sends thousands at once would have this process to itself."""

NameReply = Callable[[bytes], Awaitable[bytes]]


class NameServer:
    """Where the names of one box are asked for."""

    def __init__(self, reply: NameReply) -> None:
        """Listen nowhere yet.

        Args:
            reply: what a message is answered with; nothing is said where that is empty.
        """
        self._reply = reply
        self._bound: list[tuple[asyncio.AbstractEventLoop, socket.socket]] = []
        self._servers: list[asyncio.Server] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._closed = False

    def serve_datagrams(self, bound: socket.socket) -> None:
        """Serve a socket, and close it at the end."""
        bound.setblocking(False)  # noqa: FBT003 -- the standard library's
        loop = asyncio.get_running_loop()
        loop.add_reader(bound, self._came_as_datagrams, bound)
        self._bound.append((loop, bound))

    async def serve_connections(self, listening: socket.socket) -> None:
        """Serve a socket that listens already, and close it at the end."""
        self._servers.append(await asyncio.start_server(self._came_connected, sock=listening))

    def abandon(self) -> None:
        """Hear nobody any more, waiting for nothing."""
        self._closed = True
        for server in self._servers:
            server.close()
        while self._bound:
            loop, bound = self._bound.pop()
            if not loop.is_closed():
                loop.remove_reader(bound)
            bound.close()

    async def close(self) -> None:
        """Answer nobody any more."""
        self.abandon()
        answering = tuple(self._answering)
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)

    def _came_as_datagrams(self, bound: socket.socket) -> None:
        """Take what has come, some at a time: others want their turn too."""
        with suppress(OSError):
            for _ in range(_DATAGRAMS_A_TURN):
                message, sender = bound.recvfrom(_MOST_MESSAGE_BYTES)
                if len(self._answering) < _MOST_DATAGRAMS_AT_ONCE:  # of those beyond, senders ask again
                    self._begin(self._datagram_answered(message, sender, bound))

    def _came_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed or self._connections >= _MOST_CONNECTIONS_AT_ONCE:
            writer.transport.abort()
            return
        self._connections += 1
        self._begin(self._connection_answered((reader, writer))).add_done_callback(lambda _: self._let_go(writer))

    def _let_go(self, writer: asyncio.StreamWriter) -> None:
        """Close a connection even where what was to answer it was cancelled before it began."""
        self._connections -= 1
        writer.close()

    def _begin(self, answering: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(answering)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return task

    async def _datagram_answered(self, message: bytes, sender: tuple[Any, ...], bound: socket.socket) -> None:
        reply = await self._reply(message)
        if reply:
            with suppress(OSError):  # its sender asks again
                bound.sendto(reply, sender)

    async def _connection_answered(self, client: EgressStreams) -> None:
        try:
            while True:
                async with asyncio.timeout(_QUESTION_SECONDS):
                    length = int.from_bytes(await client[0].readexactly(_LENGTH_BYTES), "big")
                    message = await client[0].readexactly(length)
                reply = await self._reply(message)
                client[1].write(len(reply).to_bytes(_LENGTH_BYTES, "big") + reply)
                await client[1].drain()
                await asyncio.sleep(_QUESTION_PAUSE_SECONDS)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # the client is gone, or says nothing more
