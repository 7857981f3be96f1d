"""What a box may ask the proxy for: one reading of each request, one request for each server, however it is framed."""

import asyncio
import ipaddress
import socket
import time
from contextlib import suppress
from http import HTTPStatus

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.destinations import ReachIndex
from policy.egress_rules import EgressRefusedError, EgressRules, parse_host
from sandbox.egress_asking import Asked, UnreadableRequestError, asked_by
from sandbox.egress_requests import (
    MOST_HEAD_BYTES,
    Target,
    connect_target,
    plain_target,
    socks_greeting_bytes,
    socks_request_bytes,
    socks_target,
)
from tests.policy.factories import destinations
from tests.sandbox.disguises import DISGUISES, METADATA_ADDRESS

EVERYTHING = EgressRules(
    allowed=ReachIndex(destinations("public", "0.0.0.0/0", "::/0")),
    private_allowed=False,
    list_origin="",
    private_origin="",
)


def check(target: Target) -> None:
    """Do all that is decided of a target that is not resolved."""
    host = parse_host(target.untrusted_host)
    EVERYTHING.check_host(host, target.port)
    if not isinstance(host, str):
        EVERYTHING.check_address(host, own=False)


def request_of(raw: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
    connection.receive_data(raw)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    return event


def head(first_line: str, *headers: str) -> bytes:
    return "\r\n".join([first_line, *(headers or ("Host: other.example",)), "", ""]).encode()


def connect(authority: str) -> Target:
    return connect_target(request_of(head(f"CONNECT {authority} HTTP/1.1")))


def plain(target: str, *headers: str) -> tuple[Target, h11.Request]:
    return plain_target(request_of(head(f"GET {target} HTTP/1.1", "Host: other.example", *headers)))


def socks_bytes(kind: int, address: bytes, port: int = 80, command: int = 1) -> bytes:
    return bytes([5, command, 0, kind]) + address + port.to_bytes(2, "big")


def socks_by_name(name: bytes, port: int = 80) -> bytes:
    return socks_bytes(3, bytes([len(name)]) + name, port)


@pytest.mark.parametrize("spelling", DISGUISES.values(), ids=DISGUISES.keys())
def test_connect_to_the_metadata_address_in_any_disguise_is_refused(spelling: str) -> None:
    bracketed = f"[{spelling}]" if ":" in spelling and "[" not in spelling else spelling
    for authority in {f"{spelling}:80", f"{bracketed}:80"}:
        with pytest.raises((EgressRefusedError, h11.ProtocolError)):
            check(connect(authority))


@pytest.mark.parametrize("spelling", DISGUISES.values(), ids=DISGUISES.keys())
@pytest.mark.parametrize("after", ["/latest/meta-data/", "", ":80/", "?a", "#a", ":80#@allowed.example/"])
def test_plain_request_to_the_metadata_address_in_any_disguise_is_refused(spelling: str, after: str) -> None:
    bracketed = f"[{spelling}]" if ":" in spelling and "[" not in spelling else spelling
    for host in {spelling, bracketed}:
        with pytest.raises((EgressRefusedError, h11.ProtocolError)):
            check(plain(f"http://{host}{after}")[0])


@pytest.mark.parametrize("spelling", DISGUISES.values(), ids=DISGUISES.keys())
def test_socks_by_name_to_the_metadata_address_in_any_disguise_is_refused(spelling: str) -> None:
    with pytest.raises(EgressRefusedError):
        check(socks_target(socks_by_name(spelling.encode())))


@pytest.mark.parametrize(
    "address",
    [
        METADATA_ADDRESS,
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "fe80::a9fe:a9fe",
        "127.0.0.1",
        "0.0.0.0",
        "::",
        "::1",
    ],
)
def test_socks_by_address_to_a_private_address_is_refused_as_what_it_is(address: str) -> None:
    packed = ipaddress.ip_address(address).packed
    kind = 1 if len(packed) == 4 else 4
    with pytest.raises(EgressRefusedError, match="private destinations are closed"):
        check(socks_target(socks_bytes(kind, packed)))


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("example.com:443", "example.com", 443),
        ("EXAMPLE.com:00443", "EXAMPLE.com", 443),
        ("93.184.215.14:1", "93.184.215.14", 1),
        ("[2606:4700::1111]:65535", "[2606:4700::1111]", 65535),
    ],
)
def test_connect_names_a_host_and_a_port(authority: str, host: str, port: int) -> None:
    assert connect(authority) == Target(untrusted_host=host, port=port)


