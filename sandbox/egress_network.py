"""This host's network, as the egress proxy uses it: names resolved, own addresses known, connections made.

Only what rules have permitted is asked for or connected to. Resolvers block for as long as they like, so each proxy has
a few threads of its own for them, which no other run can use up.
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from policy.addresses import IPAddress

EgressStreams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_RESOLVER_THREADS = 4


class UnreachableError(Exception):
    """What is permitted could not be reached; the text says why, without full stop."""


class EgressNetwork(Protocol):
    """A network."""

    async def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """What a name is resolved to, in the order to try.

        Raises:
            UnreachableError: it is resolved to nothing.
        """
        ...

    def is_own(self, address: IPAddress) -> bool:
        """Whether it is one of this host's own addresses."""
        ...

    async def connected(self, address: IPAddress, port: int) -> EgressStreams:
        """A connection to exactly this address.

        Raises:
            OSError: it cannot be made.
        """
        ...

    def close(self) -> None:
        """Resolve nothing any more."""
        ...


class HostNetwork:
    """That of the host, or of the container that this process is in."""

    def __init__(self) -> None:
        self._resolving: ThreadPoolExecutor | None = None

    async def addresses(self, name: str) -> tuple[IPAddress, ...]:
        """Ask the host's resolver, as any of its programs would."""
        if self._resolving is None:
            self._resolving = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="egress-resolver")
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._resolving, _looked_up, name)
        except (OSError, UnicodeError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else "it is no name"
            raise UnreachableError(f"its name cannot be resolved: {words}") from error
        return found

    def is_own(self, address: IPAddress) -> bool:
        """Ask the kernel which address it would send from: for one of its own, that is the same one.

        A datagram socket is connected for that, which sends nothing. Source: udp(7), connect(2).
        """
        family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect((str(address), 9))
            except OSError:
                return False
            return ipaddress.ip_address(asking.getsockname()[0]) == address

    async def connected(self, address: IPAddress, port: int) -> EgressStreams:
        """Connect, with no name left to resolve."""
        return await asyncio.open_connection(str(address), port)

    def close(self) -> None:
        """Leave questions that are under way to their end, and ask no more."""
        if self._resolving is not None:
            self._resolving.shutdown(wait=False, cancel_futures=True)


def _looked_up(name: str) -> tuple[IPAddress, ...]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(_unmapped_address(str(entry[4][0])) for entry in found))


def _unmapped_address(text: str) -> IPAddress:
    """An address without its zone; an IPv4-mapped one as the IPv4 address it is."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or address
