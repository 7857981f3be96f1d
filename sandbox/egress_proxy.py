"""Connects the code of one run with what it may reach, through a socket that leads from its box to here.

The box has no network. A forwarder on its loopback hands each connection to this proxy, which is asked as any HTTP or
SOCKS5 proxy is: it resolves names itself, checks every address, connects to the very address it checked, and writes
each decision down. What follows a redirect is a new request. Until the box has been handed code nothing is permitted.
"""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Self

import h11

from policy.addresses import IPAddress
from policy.egress_rules import EgressRefusedError, EgressRules, Host, parse_host
from sandbox.client_hello import ClientHelloReader, MalformedHelloError, begins_tls, server_name
from sandbox.egress_account import EgressAccount
from sandbox.egress_asking import READ_BYTES, Asked, UnreadableRequestError, asked_by
from sandbox.egress_network import EgressNetwork, EgressStreams, HostNetwork, UnreachableError
from sandbox.forwarder import EGRESS_SOCKET

_MOST_HEARD = 2
"""Times as many connections as may be at once are heard out; one beyond is ended unheard, since each takes a descriptor
of this process. So are times as many as may be in all; then nobody listens any more, since each costs time, too."""
_ACCEPTED_AT_A_TIME = 16
"""Before others have their turn; asyncio accepts as many in one go as it is told may wait."""
_PART_FOR_BOXES = 2
"""Once half of the descriptors that this process may have are in use, boxes get no more: a server needs the rest."""
_TOO_FEW_DESCRIPTORS = "the server has too few file descriptors left"
_MOST_WAITED_FOR = 4
"""Addresses of one name for which there is time, if none answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressBounds:
    """What one run may ask of its proxy, so that it harms neither this process nor the rest of the network."""

    connections_at_once: int = 256
    """Open at a time; one more is refused."""
    connections: int = 10_000
    """In all; one more is refused."""
    connections_a_second: float = 50.0
    """Beyond the first `connections_at_once`, which need not wait, each one waits for its turn."""
    total_bytes: int = 4 << 30
    """Both ways together; then every connection ends."""
    head_seconds: float = 10.0
    """Until a client has said whom it wants to talk to."""
    connect_seconds: float = 10.0
    """Until a name is resolved and one of its addresses answers."""


class EgressProxy:
    """The only way out of one box."""

    def __init__(
        self,
        network: EgressNetwork | None = None,
        bounds: EgressBounds | None = None,
        *,
        asking: Callable[[EgressStreams], Awaitable[Asked | None]] = asked_by,
    ) -> None:
        """Listen nowhere yet.

        Args:
            network: where connections are made; this host's by default.
            bounds: how much is permitted.
            asking: how it is found out what a client wants.
        """
        self.account = EgressAccount()
        self._network = HostNetwork() if network is None else network
        self._bounds = bounds or EgressBounds()
        self._rules: EgressRules | None = None
        self._asking = asking
        self._servers: list[asyncio.Server] = []
        self._came_in_all = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._begun = 0
        self._next_turn = 0.0
        self._closed = False

    async def listen(self, folder: Path) -> Self:
        """Make the folder with the socket in it, which every user inside a box may use.

        Args:
            folder: in a private folder; nobody else on this host comes near it.
        """
        opened = _new_socket_folder(folder)
        try:
            listening = _bound_socket(opened)
            await self._serving_from(
                listening,
                asyncio.start_unix_server(self._came, sock=listening, backlog=_ACCEPTED_AT_A_TIME, start_serving=False),
            )
        except BaseException:
            self.abandon()
            raise
        finally:
            os.close(opened)
        return self

    async def serve(self, listening: socket.socket) -> None:
        """Serve a socket that listens already, and close it at the end."""
        await self._serving_from(
            listening,
            asyncio.start_server(self._came, sock=listening, backlog=_ACCEPTED_AT_A_TIME, start_serving=False),
        )

    async def _serving_from(self, listening: socket.socket, making: Awaitable[asyncio.Server]) -> None:
        """Serve a socket; whoever is cancelled meanwhile leaves the event loop nothing to watch that is closed."""
        try:
            server = await making
        except BaseException:
            listening.close()
            raise
        self._servers.append(server)
        await server.start_serving()
        listening.listen(self._bounds.connections_at_once)

    def open(self, rules: EgressRules) -> None:
        """Permit what these rules do, from now on."""
        self._rules = rules
        self._next_turn = asyncio.get_running_loop().time()

    def abandon(self) -> None:
        """Let nobody in any more, waiting for nothing."""
        self._closed = True
        self._listen_no_more()
        self._network.close()

    async def close(self) -> None:
        """End every connection."""
        self.abandon()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _listen_no_more(self) -> None:
        for server in self._servers:
            server.close()

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._came_in_all += 1
        if self._came_in_all >= _MOST_HEARD * self._bounds.connections:
            self._listen_no_more()
        scarce = _takes_from_others(writer)
        if scarce:
            self.account.note("?", permitted=False, reason=_TOO_FEW_DESCRIPTORS)
        if scarce or self._closed or len(self._serving) >= _MOST_HEARD * self._bounds.connections_at_once:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._served((reader, writer)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: writer.close())  # even where it was cancelled before it began

    async def _served(self, client: EgressStreams) -> None:
        try:
            await self._answered(client)
        except (OSError, TimeoutError, h11.ProtocolError):
            return  # either end is gone, or says nothing; the other is told by the closing
        finally:
            await self._ended(client[1])

    async def _answered(self, client: EgressStreams) -> None:
        try:
            async with asyncio.timeout(self._bounds.head_seconds):
                asked = await self._asking(client)
        except UnreadableRequestError as error:
            self.account.note("?", permitted=False, reason=error.reason)
            client[1].write(error.answer)
            return
        if asked is not None:
            await self._connected_or_refused(asked, client)

    async def _connected_or_refused(self, asked: Asked, client: EgressStreams) -> None:
        destination = f"{asked.target.untrusted_host}:{asked.target.port}"
        try:
            async with asyncio.timeout(self._bounds.connect_seconds):
                host = parse_host(asked.target.untrusted_host)
                server = await self._connected(host, asked.target.port, asked.addresses)
        except EgressRefusedError as refusal:
            self.account.note(destination, permitted=False, reason=refusal.reason, origin=refusal.origin)
            client[1].write(asked.refusal(HTTPStatus.FORBIDDEN, f"{destination} refused: ", refusal.told))
            return
        except (UnreachableError, OSError, TimeoutError) as error:
            reason = _why_unreachable(error)
            self.account.note(destination, permitted=True, reason=reason)
            client[1].write(asked.refusal(HTTPStatus.BAD_GATEWAY, f"{destination} not reached: ", reason))
            return
        self.account.note(destination, permitted=True)
        client[1].write(asked.granted)
        try:
            await self._relayed(asked, host, client, server)
        finally:
            await self._ended(client[1], server[1])

    async def _connected(self, host: Host, port: int, known: tuple[IPAddress, ...]) -> EgressStreams:
        """A connection to an address that the rules permit; of a name, one of those known, if any are.

        Raises:
            EgressRefusedError: they permit none.
            UnreachableError: none answers.
        """
        if self._rules is None:
            raise EgressRefusedError("the box has not been handed any code yet")
        await self._turn()
        self._rules.check_host(host, port)
        found = known or (await self._network.addresses(host) if isinstance(host, str) else (host,))
        permitted, refusal = self._permitted_addresses(self._rules, found)
        if refusal is not None and not permitted:
            raise refusal
        failure: OSError | None = None
        share = self._bounds.connect_seconds / max(1, min(len(permitted), _MOST_WAITED_FOR))
        for address in permitted:
            try:
                async with asyncio.timeout(share):
                    server = await self._network.connected(address, port)
            except OSError as error:
                failure = error
                continue
            if _takes_from_others(server[1]):
                server[1].transport.abort()
                raise UnreachableError(_TOO_FEW_DESCRIPTORS)
            return server
        raise UnreachableError(_why_unreachable(failure) if failure else "its name has no address")

    def _permitted_addresses(
        self, rules: EgressRules, found: tuple[IPAddress, ...]
    ) -> tuple[tuple[IPAddress, ...], EgressRefusedError | UnreachableError | None]:
        """Those that may be connected to, and why the last of the others may not."""
        permitted: list[IPAddress] = []
        refusal: EgressRefusedError | UnreachableError | None = None
        for address in found:
            try:
                rules.check_address(address, own=self._network.is_own(address))
            except (EgressRefusedError, UnreachableError) as error:
                refusal = error
            else:
                permitted.append(address)
        return tuple(permitted), refusal

    async def _turn(self) -> None:
        """Wait until one more connection may be made.

        Raises:
            EgressRefusedError: there are too many.
        """
        bounds, now = self._bounds, asyncio.get_running_loop().time()
        if len(self._serving) > bounds.connections_at_once:
            raise EgressRefusedError(f"{bounds.connections_at_once} connections are open already, as many as may be")
        self._begun += 1
        if self._begun > bounds.connections:
            raise EgressRefusedError(f"the run has made {bounds.connections} connections already, as many as may be")
        if self._begun > bounds.connections_at_once:
            self._next_turn = max(self._next_turn, now) + 1 / bounds.connections_a_second
            await asyncio.sleep(self._next_turn - now)

    async def _relayed(self, asked: Asked, host: Host, client: EgressStreams, server: EgressStreams) -> None:
        """Pass on what both ends say, until both, or the one that answers, have said all."""
        upward = asyncio.create_task(self._passed_up(asked, host, server[1]))
        downward = asyncio.create_task(self._passed_down(server[0], client[1]))
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

    async def _passed_down(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(READ_BYTES):
            self._count(received=len(data))
            client.write(data)
            await client.drain()
        _end_writing(client)

    async def _ended(self, *ends: asyncio.StreamWriter) -> None:
        """Close what is written to once it has taken all of it, and at once where the proxy closes."""
        try:
            for end in ends:
                end.close()
            if not self._closed:
                await asyncio.gather(*(end.wait_closed() for end in ends), return_exceptions=True)
        finally:
            for end in ends:
                if end.transport.get_write_buffer_size():  # asyncio fails where one that has closed itself is aborted
                    end.transport.abort()

    def _count(self, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes, and break the connection where they are too many."""
        account = self.account
        account.sent_bytes += sent
        account.received_bytes += received
        if account.sent_bytes + account.received_bytes > self._bounds.total_bytes:
            most = f"{self._bounds.total_bytes >> 20} megabytes have passed, as many as may"
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
            if name is not None and self._rules is not None:
                self._rules.check_host(parse_host(name), port)
        except (MalformedHelloError, EgressRefusedError) as error:
            origin = error.origin if isinstance(error, EgressRefusedError) else ""
            reason = f"TLS asks for it: {error}" if name else f"its TLS cannot be read: {error}"
            self.account.note(f"{name or '?'}:{port}", permitted=False, reason=reason, origin=origin)
            raise ConnectionAbortedError from error
        return True