@pytest.mark.parametrize(
    "authority",
    [
        "example.com",
        "example.com:",
        ":443",
        "443",
        "example.com:0",
        "example.com:00000",
        "example.com:65536",
        "example.com:99999",
        "example.com:000443",
        "example.com:+443",
        "example.com:-1",
        "example.com:4_43",
        "example.com:0x1bb",
        "example.com:https",
        "example.com:443:80",
        "user@example.com:443",
        "user:password@example.com:443",
        "example.com:80@evil.example:443",
        "example.com:443/",
        "example.com/:443",
        "/example.com:443",
        "//example.com:443",
        "http://example.com:443",
        "https://example.com:443/",
        "2606:4700::1111:443",
        "[2606:4700::1111]",
        "[2606:4700::1111",
        "[example.com]:443",
        "[]:443",
        "*",
        "/",
    ],
)
def test_connect_to_what_is_no_host_and_port_is_refused(authority: str) -> None:
    with pytest.raises(EgressRefusedError):
        connect(authority)


@pytest.mark.parametrize(
    ("target", "host", "port", "path"),
    [
        ("http://example.com/", "example.com", 80, b"/"),
        ("http://example.com", "example.com", 80, b"/"),
        ("HTTP://example.com/a/b?c=d&e", "example.com", 80, b"/a/b?c=d&e"),
        ("http://example.com?a=http://evil.example/", "example.com", 80, b"/?a=http://evil.example/"),
        ("http://example.com:8080/a%20b#part", "example.com", 8080, b"/a%20b"),
        ("http://example.com//evil.example/", "example.com", 80, b"//evil.example/"),
        ("http://example.com:00080/", "example.com", 80, b"/"),
        ("http://[2606:4700::1111]:81/", "[2606:4700::1111]", 81, b"/"),
    ],
)
def test_plain_request_reaches_its_server_in_origin_form(target: str, host: str, port: int, path: bytes) -> None:
    asked, forwarded = plain(target)

    assert asked == Target(untrusted_host=host, port=port)
    assert forwarded.target == path


@pytest.mark.parametrize(
    "target",
    [
        "https://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "http:/example.com/",
        "http:example.com",
        "http:///example.com",
        "http://",
        "//example.com/",
        "/",
        "*",
        "example.com",
        "example.com:80",
        "http://user@example.com/",
        "http://user:password@example.com/",
        "http://example.com:80@evil.example/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:+80/",
        "http://example.com:/",
        "http://example.com:80:81/",
        "http://[::1/",
        "http://[example.com]/",
        "http://[v1.a]/",
    ],
)
def test_plain_target_that_is_no_http_address_of_a_host_is_refused(target: str) -> None:
    with pytest.raises(EgressRefusedError):
        plain(target)


def test_https_target_is_told_to_use_connect() -> None:
    with pytest.raises(EgressRefusedError, match="https:// goes through CONNECT"):
        plain("https://example.com/")


def test_fronting_host_header_unlike_the_target_is_replaced() -> None:
    _, forwarded = plain("http://example.com:8080/", "X-Forwarded-Host: kept.example")

    assert [value for name, value in forwarded.headers if name == b"host"] == [b"example.com:8080"]
    assert (b"x-forwarded-host", b"kept.example") in list(forwarded.headers)


