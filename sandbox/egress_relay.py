"""Passes on what a client inside a box and the server that it was connected with say to each other, and ends both.

Every byte is counted before it is passed on, and too many of one run break its connections. TLS to a host that was
permitted by its name asks for that name or for another that is permitted: else one server of many hosts would lead to
them all. Whether a connection may be made at all is decided before, in `egress_proxy`.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from policy.egress_rules import EgressRefusedError, EgressRules, Host, parse_host
from sandbox.answer_head import AnswerHead
from sandbox.client_hello import ClientHelloReader, MalformedHelloError, begins_tls, server_name
from sandbox.egress_account import EgressAccount
from sandbox.egress_asking import READ_BYTES, Asked
from sandbox.egress_network import EgressStreams


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRelay:
    """Relays connections of one run."""

    rules: EgressRules
    """What the names that TLS asks for are held against."""
    account: EgressAccount
    """The run's: what passes is counted there, and what is refused is noted."""
    total_bytes: int
    """That may pass in the whole run, both ways together; then every connection breaks."""

    async def relay(self, client: EgressStreams, server: EgressStreams, *, asked: Asked, host: Host) -> None:
        """Pass on what both ends say, until both, or the one that answers, have said all.

        Args:
            client: who asked.
            server: whom it is connected with.
            asked: what it asked for, with all that it says.
            host: what that was permitted as.

        Raises:
            ConnectionAbortedError: what is said may not pass; why not is in the account.
        """
        upward = asyncio.create_task(self._passed_up(asked, host, server[1]))
        head = None if asked.is_tunnel else AnswerHead()
        downward = asyncio.create_task(self._passed_down(server[0], client[1], head))
        try:
            first, _ = await asyncio.wait((upward, downward), return_when=asyncio.FIRST_EXCEPTION)
            for task in first:
                await task
        finally:
            for task in (upward, downward):
                task.cancel()
            await asyncio.gather(upward, downward, return_exceptions=True)

    async def _passed_up(self, asked: Asked, host: Host, server: asyncio.StreamWriter) -> None:
        said = asked.said
        if asked.is_tunnel and isinstance(host, str):
            said = self._honestly_named(said, asked.target.port)
        async for data in said:
            self._count(sent=len(data))
            server.write(data)
            await server.drain()
        if asked.is_tunnel:
            _end_writing(server)

    async def _passed_down(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter, head: AnswerHead | None
    ) -> None:
        while data := await server.read(READ_BYTES):
            self._count(received=len(data))
            client.write(data if head is None else head.passed(data))
            await client.drain()
        if head is not None:
            client.write(head.rest())
        _end_writing(client)

    def _count(self, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes, and break the connection where they are too many."""
        account = self.account
        account.sent_bytes += sent
        account.received_bytes += received
        if account.sent_bytes + account.received_bytes > self.total_bytes:
            most = f"{self.total_bytes >> 20} megabytes have passed, as many as may"
            account.note("everything", permitted=False, reason=most)
            raise ConnectionAbortedError

    async def _honestly_named(self, said: AsyncIterator[bytes], port: int) -> AsyncIterator[bytes]:
        """Pass on what a client says, once it is known that TLS asks for no name that is not permitted."""
        reader = ClientHelloReader()
        held: bytearray | None = bytearray()
        async for data in said:
            if held is None:
                yield data
                continue
            held += data
            if not begins_tls(bytes(held[:1])) or self._may_pass(reader, data, port):
                yield bytes(held)
                held = None

    def _may_pass(self, reader: ClientHelloReader, data: bytes, port: int) -> bool:
        """Whether the TLS that a client begins with is known to ask for nothing else; false while that cannot be told.

        Raises:
            ConnectionAbortedError: it does; the decision is in the account.
        """
        name: str | None = None
        try:
            hello = reader.read(data)
            if hello is None:
                return False
            name = server_name(hello)
            if name is not None:
                self.rules.check_host(parse_host(name), port)
        except (MalformedHelloError, EgressRefusedError) as error:
            origin = error.origin if isinstance(error, EgressRefusedError) else ""
            reason = f"TLS asks for it: {error}" if name else f"its TLS cannot be read: {error}"
            self.account.note(f"{name or '?'}:{port}", permitted=False, reason=reason, origin=origin)
            raise ConnectionAbortedError from error
        return True


async def end_connections(*ends: asyncio.StreamWriter, at_once: bool) -> None:
    """Close each end once it has taken all that was written to it; `at_once` drops what it has not taken yet.

    How each ended is heard here: asyncio complains of errors that nobody heard.
    """
    try:
        for end in ends:
            end.close()
        if at_once:
            _drop_unsent(ends)
        await asyncio.gather(*(end.wait_closed() for end in ends), return_exceptions=True)
    finally:
        _drop_unsent(ends)


def _drop_unsent(ends: tuple[asyncio.StreamWriter, ...]) -> None:
    for end in ends:
        if end.transport.get_write_buffer_size():  # asyncio fails where one that has closed itself is aborted
            end.transport.abort()


def _end_writing(end: asyncio.StreamWriter) -> None:
    """Say that no more will come; to an end that is gone nothing can be said, and uvloop raises RuntimeError there."""
    if not end.is_closing():
        end.write_eof()
