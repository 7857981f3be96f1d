"""Hears out a client inside a box, up to where it says whom to connect it with, and knows how to answer it."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus

import h11

from policy.addresses import IPAddress
from policy.egress_rules import EgressRefusedError
from sandbox.egress_network import EgressStreams
from sandbox.egress_requests import (
    MOST_HEAD_BYTES,
    SOCKS_VERSION,
    Target,
    connect_target,
    plain_target,
    socks_greeting_bytes,
    socks_request_bytes,
    socks_target,
)

READ_BYTES = 1 << 16
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_SOCKS_NO_AUTHENTICATION = b"\x05\x00"
_SOCKS_NONE_ACCEPTABLE = b"\x05\xff"
_SOCKS_GRANTED = b"\x05\x00\x00\x01" + bytes(6)
_SOCKS_REPLIES = {HTTPStatus.FORBIDDEN: 2, HTTPStatus.BAD_GATEWAY: 4}
_CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom a client wants to talk to, and all that it says."""

    target: Target
    """Whom."""
    granted: bytes
    """What it is told once it is connected."""
    said: AsyncIterator[bytes]
    """What the other end is to get."""
    is_tunnel: bool
    """Whether that passes as it comes; else it is one HTTP request."""
    refusal: Callable[[HTTPStatus, str, str], bytes]
    """What it is told where it is not connected: of destination and reason, only the latter stands in a head."""
    addresses: tuple[IPAddress, ...] = ()
    """What its host is known to have been resolved to, in the order to try; empty where that is to be found out."""


class UnreadableRequestError(Exception):
    """A client says what no proxy understands.

    Args:
        reason: what is wrong, without full stop.
        answer: what it is told.
    """

    def __init__(self, reason: str, answer: bytes) -> None:
        self.reason = reason
        self.answer = answer
        super().__init__(reason)


async def asked_by(client: EgressStreams) -> Asked | None:
    """Read a client's request; `None` where it says nothing.

    Raises:
        UnreadableRequestError: there is no making sense of it.
    """
    first = await client[0].read(READ_BYTES)
    if not first:
        return None
    return await (_socks_asked if first[0] == SOCKS_VERSION else _http_asked)(first, client)


async def _http_asked(first: bytes, client: EgressStreams) -> Asked:
    theirs = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
    try:
        request = await _http_request(theirs, _percent_encoded(first), client[0])
        if request.method == b"CONNECT":
            return Asked(
                target=connect_target(request),
                granted=_CONNECTED,
                said=_tunnelled(theirs.trailing_data[0], client[0]),
                is_tunnel=True,
                refusal=_http_refusal,
            )
        target, forwarded = plain_target(request)
        said = _one_request(theirs, forwarded, client)
    except (h11.ProtocolError, EgressRefusedError) as error:
        why = error if isinstance(error, EgressRefusedError) else "it is no HTTP/1.1"  # h11 cites what the client wrote
        reason = f"a request that cannot be read: {why}"
        raise UnreadableRequestError(reason, _http_refusal(HTTPStatus.BAD_REQUEST, "", reason)) from error
    return Asked(target=target, granted=b"", said=said, is_tunnel=False, refusal=_http_refusal)


def _percent_encoded(first: bytes) -> bytes:
    """The same with a first line in ASCII: some programs send a path as it was typed, which h11 refuses."""
    line, end, rest = first.partition(b"\r\n")
    return _BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line) + end + rest


async def _http_request(theirs: h11.Connection, first: bytes, reader: asyncio.StreamReader) -> h11.Request:
    theirs.receive_data(first)
    while (event := theirs.next_event()) is h11.NEED_DATA:
        theirs.receive_data(await reader.read(READ_BYTES))
    if not isinstance(event, h11.Request):
        raise EgressRefusedError("it ends before its first line does")
    return event


async def _tunnelled(first: bytes, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    if first:
        yield first
    while data := await reader.read(READ_BYTES):
        yield data


async def _one_request(theirs: h11.Connection, forwarded: h11.Request, client: EgressStreams) -> AsyncIterator[bytes]:
    """The request's head and body, framed anew, so that what follows it reaches nobody."""
    ours = h11.Connection(h11.CLIENT)
    yield ours.send(forwarded) or b""
    while True:
        event = theirs.next_event()
        if event is h11.NEED_DATA:
            if theirs.they_are_waiting_for_100_continue:
                client[1].write(theirs.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            theirs.receive_data(await client[0].read(READ_BYTES))
        elif isinstance(event, h11.Data):
            yield ours.send(event) or b""
            await asyncio.sleep(0)  # one read can hold thousands of chunks, and others wait for their turn
        elif isinstance(event, h11.EndOfMessage):
            yield ours.send(h11.EndOfMessage()) or b""
            return
        else:
            raise h11.RemoteProtocolError("the request breaks off")


def _http_refusal(status: HTTPStatus, destination: str, reason: str) -> bytes:
    """Say why in the first line too: of a refused tunnel, programs show that line alone. It quotes no request."""
    body = f"sandbox: {destination}{reason}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase} (sandbox: {reason})\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def _socks_asked(first: bytes, client: EgressStreams) -> Asked:
    try:
        greeting, rest = await _socks_part(first, socks_greeting_bytes, client[0])
        if 0 not in greeting[2:]:
            raise UnreadableRequestError("a SOCKS client that insists on authentication", _SOCKS_NONE_ACCEPTABLE)
        client[1].write(_SOCKS_NO_AUTHENTICATION)
        request, rest = await _socks_part(rest, socks_request_bytes, client[0])
        target = socks_target(request)
    except EgressRefusedError as error:
        reason = f"a request that cannot be read: {error}"
        raise UnreadableRequestError(reason, _socks_refusal(HTTPStatus.BAD_REQUEST, "", reason)) from error
    said = _tunnelled(rest, client[0])
    return Asked(target=target, granted=_SOCKS_GRANTED, said=said, is_tunnel=True, refusal=_socks_refusal)


async def _socks_part(
    data: bytes, length_of: Callable[[bytes], int | None], reader: asyncio.StreamReader
) -> tuple[bytes, bytes]:
    """One part of the dialogue, and what came after it."""
    while (length := length_of(data)) is None or len(data) < length:
        more = await reader.read(READ_BYTES)
        if not more:
            raise EgressRefusedError("it breaks off")
        data += more
    return data[:length], data[length:]


def _socks_refusal(status: HTTPStatus, _destination: str, _reason: str) -> bytes:
    general_failure = 1
    return bytes([SOCKS_VERSION, _SOCKS_REPLIES.get(status, general_failure), 0, 1, *bytes(6)])