def test_what_concerns_the_connection_to_the_proxy_is_dropped_and_all_else_kept() -> None:
    _, forwarded = plain(
        "http://example.com/",
        "Proxy-Authorization: Basic c2VjcmV0",
        "Proxy-Connection: keep-alive",
        "Keep-Alive: timeout=5",
        "Connection: keep-alive, X-Mine ,X-OTHER",
        "X-Mine: 1",
        "x-other: 2",
        "TE: trailers",
        "Trailer: X-Sum",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "Authorization: Bearer kept",
        "Cookie: a=b",
        "Cookie: c=d",
        "Accept: */*",
    )

    assert list(forwarded.headers) == [
        (b"host", b"example.com"),
        (b"authorization", b"Bearer kept"),
        (b"cookie", b"a=b"),
        (b"cookie", b"c=d"),
        (b"accept", b"*/*"),
        (b"connection", b"close"),
    ]


@pytest.mark.parametrize("framing", ["Content-Length: 3", "Transfer-Encoding: chunked"])
def test_smuggling_by_naming_the_length_hop_by_hop_does_not_drop_it(framing: str) -> None:
    _, forwarded = plain("http://example.com/", "Connection: content-length, transfer-encoding, host", framing)

    name, _, value = framing.lower().encode().partition(b": ")
    assert (name, value) in list(forwarded.headers)
    assert (b"host", b"example.com") in list(forwarded.headers)


