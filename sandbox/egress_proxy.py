"""Connects the code of one run with what it may reach, through a socket that leads from its box to here.

The box has no network. A forwarder on its loopback hands each connection to this proxy, which is asked as any HTTP or
SOCKS5 proxy is: it resolves names itself, checks every address, connects to the very address it checked, and writes
each decision down. What follows a redirect is a new request. Until the box has been handed code nothing is permitted.
"""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Self

import h11

from policy.addresses import IPAddress
from policy.egress_rules import EgressRefusedError, EgressRules, Host, parse_host
from sandbox.egress_account import EgressAccount
from sandbox.egress_asking import Asked, UnreadableRequestError, asked_by
from sandbox.egress_network import EgressNetwork, EgressStreams, HostNetwork, UnreachableError
from sandbox.egress_relay import EgressRelay, end_connections
from sandbox.egress_socket import bound_egress_socket, new_socket_folder

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
        with new_socket_folder(folder) as opened:
            try:
                await self._listen_in(opened)
            except BaseException:
                self.abandon()
                raise
        return self

    async def serve(self, listening: socket.socket) -> None:
        """Serve a socket that listens already, and close it at the end."""
        await self._serving_from(
            listening,
            asyncio.start_server(self._came, sock=listening, backlog=_ACCEPTED_AT_A_TIME, start_serving=False),
        )

    async def _listen_in(self, opened: int) -> None:
        listening = bound_egress_socket(opened)
        await self._serving_from(
            listening,
            asyncio.start_unix_server(self._came, sock=listening, backlog=_ACCEPTED_AT_A_TIME, start_serving=False),
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
            await end_connections(client[1], at_once=self._closed)

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
                rules = self._opened_rules()
                server = await self._connected(rules, host, asked)
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
            relay = EgressRelay(rules=rules, account=self.account, total_bytes=self._bounds.total_bytes)
            await relay.relay(client, server, asked=asked, host=host)
        finally:
            await end_connections(client[1], server[1], at_once=self._closed)

    def _opened_rules(self) -> EgressRules:
        """What permits.

        Raises:
            EgressRefusedError: nothing does yet.
        """
        if self._rules is None:
            raise EgressRefusedError("the box has not been handed any code yet")
        return self._rules

    async def _connected(self, rules: EgressRules, host: Host, asked: Asked) -> EgressStreams:
        """A connection to an address that the rules permit; of a name, one of those known, if any are.

        Raises:
            EgressRefusedError: they permit none.
            UnreachableError: none answers.
        """
        port = asked.target.port
        await self._turn()
        rules.check_host(host, port)
        found = asked.addresses or (await self._network.addresses(host) if isinstance(host, str) else (host,))
        permitted, refusal = self._permitted_addresses(rules, found)
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


def _takes_from_others(end: asyncio.StreamWriter) -> bool:
    """Whether a connection's descriptor shows that so many are in use that this process needs the rest for its own.

    The kernel hands out the lowest number that is free. Source: open(2), getrlimit(2).
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    number: int = end.get_extra_info("socket").fileno()
    return most != resource.RLIM_INFINITY and number >= most // _PART_FOR_BOXES


def _why_unreachable(error: Exception) -> str:
    """Why a connection failed, in words that no host name or path comes into."""
    if isinstance(error, UnreachableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)  # into its own text asyncio puts the address
    return "it cannot be connected to"
