"""Reads what a client inside a box asks the egress proxy for: HTTP CONNECT, plain HTTP, or SOCKS5.

Nothing here reads a socket; every byte comes from the box and is believed in nothing but where it wants to go. HTTP is
left to h11, which Open WebUI's own server uses; of SOCKS5 only CONNECT without authentication is spoken.

Source: RFC 9110 section 9.3.6 (CONNECT), RFC 9112 section 3.2 (request targets), RFC 1928 (SOCKS5).
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from policy.egress_rules import EgressRefusedError

MOST_HEAD_BYTES = 1 << 16
"""A longer head of a request is refused."""
SOCKS_VERSION = 5
_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\[\]:/@\s]+)(?::([0-9]{1,5}))?")
_LARGEST_PORT = 65535
_HTTP_PORT = 80
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer upgrade".split()
)
_SOCKS_CONNECT = 1
_SOCKS_IPV4, _SOCKS_NAME, _SOCKS_IPV6 = 1, 3, 4
_SOCKS_ADDRESS_BYTES = {_SOCKS_IPV4: 4, _SOCKS_IPV6: 16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a client wants to be connected."""

    untrusted_host: str
    """As the client spelt it."""
    port: int
    """1 to 65535."""


def connect_target(request: h11.Request) -> Target:
    """Where a CONNECT request wants to go.

    Raises:
        EgressRefusedError: its target is no `host:port`.
    """
    target = request.target.decode("ascii", errors="replace")
    found = _AUTHORITY.fullmatch(target)
    if found is None or found[2] is None:
        raise EgressRefusedError("its target is no host:port")
    return Target(untrusted_host=found[1], port=_port(found[2]))


def plain_target(request: h11.Request) -> tuple[Target, h11.Request]:
    """Where a plain HTTP request wants to go, and the request as that server gets it.

    The server is asked for the host that was checked, whatever the client's own `Host` says, and to close afterwards,
    so that no second request reaches it unseen.

    Raises:
        EgressRefusedError: its target is no `http://` address, or its body has two ends.
    """
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
        raise EgressRefusedError("its length stands in Content-Length and in Transfer-Encoding")
    try:
        parts = urlsplit(request.target.decode("ascii"))
    except ValueError as error:
        raise EgressRefusedError("its target is no http:// address") from error
    if parts.scheme.lower() != "http" or not parts.netloc:
        raise EgressRefusedError("its target is no http:// address; https:// goes through CONNECT")
    found = _AUTHORITY.fullmatch(parts.netloc)
    if found is None:
        raise EgressRefusedError("its target holds more than a host and a port")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    dropped = _dropped_headers(request)
    return Target(untrusted_host=found[1], port=_port(found[2]) if found[2] else _HTTP_PORT), h11.Request(
        method=request.method,
        target=path,
        headers=[
            (b"host", parts.netloc.encode()),
            *((name, value) for name, value in request.headers if name not in dropped),
            (b"connection", b"close"),
        ],
    )


def _dropped_headers(request: h11.Request) -> frozenset[bytes]:
    """What concerns this connection alone, and `Host` and `Expect`, which the proxy answers for itself."""
    named = (value for name, value in request.headers if name == b"connection")
    listed = (word.strip().lower() for value in named for word in value.split(b","))
    return _HOP_BY_HOP | {b"host", b"expect"} | frozenset(listed) - {b"content-length", b"transfer-encoding"}


def socks_greeting_bytes(data: bytes) -> int | None:
    """How long the greeting is that these bytes begin with; `None` while that cannot be told."""
    return 2 + data[1] if len(data) > 1 else None


def socks_request_bytes(data: bytes) -> int | None:
    """How long the request is that these bytes begin with; `None` while that cannot be told.

    Raises:
        EgressRefusedError: no request begins so.
    """
    head = 4
    if len(data) <= head:
        return None
    version, _, _, kind = data[:head]
    if version != SOCKS_VERSION or kind not in {_SOCKS_NAME, *_SOCKS_ADDRESS_BYTES}:
        raise EgressRefusedError("its SOCKS request is malformed")
    return head + (1 + data[head] if kind == _SOCKS_NAME else _SOCKS_ADDRESS_BYTES[kind]) + 2


def socks_target(request: bytes) -> Target:
    """Where a whole SOCKS5 request wants to go.

    Raises:
        EgressRefusedError: it asks for something else than a connection, or its host is no text.
    """
    _, command, _, kind = request[:4]
    if command != _SOCKS_CONNECT:
        raise EgressRefusedError("only connections are made, no datagrams and no listening")
    host, port = request[4:-2], int.from_bytes(request[-2:], "big")
    if kind != _SOCKS_NAME:
        address = ipaddress.ip_address(host)
        spelt = f"[{address}]" if kind == _SOCKS_IPV6 else str(address)
        return Target(untrusted_host=spelt, port=_port(str(port)))
    try:
        return Target(untrusted_host=host[1:].decode("ascii"), port=_port(str(port)))
    except UnicodeDecodeError as error:
        raise EgressRefusedError("its host name is not in A-labels") from error


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= _LARGEST_PORT:
        raise EgressRefusedError(f"there is no port {port}")
    return port