@pytest.mark.parametrize("header", ["a:", "connection:a", "a:connection"])
def test_quadratic_time_head_full_of_headers_is_read_at_once(header: str) -> None:
    headers = ["Host: other.example", *[header] * (60_000 // (len(header) + 2))]
    request = request_of(head("GET http://example.com/ HTTP/1.1", *headers))

    begun = time.process_time()
    plain_target(request)
    assert time.process_time() - begun < 3


@pytest.mark.parametrize("part", ["a", ":", "[", "a:", "a.", "@", "%", "1", "\\", "/", "?", "#", "[:"])
def test_backtracking_target_as_long_as_may_be_is_read_at_once(part: str) -> None:
    long = part * (60_000 // len(part))

    begun = time.process_time()
    for read in (connect, plain):
        for target in (long, f"{long}:443", f"http://{long}", f"http://{long}:80/", f"http://a{long}"):
            with suppress(EgressRefusedError):
                read(target)
    assert time.process_time() - begun < 5


# Whole dialogues: what a server would get, after a client said all of this.


async def _heard(raw: bytes, *, bytes_at_once: int = 1 << 20) -> tuple[Asked, bytes]:
    """What a client asked for, and all that its server would get."""
    theirs, ours = socket.socketpair()
    theirs.settimeout(0)
    reader, writer = await asyncio.open_connection(sock=ours)

    async def say() -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, len(raw), bytes_at_once):
            await loop.sock_sendall(theirs, raw[start : start + bytes_at_once])
            await asyncio.sleep(0)
        theirs.shutdown(socket.SHUT_WR)

    saying = asyncio.create_task(say())
    try:
        asked = await asked_by((reader, writer))
        assert asked is not None
        return asked, b"".join([data async for data in asked.said])
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        writer.close()
        theirs.close()


def heard(raw: bytes, *, bytes_at_once: int = 1 << 20) -> tuple[Asked, bytes]:
    return asyncio.run(_heard(raw, bytes_at_once=bytes_at_once))


SECOND = b"GET http://evil.example/second HTTP/1.1\r\nHost: evil.example\r\n\r\n"
POST = "POST http://example.com/ HTTP/1.1"
ONE_REQUEST = {
    "after a request without body": head("GET http://example.com/ HTTP/1.1") + SECOND,
    "after a body": head(POST, "Host: a", "Content-Length: 3") + b"abc" + SECOND,
    "after an empty body": head(POST, "Host: a", "Content-Length: 0") + SECOND,
    "after two equal lengths": head(POST, "Host: a", "Content-Length: 3", "Content-Length: 3") + b"abc" + SECOND,
    "after a list of equal lengths": head(POST, "Host: a", "Content-Length: 3, 3") + b"abc" + SECOND,
    "after chunks": head(POST, "Host: a", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n" + SECOND,
    "after a trailer": head(POST, "Host: a", "Transfer-Encoding: chunked") + b"0\r\nX: y\r\n\r\n" + SECOND,
    "after a folded length": head(POST, "Host: a", "Content-Length:\r\n 3") + b"abc" + SECOND,
    "after a folded encoding": head(POST, "Host: a", "Transfer-Encoding:\r\n\tchunked") + b"0\r\n\r\n" + SECOND,
    "after bare line feeds": b"POST http://example.com/ HTTP/1.1\nHost: a\nContent-Length: 3\n\nabc" + SECOND,
    "after HTTP/1.0 that is kept alive": (
        head("POST http://example.com/ HTTP/1.0", "Connection: keep-alive", "Content-Length: 3") + b"abc" + SECOND
    ),
    "after an upgrade": head("GET http://example.com/ HTTP/1.1", "Host: a", "Upgrade: h2c", "Connection: Upgrade")
    + SECOND,
    "after WebSocket's": head("GET http://example.com/ HTTP/1.1", "Host: a", "Upgrade: websocket") + SECOND,
}


@pytest.mark.parametrize("raw", ONE_REQUEST.values(), ids=ONE_REQUEST.keys())
def test_smuggling_second_request_reaches_nobody(raw: bytes) -> None:
    asked, said = heard(raw)

    assert asked.target == Target(untrusted_host="example.com", port=80)
    assert not asked.is_tunnel
    assert b"second" not in said
    assert said.startswith((b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n"))
    assert said.count(b"HTTP/1.1") == 1
    only_request(said)


@pytest.mark.parametrize("raw", ONE_REQUEST.values(), ids=ONE_REQUEST.keys())
def test_smuggling_byte_by_byte_makes_no_difference(raw: bytes) -> None:
    assert only_request(heard(raw, bytes_at_once=1)[1]) == only_request(heard(raw)[1])


def only_request(said: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """Its target, headers and body, read strictly: one framing, one host, its connection's end announced, no more."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(said)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    names = [name for name, _ in request.headers]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert (b"connection", b"close") in list(request.headers)
    lines = said[: said.index(b"\r\n\r\n")].split(b"\r\n")
    assert not any(line[:1] in b" \t" or b"\n" in line or b"\r" in line or b"\0" in line for line in lines)
    body = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += bytes(event.data)
    assert server.trailing_data[0] == b""
    return request.target, list(request.headers), body


REFUSED_REQUESTS = {
    "two lengths": head(POST, "Host: a", "Content-Length: 3", "Content-Length: 0"),
    "a list of lengths": head(POST, "Host: a", "Content-Length: 3, 0"),
    "CL.TE": head(POST, "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "TE.CL": head(POST, "Host: a", "Transfer-Encoding: chunked", "Content-Length: 3") + b"8\r\nSMUGGLED\r\n0\r\n\r\n",
    "TE.TE": head(POST, "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "an unknown encoding": head(POST, "Host: a", "Transfer-Encoding: xchunked"),
    "a hidden encoding": head(POST, "Host: a", "Transfer-Encoding: chunked, identity"),
    "a hiding encoding": head(POST, "Host: a", "Transfer-Encoding: identity, chunked"),
    "a quoted encoding": head(POST, "Host: a", 'Transfer-Encoding: "chunked"'),
    "a space before the colon": head(POST, "Host: a", "Transfer-Encoding : chunked"),
    "a tab before the colon": head(POST, "Host: a", "Content-Length\t: 3"),
    "a vertical tab": head(POST, "Host: a", "Transfer-Encoding:\x0bchunked"),
    "a bare carriage return": head(POST, "Host: a", "X: a\rTransfer-Encoding: chunked"),
    "NUL in a value": head(POST, "Host: a", "X: a\x00b"),
    "a header without name": head(POST, "Host: a", ": chunked"),
    "a header without colon": head(POST, "Host: a", "Transfer-Encoding"),
    "a fold before any header": b"POST http://example.com/ HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: a\r\n\r\n",
    "a signed length": head(POST, "Host: a", "Content-Length: +3"),
    "a negative length": head(POST, "Host: a", "Content-Length: -3"),
    "a hexadecimal length": head(POST, "Host: a", "Content-Length: 0x3"),
    "an endless length": head(POST, "Host: a", "Content-Length: " + "9" * 30),
    "no length": head(POST, "Host: a", "Content-Length:"),
    "two hosts": head(POST, "Host: a", "Host: b"),
    "no host": head(POST, "Accept: */*"),
    "a space in the target": head("GET http://example.com/ http://evil.example/ HTTP/1.1"),
    "a tab in the target": head("GET http://example.com/\tHTTP/1.1 HTTP/1.1"),
    "NUL in the target": head("GET http://example.com\x00.evil.example/ HTTP/1.1"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET http://example.com/\r\n",
    "lower-case CONNECT": head("connect example.com:443 HTTP/1.1"),
    "a head longer than any": head(POST, "Host: a", *["X: " + "a" * 1000] * 140),
    "a first line longer than any": b"GET http://example.com/" + b"a" * (2 * MOST_HEAD_BYTES),
    "an end before the end": b"GET http://example.com/ HTTP/1.1\r\nHost: a\r\n",
    "SOCKS4": b"\x04\x01\x00\x50\xa9\xfe\xa9\xfe\x00",
    "TLS": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
}


@pytest.mark.parametrize("raw", REFUSED_REQUESTS.values(), ids=REFUSED_REQUESTS.keys())
def test_smuggling_request_that_servers_read_differently_is_refused_before_any_is_asked(raw: bytes) -> None:
    with pytest.raises(UnreadableRequestError, match=r"^a request that cannot be read: ") as refused:
        heard(raw)
    assert refused.value.answer.startswith(b"HTTP/1.1 400 Bad Request (sandbox: ")
    assert len(refused.value.reason) < 300


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"-1\r\n",
        b"ffffffffffffffffffffff\r\n",
        b"3\r\nabcdef\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3 \n\nabc",
        b"3\r\nab",
        b"3",
        b"",
    ],
)
def test_smuggling_by_malformed_chunks_breaks_the_request_off(body: bytes) -> None:
    with pytest.raises(h11.ProtocolError):
        heard(head(POST, "Host: a", "Transfer-Encoding: chunked") + body)


def test_body_that_breaks_off_breaks_the_request_off() -> None:
    with pytest.raises(h11.RemoteProtocolError):
        heard(head(POST, "Host: a", "Content-Length: 10") + b"abc")


HEADERS = st.sampled_from(
    [
        "Host: a",
        "Content-Length: 3",
        "Content-Length: 0",
        "content-length: 3",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: Chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: identity",
        "Connection: content-length",
        "Connection: close, transfer-encoding",
        "Upgrade: websocket",
        "X: a\r\n b",
        "X: a\nContent-Length: 5",
        " Content-Length: 5",
        "Content_Length: 5",
        "Expect: 100-continue",
    ]
)
BODIES = st.lists(st.sampled_from([b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\r\n", b"\n", SECOND]), max_size=4)


@given(st.sampled_from([POST, "GET http://example.com/ HTTP/1.1"]), st.lists(HEADERS, max_size=4), BODIES.map(b"".join))
def test_smuggling_by_any_framing_is_one_request_or_none(line: str, headers: list[str], body: bytes) -> None:
    try:
        _, said = heard(head(line, "Host: other.example", *headers) + body)
    except (UnreadableRequestError, h11.ProtocolError):
        return
    only_request(said)
    assert said.count(b"host: ") == said.count(b"host: example.com\r\n") == 1


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x05\x01\x00", b"\x05\x01\x00\x05\x01\x00", b"GET http://"]))
def test_arbitrary_bytes_are_a_request_or_refused(data: bytes, before: bytes) -> None:
    if not before + data:
        return
    with suppress(UnreadableRequestError, h11.ProtocolError):
        assert 1 <= heard(before + data)[0].target.port <= 65535


def test_tunnel_passes_what_came_with_its_request_as_it_came() -> None:
    asked, said = heard(head("CONNECT example.com:443 HTTP/1.1", "Host: a", "Content-Length: 3") + SECOND)

    assert asked.is_tunnel
    assert asked.granted == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert said == SECOND


def test_response_splitting_refusal_quotes_the_request_below_its_head_alone() -> None:
    asked, _ = heard(head("CONNECT example.com:443 HTTP/1.1"))

    answer = asked.refusal(HTTPStatus.FORBIDDEN, "a\r\n\r\nHTTP/1.1 200 OK refused: ", "not in the allow-list")
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert b"200 OK" not in headers
    assert b"Content-Length: %d\r\n" % len(body) in headers


# SOCKS5


@pytest.mark.parametrize(
    ("request_bytes", "target"),
    [
        (socks_by_name(b"example.com", 443), Target(untrusted_host="example.com", port=443)),
        (socks_by_name(b"a" * 255, 1), Target(untrusted_host="a" * 255, port=1)),
        (socks_bytes(1, bytes([93, 184, 215, 14]), 65535), Target(untrusted_host="93.184.215.14", port=65535)),
        (
            socks_bytes(4, ipaddress.ip_address("2606:4700::1111").packed),
            Target(untrusted_host="[2606:4700::1111]", port=80),
        ),
    ],
    ids=["name", "long name", "IPv4", "IPv6"],
)
@pytest.mark.parametrize("bytes_at_once", [1, 1000])
def test_socks_request_names_a_host_and_a_port(request_bytes: bytes, target: Target, bytes_at_once: int) -> None:
    asked, said = heard(b"\x05\x02\x00\x02" + request_bytes + b"and more", bytes_at_once=bytes_at_once)

    assert asked.target == target
    assert asked.is_tunnel
    assert said == b"and more"
    assert asked.refusal(HTTPStatus.FORBIDDEN, "a", "b") == b"\x05\x02\x00\x01" + bytes(6)


@pytest.mark.parametrize(
    "request_bytes",
    [
        socks_bytes(1, bytes(4), command=2),
        socks_bytes(1, bytes(4), command=3),
        socks_bytes(1, bytes(4), command=0),
        socks_bytes(1, bytes(4), port=0),
        socks_bytes(2, bytes(4)),
        socks_bytes(0, bytes(4)),
        b"\x04" + socks_bytes(1, bytes(4))[1:],
        socks_by_name("bücher.example".encode()),
        socks_by_name(b"example.com")[:-1],
        b"\x05\x01\x00",
        b"",
    ],
    ids=["listen", "datagrams", "command 0", "port 0", "kind 2", "kind 0", "SOCKS4", "U-label", "cut", "head", "none"],
)
def test_socks_request_for_anything_but_a_connection_is_refused(request_bytes: bytes) -> None:
    with pytest.raises(UnreadableRequestError) as refused:
        heard(b"\x05\x01\x00" + request_bytes)
    assert refused.value.answer == b"\x05\x01\x00\x01" + bytes(6)


@pytest.mark.parametrize("greeting", [b"\x05\x00", b"\x05\x01\x02", b"\x05\x02\x01\x02"])
def test_socks_client_that_insists_on_authentication_is_refused(greeting: bytes) -> None:
    with pytest.raises(UnreadableRequestError) as refused:
        heard(greeting + socks_by_name(b"example.com"))
    assert refused.value.answer == b"\x05\xff"


@given(st.binary(max_size=300))
def test_length_of_a_socks_part_is_told_by_its_beginning(data: bytes) -> None:
    with suppress(EgressRefusedError):
        length = socks_request_bytes(b"\x05" + data)
        assert length is None or 7 <= length <= 4 + 256 + 2
    assert (socks_greeting_bytes(data) is None) == (len(data) < 2)
