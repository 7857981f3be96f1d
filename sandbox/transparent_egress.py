"""Connects the code of one run with what it may reach, unasked: for programs that know nothing of proxies.

The box is in a network namespace whose every connection the kernel turns to us, with the address that it was meant for.
What that address was the answer to, among the names that the box asked our resolver for, is what it is taken for; the
rest is decided and done as for the proxy. A connection is taken before it is known whether there is anything at its
other end, so what is refused is reset.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Self

from policy.addresses import IPAddress
from policy.egress_rules import EgressRefusedError, EgressRules, Host
from sandbox.egress_account import EgressAccount
from sandbox.egress_asking import READ_BYTES, Asked, UnreadableRequestError
from sandbox.egress_network import EgressNetwork, EgressStreams, HostNetwork
from sandbox.egress_proxy import EgressBounds, EgressProxy
from sandbox.egress_requests import Target
from sandbox.name_server import NameServer
from sandbox.network_namespace import NetworkNamespace, original_destination
from sandbox.permitted_names import PermittedNames

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class TransparentEgress:
    """The only way out of one box, through the network namespace that it is in."""

    def __init__(
        self, namespace: NetworkNamespace, network: EgressNetwork | None = None, bounds: EgressBounds | None = None
    ) -> None:
        """Serve nothing yet.

        Args:
            namespace: the box's own; closed at the end.
            network: where connections are made; this host's by default.
            bounds: how much is permitted.
        """
        bounds = bounds or EgressBounds()
        network = HostNetwork() if network is None else network
        self.namespace = namespace
        self._proxy = EgressProxy(network, bounds, asking=self._asked)
        self._names = PermittedNames(
            network, self.account, lookups=bounds.connections, within_seconds=bounds.connect_seconds
        )
        self._name_server = NameServer(self._names.reply)
        self._rules: EgressRules | None = None

    @classmethod
    async def listening(cls, network: EgressNetwork | None = None, bounds: EgressBounds | None = None) -> Self:
        """Make a namespace, and serve what comes in it; nothing is permitted until `open`.

        Raises:
            UnenforceableError: this host or this user cannot.
        """
        made = cls(await NetworkNamespace.made(), network, bounds)
        try:
            await made._listen()
        except BaseException:
            made.abandon()
            raise
        return made

    @property
    def account(self) -> EgressAccount:
        """What was reached and refused."""
        return self._proxy.account

    def open(self, rules: EgressRules) -> None:
        """Permit what these rules do, from now on."""
        self._rules = rules
        self._names.open(rules)
        self._proxy.open(rules)

    def abandon(self) -> None:
        """Let nobody in any more, waiting for nothing."""
        self._proxy.abandon()
        self._name_server.abandon()
        self._names.abandon()
        self.namespace.close()

    async def close(self) -> None:
        """End every connection, and let go of the namespace."""
        self.abandon()
        await self._proxy.close()
        await self._name_server.close()
        await self._names.close()

    async def _listen(self) -> None:
        for listening in self.namespace.connections:
            await self._proxy.serve(listening)
        for listening in self.namespace.name_connections:
            await self._name_server.serve_connections(listening)
        for bound in self.namespace.name_datagrams:
            self._name_server.serve_datagrams(bound)

    async def _asked(self, client: EgressStreams) -> Asked:
        """Whom a client wants to talk to: it told the kernel.

        Raises:
            UnreadableRequestError: it meant our own socket.
        """
        connection: socket.socket = client[1].get_extra_info("socket")
        try:
            address, port = original_destination(connection)
        except OSError as error:
            raise UnreadableRequestError("a connection to a port of the sandbox's own", b"") from error
        host, addresses = self._taken_for(address, port)
        return Asked(
            target=Target(untrusted_host=f"[{host}]" if isinstance(host, IPv6Address) else str(host), port=port),
            granted=b"",
            said=_everything_said(client[0]),
            is_tunnel=True,
            refusal=lambda _status, _destination, _reason: _reset(connection),
            addresses=addresses,
        )

    def _taken_for(self, address: IPAddress, port: int) -> tuple[Host, tuple[IPAddress, ...]]:
        """The name that an address stands for, with all that this may be reached at, the very address first; or itself.

        Of several names it is the latest that is permitted at this port. Where none is, the address itself may be.
        """
        names = self._names.names_of(address)
        permitted = [named for named in names if self._permits(named[0], port)]
        taken = permitted or ([] if self._permits(address, port) else list(names))
        if not taken:
            return address, ()
        name, addresses = taken[0]
        return name, tuple(dict.fromkeys((address, *addresses)))

    def _permits(self, host: Host, port: int) -> bool:
        if self._rules is None:
            return False
        with suppress(EgressRefusedError):
            self._rules.check_host(host, port)
            return True
        return False


async def _everything_said(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(READ_BYTES):
        yield data


def _reset(connection: socket.socket) -> bytes:
    """Let the connection's closing tell its client that it was refused; there is nothing else to say it with."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
    return b""