def _end_writing(end: asyncio.StreamWriter) -> None:
    """Say that no more will come; to an end that is gone nothing can be said, and uvloop raises RuntimeError there."""
    if not end.is_closing():
        end.write_eof()


def _takes_from_others(end: asyncio.StreamWriter) -> bool:
    """Whether a connection's descriptor shows that so many are in use that this process needs the rest for its own.

    The kernel hands out the lowest number that is free. Source: open(2), getrlimit(2).
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    number: int = end.get_extra_info("socket").fileno()
    return most != resource.RLIM_INFINITY and number >= most // _PART_FOR_BOXES


def _new_socket_folder(folder: Path) -> int:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)  # whatever the umask took away
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _bound_socket(folder: int) -> socket.socket:
    """The socket of an open folder, bound through that: a path has room for 107 bytes. Source: unix(7).

    From Python 3.13 on asyncio looks whether that path is there, and would remove it at the end: where the number could
    be another descriptor's by then. It finds nothing while the folder is open and the socket has another name.
    """
    place = Path(f"/proc/self/fd/{folder}/bound")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(place))
        place.chmod(0o666)
        place.rename(place.with_name(EGRESS_SOCKET))
    except BaseException:
        bound.close()
        raise
    return bound


def _why_unreachable(error: Exception) -> str:
    """Why a connection failed, in words that no host name or path comes into."""
    if isinstance(error, UnreachableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    with suppress(AttributeError):
        return (error.strerror if isinstance(error, OSError) else None) or "it cannot be connected to"
    return "it cannot be connected to"
