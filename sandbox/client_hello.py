"""Finds the server name in the first message of a TLS client, which says in the clear whom it wants to talk to.

Behind one address a content network serves many names; whoever may reach one of them could ask it for another. What is
encrypted (Encrypted Client Hello, the `Host` inside) cannot be seen here.

Source: RFC 8446 section 4.1.2 (ClientHello) and 5.1 (records), RFC 6066 section 3 (server_name).
"""

from typing import TypeAlias

MOST_HELLO_BYTES = 1 << 16
"""A longer first message is refused, heads of records counted; those with post-quantum keys have some 2,000 bytes."""
_RECORD_KINDS = range(20, 25)
_HANDSHAKE_RECORD = 22
_RECORD_HEAD_BYTES = 5
_TLS_MAJOR = 3
_LARGEST_RECORD_BYTES = 1 << 14
_CLIENT_HELLO = 1
_HANDSHAKE_HEAD_BYTES = 4
_VERSION_AND_RANDOM_BYTES = 34
_SERVER_NAME_EXTENSION = 0
_NAME_OF_HOST = 0

_Fields: TypeAlias = tuple[bytes, bytes]


class MalformedHelloError(Exception):
    """What begins like TLS is no ClientHello; the text says why, without full stop."""


def begins_tls(data: bytes) -> bool:
    """Whether a client that says this first speaks TLS, in any kind of record.

    Some servers pass over an alert or an empty record before the ClientHello, which must hide no name from us.
    """
    return bool(data) and data[0] in _RECORD_KINDS


class ClientHelloReader:
    """Puts a ClientHello together as it comes, whatever records and reads it is cut into, each byte looked at once."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._come_bytes = 0
        self._unread = bytearray()
        self._message = bytearray()

    def read(self, data: bytes) -> bytes | None:
        """The body of the ClientHello, once these bytes complete it.

        Returns:
            `None` while more bytes are needed.

        Raises:
            MalformedHelloError: it is none, or too long.
        """
        self._come_bytes += len(data)
        self._unread += data
        while (record := self._next_record()) is not None:
            self._message += record
            if self._message[0] != _CLIENT_HELLO:
                raise MalformedHelloError("it does not begin with a ClientHello")
            whole = _HANDSHAKE_HEAD_BYTES + int.from_bytes(self._message[1:_HANDSHAKE_HEAD_BYTES], "big")
            if len(self._message) >= max(whole, _HANDSHAKE_HEAD_BYTES):
                return bytes(self._message[_HANDSHAKE_HEAD_BYTES:whole])
        if self._come_bytes > MOST_HELLO_BYTES:
            raise MalformedHelloError("its ClientHello is too long")
        return None

    def _next_record(self) -> bytes | None:
        """The content of the next whole record; `None` while it is not there."""
        if len(self._unread) < _RECORD_HEAD_BYTES:
            return None
        kind, major, _, *length_bytes = self._unread[:_RECORD_HEAD_BYTES]
        length = int.from_bytes(length_bytes, "big")
        if kind != _HANDSHAKE_RECORD or major != _TLS_MAJOR or not 0 < length <= _LARGEST_RECORD_BYTES:
            raise MalformedHelloError("its records are malformed")
        end = _RECORD_HEAD_BYTES + length
        if len(self._unread) < end:
            return None
        record = bytes(self._unread[_RECORD_HEAD_BYTES:end])
        del self._unread[:end]
        return record


def server_name(hello: bytes) -> str | None:
    """The name that a ClientHello asks for, as it stands there; `None` where it names none.

    Raises:
        MalformedHelloError: it cannot be read, or names more than one.
    """
    _, rest = _taken(hello, _VERSION_AND_RANDOM_BYTES)
    for length_bytes in (1, 2, 1):  # session, cipher suites, compression methods
        _, rest = _vector(rest, length_bytes)
    extensions, rest = _vector(rest, 2) if rest else (b"", b"")
    if rest:
        raise MalformedHelloError("its ClientHello goes on after its end")
    names: list[str] = []
    while extensions:
        kind, extensions = _taken(extensions, 2)
        body, extensions = _vector(extensions, 2)
        if int.from_bytes(kind, "big") == _SERVER_NAME_EXTENSION:
            names.append(_host_name(body))
    if len(names) > 1:
        raise MalformedHelloError("it names more than one server")
    return names[0] if names else None


def _host_name(extension: bytes) -> str:
    listed, after = _vector(extension, 2)
    kind, listed = _taken(listed, 1)
    name, more = _vector(listed, 2)
    if kind[0] != _NAME_OF_HOST or more or after:
        raise MalformedHelloError("its server name is malformed")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedHelloError("its server name is not in A-labels") from error


def _vector(data: bytes, length_bytes: int) -> _Fields:
    """A field that begins with its own length, and what follows it."""
    length, rest = _taken(data, length_bytes)
    return _taken(rest, int.from_bytes(length, "big"))


def _taken(data: bytes, count: int) -> _Fields:
    if len(data) < count:
        raise MalformedHelloError("its ClientHello ends too soon")
    return data[:count], data[count:]
