"""A small world for the egress proxy: names from a table, and public addresses behind which real servers listen.

No test reaches anything outside this machine: what the proxy takes for a public address is a port of 127.0.0.1, or an
address within a network namespace that the test makes for itself.
"""

import asyncio
import ctypes
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox.egress_network import UnreachableError
from tests.sandbox.conftest import PATIENCE

PUBLIC = "93.184.216.34"
OTHER_PUBLIC = "151.101.0.81"
PUBLIC_IPV6 = "2606:2800:220:1:248:1893:25c8:1946"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Names = dict[str, list[tuple[str, ...]]]
"""What each name is resolved to, one answer after the other; the last one stays."""
Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

R = TypeVar("R")
_ENOUGH_SECONDS = 10 * PATIENCE
_NEW_MOUNTS, _NEW_NETWORK = 0x00020000, 0x40000000


@dataclass(slots=True)
class World:
    """An `EgressNetwork` that writes down all it is asked for."""

    names: Names = field(default_factory=dict)
    """What a resolver knows."""
    doors: dict[tuple[str, int], int] = field(default_factory=dict)
    """By address and port: the port of 127.0.0.1 where it really is."""
    own: frozenset[str] = frozenset()
    """What passes for this host's own addresses."""
    asked: list[str] = field(default_factory=list)
    """Names that a resolver has seen."""
    reached: list[tuple[str, int]] = field(default_factory=list)
    """Where connections were made or tried."""

    def place(self, name: str, door: int, *, address: str = PUBLIC, port: int = 80) -> None:
        """Put a server of 127.0.0.1 at a name and a public address."""
        self.names[name] = [(address,)]
        self.doors[address, port] = door

    async def addresses(self, name: str) -> tuple[IPv4Address | IPv6Address, ...]:
        self.asked.append(name)
        answers = self.names.get(name)
        if not answers:
            raise UnreachableError("its name cannot be resolved: Name or service not known")
        return tuple(map(ip_address, answers.pop(0) if len(answers) > 1 else answers[0]))

    def is_own(self, address: IPv4Address | IPv6Address) -> bool:
        return str(address) in self.own

    async def connected(self, address: IPv4Address | IPv6Address, port: int) -> Streams:
        self.reached.append((str(address), port))
        door = self.doors.get((str(address), port))
        if door is None:
            raise ConnectionRefusedError(111, "Connection refused")
        return await asyncio.open_connection("127.0.0.1", door)

    def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def served(
    respond: Served, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, path: str = ""
) -> AsyncIterator[int]:
    """A server; yields its port, or 0 where it is at a path.

    Args:
        respond: what it does with each connection.
        host: which addresses it is at.
        tls: its certificate.
        path: of its Unix socket, where it is to be one.
    """

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await respond(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            await gone(writer)

    ongoing: set[asyncio.Task[None]] = set()

    def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(one(reader, writer))
        ongoing.add(task)
        task.add_done_callback(ongoing.discard)

    if path:
        server: asyncio.Server = await asyncio.start_unix_server(came, path)
    else:
        server = await asyncio.start_server(came, host, 0, ssl=tls, backlog=1024)
    try:
        yield 0 if path else server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(ongoing):
            task.cancel()
        await asyncio.gather(*ongoing, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say the same, and end when the other end does."""
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def web(
    pages: dict[str, tuple[str, bytes]], heads: list[bytes] | None = None, *, closing: str = "Connection: close\r\n"
) -> Served:
    """A web server.

    Args:
        pages: by path, status (with further header lines, if need be) and body.
        heads: takes the heads of all requests.
        closing: how it says that it closes the connection, if it does.
    """

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        status, body = pages.get(head.split()[1].decode(), ("404 Not Found", b"no such page"))
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{closing}\r\n".encode() + body)
        await writer.drain()

    return respond


@asynccontextmanager
async def web_example(world: "World", authority: "Authority", respond: Served) -> AsyncIterator[None]:
    """One server at both ports of `web.example`; and `other.example`, where nobody is."""
    async with served(respond) as plain, served(respond, tls=authority.for_server) as encrypted:
        world.place("web.example", plain)
        world.place("web.example", encrypted, port=443)
        world.names["other.example"] = [(OTHER_PUBLIC,)]
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A self-made certificate of some names, which is its own authority."""

    certificate: Path
    """PEM."""
    key: Path
    """PEM."""

    @classmethod
    def made(cls, folder: Path, *names: str) -> "Authority":
        """Make one that is valid for a day."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "tests")])
        built = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        made = cls(certificate=folder / "tests.pem", key=folder / "tests.key")
        made.certificate.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return made

    @property
    def for_server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    @property
    def for_client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


class NameServer(asyncio.DatagramProtocol):
    """A real DNS server for addresses of hosts; it writes down every question."""

    def __init__(self, names: Names) -> None:
        """Know names as `World` does."""
        self.names = names
        self.asked: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # whose class asyncio's own is none of

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401 -- as asyncio has it
        labels, place = [], 12
        while length := data[place]:
            labels.append(data[place + 1 : place + 1 + length].decode())
            place += 1 + length
        question, kind = data[12 : place + 5], int.from_bytes(data[place + 1 : place + 3], "big")
        name = ".".join(labels).lower()
        self.asked.append(name)
        answers = self.names.get(name, [])
        current = answers[0] if answers else ()
        packed = [ip_address(text).packed for text in current]
        found = [address for address in packed if len(address) == {1: 4, 28: 16}.get(kind)]
        if len(answers) > 1 and found:
            answers.pop(0)
        head = (
            data[:2] + (0x8180 if current else 0x8183).to_bytes(2, "big") + b"\0\1" + bytes([0, len(found)]) + bytes(4)
        )
        listed = b"".join(
            b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1" + bytes(4) + len(one).to_bytes(2, "big") + one
            for one in found
        )
        assert self._transport is not None
        self._transport.sendto(head + question + listed, addr)


@asynccontextmanager
async def name_server(names: Names) -> AsyncIterator[NameServer]:
    """A DNS server at 127.0.0.1:53, of a namespace that has no other."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(names), local_addr=("127.0.0.1", 53)
    )
    try:
        yield protocol
    finally:
        transport.close()


def in_own_network(
    folder: Path, work: Callable[[], Coroutine[Any, Any, R]], *addresses: str, resolver: str = "127.0.0.1"
) -> R:
    """Do something in a network of its own; nothing leads out of it.

    Args:
        folder: for its files.
        work: what to do.
        addresses: the host's own there, beside 127.0.0.1 and ::1.
        resolver: whom it asks for names.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    results: list[R] = []
    errors: list[BaseException] = []

    def done() -> None:
        try:
            _become_alone(folder, addresses, resolver)
            results.append(asyncio.run(work()))
        except BaseException as error:  # noqa: BLE001 -- raised again below, where pytest sees it
            errors.append(error)

    alone = threading.Thread(target=done)
    alone.start()
    alone.join()
    if errors:
        raise errors[0]
    return results[0]


def _become_alone(folder: Path, addresses: tuple[str, ...], resolver: str) -> None:
    """Give this thread, and those that it starts, namespaces of their own. Source: unshare(2)."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS | _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "unshare")
    files = {
        "resolv.conf": f"nameserver {resolver}\noptions timeout:1 attempts:1\n",
        "hosts": "127.0.0.1 localhost\n",
        "nsswitch.conf": "hosts: files dns\n",
    }
    commands = [["mount", "--make-rprivate", "/"], ["ip", "link", "set", "lo", "up"]]
    for name, text in files.items():
        (folder / name).write_text(text)
        commands.append(["mount", "--bind", str(folder / name), f"/etc/{name}"])
    commands += [["ip", "address", "add", address, "dev", "lo"] for address in addresses]
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    _wait_until_own(addresses)


def _wait_until_own(addresses: tuple[str, ...]) -> None:
    """Wait until the kernel has a route to each address: to one of IPv6 it makes that a moment later."""
    deadline = time.monotonic() + _ENOUGH_SECONDS
    for address in addresses:
        asking = ["ip", "route", "get", address.partition("/")[0]]
        while not subprocess.run(asking, capture_output=True, check=False).stdout.startswith(b"local "):
            assert time.monotonic() < deadline, address
            time.sleep(0.01)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def gone(*writers: asyncio.StreamWriter) -> None:
    """Close them, whatever has not been sent, and hear how they ended: asyncio complains where nobody does."""
    for writer in writers:
        writer.close()
        with suppress(AttributeError):  # asyncio's of one that has closed itself meanwhile
            writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection so that the other end sees an error. Source: socket(7), SO_LINGER."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    writer.transport.abort()


def stop_reading(writer: asyncio.StreamWriter) -> None:
    cast("asyncio.ReadTransport", writer.transport).pause_reading()


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the end, which may be a reset."""
    got = b""
    try:
        while data := await asyncio.wait_for(reader.read(1 << 16), _ENOUGH_SECONDS):
            got += data
    except ConnectionError:
        pass
    return got
