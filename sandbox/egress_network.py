"""This host's network, as the egress proxy uses it: names resolved, own addresses known, connections made.

Only what rules have permitted is asked for or connected to. Resolvers block for as long as they like, so each proxy has
a few threads of its own for them, which no other run can use up.
"""

import asyncio
import errno
import ipaddress
import os
import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import Protocol

from policy.addresses import IPAddress, unmapped_address

EgressStreams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_RESOLVER_THREADS = 4
_BUFFER_OUT_BYTES = 1 << 18
"""Of each connection's two buffers, which the kernel lets grow to many megabytes where nobody says it; enough for five
megabytes a second from 50 milliseconds away. Source: tcp(7)."""
_MOST_ADDRESSES = 16
"""Of one name; whoever answers for it could name thousands, to be checked and tried one after the other."""
_HOSTS_FILE = Path("/etc/hosts")
_ROUTE_QUESTION = struct.Struct("=IHHIIBBBBBBBBIHH")
_ROUTE_ANSWER = struct.Struct("=IHHIIBBBBBBBBI")
_ASK_ROUTE, _ROUTE_TOLD = 26, 24
_PLAIN_REQUEST, _DESTINATION_ATTRIBUTE = 1, 1
_KINDS_THAT_STAY = frozenset({2, 3, 4})
"""Of routes: local, broadcast, anycast. Source: rtnetlink(7), linux/rtnetlink.h."""
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES})
_MOST_ROUTE_BYTES = 1 << 13


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
        """Whether it is one of this host's own addresses.

        Raises:
            UnreachableError: that cannot be found out.
        """
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
        """Ask the host's resolver for exactly this name; for one without dots, as the host's programs do."""
        if self._resolving is None:
            self._resolving = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="egress-resolver")
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._resolving, _looked_up, name)
        except (OSError, UnicodeError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else "it is no name"
            raise UnreachableError(f"its name cannot be resolved: {words}") from error
        return found

    def is_own(self, address: IPAddress) -> bool:
        """Ask the kernel's routes, as they are now, whether what is sent there stays on this host."""
        try:
            return _route_kind(address) in _KINDS_THAT_STAY
        except OSError as error:
            words = error.strerror or "no answer"
            raise UnreachableError(f"the kernel does not tell whether {address} is this host's own: {words}") from error

    async def connected(self, address: IPAddress, port: int) -> EgressStreams:
        """Connect, with no name left to resolve."""
        family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
        connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                connecting.setsockopt(socket.SOL_SOCKET, buffer, _BUFFER_OUT_BYTES)
            await asyncio.get_running_loop().sock_connect(connecting, (str(address), port))
            return await asyncio.open_connection(sock=connecting)
        except BaseException:
            connecting.close()
            raise

    def close(self) -> None:
        """Leave questions that are under way to their end, and ask no more."""
        if self._resolving is not None:
            self._resolving.shutdown(wait=False, cancel_futures=True)


def _route_kind(address: IPAddress) -> int:
    """What kind of route leads to an address; 0 where none does.

    Raises:
        OSError: the kernel cannot be asked, or does not know what is asked of it.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    attribute = (4 + len(address.packed), _DESTINATION_ATTRIBUTE)
    length = _ROUTE_QUESTION.size + len(address.packed)
    head = (length, _ASK_ROUTE, _PLAIN_REQUEST, 1, 0)
    route = (family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(0)  # the answer is there once the question has been taken
        asking.sendall(_ROUTE_QUESTION.pack(*head, *route, *attribute) + address.packed)
        answer = asking.recv(_MOST_ROUTE_BYTES)
    if int.from_bytes(answer[4:6], sys.byteorder) == _ROUTE_TOLD:
        kind: int = _ROUTE_ANSWER.unpack_from(answer)[12]
        return kind
    code = -int.from_bytes(answer[16:20], sys.byteorder, signed=True)
    if code in _NO_ROUTE:
        return 0
    raise OSError(code, os.strerror(code))


def _looked_up(name: str) -> tuple[IPAddress, ...]:
    """What this host knows of a name.

    The dot at its end keeps a resolver from asking for it below the host's search domains, which nobody has permitted.
    With that no C library looks into its file of hosts. A name without dots means what the search domains make of it.
    """
    if "." in name:
        listed = _listed_in_hosts(name)
        if listed:
            return listed
    found = socket.getaddrinfo(f"{name}." if "." in name else name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(_told_address(str(entry[4][0])) for entry in found))[:_MOST_ADDRESSES]


def _listed_in_hosts(name: str) -> tuple[IPAddress, ...]:
    """What the host's own file says of a name. Source: hosts(5)."""
    listed: list[IPAddress] = []
    with suppress(OSError), _HOSTS_FILE.open(errors="replace") as lines:
        for line in lines:
            address, *names = line.lower().partition("#")[0].split() or [""]
            if name in names:
                with suppress(ValueError):
                    listed.append(_told_address(address))
    return tuple(dict.fromkeys(listed))[:_MOST_ADDRESSES]


def _told_address(text: str) -> IPAddress:
    """An address without its zone; an IPv4-mapped one as the IPv4 address it is."""
    return unmapped_address(ipaddress.ip_address(text.partition("%")[0]))
