"""The name a TLS client asks for: found in real first messages however they are cut, and never told falsely."""

import ssl
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.client_hello import MOST_HELLO_BYTES, ClientHelloReader, MalformedHelloError, begins_tls, server_name

NAMES = ("example.com", "a." * 120 + "example", "xn--bcher-kva.example", None)
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def real_hello(name: str | None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What Python's own client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    context.set_alpn_protocols(["h2", "http/1.1"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


REAL = real_hello("example.com")


def records(message: bytes, *sizes: int) -> bytes:
    """A handshake message cut into records of these sizes; the last one is repeated."""
    cut = b""
    for index in range(len(message)):
        size = sizes[min(index, len(sizes) - 1)]
        part, message = message[:size], message[size:]
        if part:
            cut += b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
    return cut


def vector(data: bytes, length_bytes: int = 2) -> bytes:
    return len(data).to_bytes(length_bytes, "big") + data


def name_entry(name: bytes, kind: int = 0) -> bytes:
    return bytes([kind]) + vector(name)


def name_extension(*entries: bytes, after: bytes = b"") -> bytes:
    return bytes(2) + vector(vector(b"".join(entries)) + after)


def made_hello(*extensions: bytes, after: bytes = b"") -> bytes:
    """The body of a ClientHello with these extensions."""
    return (
        b"\x03\x03"
        + bytes(32)
        + vector(b"", 1)
        + vector(b"\x13\x01")
        + b"\x01\0"
        + vector(b"".join(extensions))
        + after
    )


def asked_name(data: bytes) -> str | None:
    """What whole first bytes ask for."""
    hello = ClientHelloReader().read(data)
    assert hello is not None
    return server_name(hello)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_real_client_asks_for_the_name_it_was_given(name: str | None, version: ssl.TLSVersion) -> None:
    first = real_hello(name, version)

    assert begins_tls(first)
    assert asked_name(first) == name


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_fragmented_hello_of_one_byte_a_record_asks_for_the_same_name(
    name: str | None, version: ssl.TLSVersion
) -> None:
    assert asked_name(records(real_hello(name, version)[5:], 1)) == name


@given(st.lists(st.integers(1, 600), min_size=1, max_size=20), st.lists(st.integers(1, 700), min_size=1, max_size=20))
def test_fragmented_hello_is_read_alike_however_records_and_reads_cut_it(sizes: list[int], reads: list[int]) -> None:
    data, reader = records(REAL[5:], *sizes), ClientHelloReader()
    read: list[bytes] = []
    while data and not read:
        size = reads.pop(0) if reads else 100
        hello = reader.read(data[:size])
        data = data[size:]
        read += [] if hello is None else [hello]

    assert [server_name(hello) for hello in read] == ["example.com"]


@pytest.mark.parametrize("data", [REAL, records(REAL[5:], 1)], ids=["one record", "one byte a record"])
def test_truncated_hello_asks_for_more_at_every_length(data: bytes) -> None:
    reader = ClientHelloReader()
    assert [reader.read(data[at : at + 1]) for at in range(len(data) - 1)] == [None] * (len(data) - 1)
    assert reader.read(data[-1:]) is not None
    for end in (0, 1, 4, 5, 6, 8, 9, 10, len(data) - 1):
        assert ClientHelloReader().read(data[:end]) is None


@given(st.integers(0, len(REAL) - 10))
def test_truncated_body_is_malformed_or_names_nobody_else(end: int) -> None:
    try:
        assert server_name(REAL[9 : 9 + end]) is None
    except MalformedHelloError:
        return


@given(st.integers(0, len(REAL) - 1), st.integers(1, 255))
def test_flipped_byte_is_read_or_malformed_and_nothing_else(at: int, change: int) -> None:
    flipped = bytearray(REAL)
    flipped[at] ^= change
    try:
        hello = ClientHelloReader().read(bytes(flipped))
        if hello is not None:
            server_name(hello)
    except MalformedHelloError:
        return


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x16\x03\x01", b"\x16\x03\x01\0\x40\x01\0\0\x3c\x03\x03" + bytes(32)]),
)
def test_arbitrary_bytes_are_read_or_malformed_and_nothing_else(data: bytes, before: bytes) -> None:
    for read in (ClientHelloReader().read, server_name):
        try:
            read(before + data)
        except MalformedHelloError:
            continue


def test_made_hello_is_read_like_a_real_one() -> None:
    hello = made_hello(b"\x00\x17\0\0", name_extension(name_entry(b"example.com")))

    assert asked_name(records(b"\x01" + vector(hello, 3), 100)) == "example.com"
    assert server_name(made_hello()) is None
    assert server_name(made_hello()[:-2]) is None  # TLS 1.2 without any extensions


TWO_NAMES = {
    "two names in one list": made_hello(name_extension(name_entry(b"example.com"), name_entry(b"evil.example"))),
    "two lists": made_hello(name_extension(name_entry(b"example.com")), name_extension(name_entry(b"evil.example"))),
    "the same name twice": made_hello(*[name_extension(name_entry(b"example.com"))] * 2),
    "a second list after the first": made_hello(
        name_extension(name_entry(b"example.com"), after=vector(name_entry(b"evil.example")))
    ),
    "a name of an unknown kind first": made_hello(
        name_extension(name_entry(b"example.com", kind=1), name_entry(b"evil.example"))
    ),
    "a name of an unknown kind last": made_hello(
        name_extension(name_entry(b"evil.example"), name_entry(b"example.com", kind=1))
    ),
    "a list of extensions after the last": made_hello(
        name_extension(name_entry(b"example.com")), after=vector(name_extension(name_entry(b"evil.example")))
    ),
}
MALFORMED_NAMES = {
    "no name in the list": made_hello(name_extension()),
    "no list": made_hello(b"\0\0\0\0"),
    "a name longer than its list": made_hello(name_extension(b"\0\x00\x20example.com")),
    "a name shorter than its list": made_hello(name_extension(b"\0\x00\x05example.com")),
    "a list longer than its extension": made_hello(bytes(2) + vector(b"\x00\x20" + name_entry(b"example.com"))),
    "a U-label": made_hello(name_extension(name_entry("bücher.example".encode()))),
    "half an extension": made_hello(b"\0\0\0"),
}


@pytest.mark.parametrize("hello", TWO_NAMES.values(), ids=TWO_NAMES.keys())
def test_hello_of_two_names_is_refused(hello: bytes) -> None:
    with pytest.raises(MalformedHelloError):
        server_name(hello)


@pytest.mark.parametrize("hello", MALFORMED_NAMES.values(), ids=MALFORMED_NAMES.keys())
def test_hello_whose_name_servers_read_differently_is_refused(hello: bytes) -> None:
    with pytest.raises(MalformedHelloError):
        server_name(hello)


def test_name_is_told_as_it_stands_there() -> None:
    for name in (b"", b"EXAMPLE.com.", b"a\0b", b"169.254.169.254", b"a" * 5000):
        assert server_name(made_hello(name_extension(name_entry(name)))) == name.decode()


HIDDEN = {
    "an alert first": b"\x15\x03\x01\x00\x02\x01\x00",
    "a change of ciphers first": b"\x14\x03\x01\x00\x01\x01",
    "data first": b"\x17\x03\x03\x00\x01a",
    "a heartbeat first": b"\x18\x03\x01\x00\x03\x01\x00\x00",
    "an empty record first": b"\x16\x03\x01\x00\x00",
    "a ServerHello first": b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
}


@pytest.mark.parametrize("before", HIDDEN.values(), ids=HIDDEN.keys())
def test_hello_hidden_behind_another_record_is_refused(before: bytes) -> None:
    assert begins_tls(before + REAL)
    with pytest.raises(MalformedHelloError):
        ClientHelloReader().read(before + REAL)


@pytest.mark.parametrize("kind", [0, 20, 21, 23, 24, 128])
def test_hello_with_another_record_inside_is_not_read_past_it(kind: int) -> None:
    first_record = records(REAL[5:], 100)[:105]
    with pytest.raises(MalformedHelloError, match="records are malformed"):
        ClientHelloReader().read(first_record + bytes([kind]) + b"\x03\x01\x00\x01\x01" + REAL)


@pytest.mark.parametrize(
    "head", [b"\x16\x02\x00\x00\x05", b"\x16\x04\x01\x00\x05", b"\x16\x03\x01\x40\x01", b"\x16\x03\x01\xff\xff"]
)
def test_record_of_another_version_or_beyond_any_length_is_refused_at_its_head(head: bytes) -> None:
    with pytest.raises(MalformedHelloError):
        ClientHelloReader().read(head)


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x80\x2e\x01", b"\x00", b"\x05\x01"])
def test_what_is_no_record_is_no_tls(data: bytes) -> None:
    assert not begins_tls(data)


def test_what_follows_the_hello_changes_nothing() -> None:
    after = records(b"\x01" + vector(made_hello(name_extension(name_entry(b"evil.example"))), 3), 1000)

    assert asked_name(REAL + after) == "example.com"
    assert asked_name(records(REAL[5:] + after[5:], 16000)) == "example.com"


@pytest.mark.parametrize("size", [1, 16000])
def test_endless_hello_is_refused_at_its_bound(size: int) -> None:
    data, reader = records(b"\x01\xff\xff\xff" + bytes(MOST_HELLO_BYTES), size), ClientHelloReader()

    assert reader.read(data[:MOST_HELLO_BYTES]) is None
    with pytest.raises(MalformedHelloError, match="too long"):
        reader.read(data[MOST_HELLO_BYTES : MOST_HELLO_BYTES + 1])


def test_quadratic_time_hello_sent_byte_by_byte_in_records_of_one_byte_is_read_at_once() -> None:
    data, reader = records(b"\x01\xff\xff\xff" + bytes(11_000), 1)[:MOST_HELLO_BYTES], ClientHelloReader()

    begun = time.process_time()
    for at in range(len(data)):
        assert reader.read(data[at : at + 1]) is None
    assert time.process_time() - begun < 5
