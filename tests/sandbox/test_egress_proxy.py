"""Attacks on the egress proxy by code that may say to it what it likes; each bears its name. No box, real servers.

What a request may be and what rules permit has tests of its own; here connections are made.
"""

import asyncio
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from sandbox.egress_network import HostNetwork
from tests.sandbox.egress_client import Client, connecting, plain, proxied, rules_of
from tests.sandbox.egress_world import OTHER_PUBLIC, PUBLIC, PUBLIC_IPV6, World, echo, served, web


@pytest.fixture
def world() -> World:
    return World()


async def echoes(client: Client, where: str, said: bytes = b"hello") -> bool:
    reader, writer = await client.tunnel(where)
    writer.write(said)
    writer.write_eof()
    return await reader.read() == said


# Names


async def test_dns_rebinding_asks_once_and_connects_to_the_address_that_was_checked(
    tmp_path: Path, world: World
) -> None:
    world.names["rebind.example"] = [(PUBLIC,), ("127.0.0.1",)]
    async with served(echo) as door, proxied(tmp_path, world) as client:
        world.doors = {(PUBLIC, 80): door, ("127.0.0.1", 80): door}
        assert await echoes(client, "rebind.example:80")
        assert (world.asked, world.reached) == (["rebind.example"], [(PUBLIC, 80)])

        assert await client.tunnel_status("rebind.example:80") == 403

    assert world.reached == [(PUBLIC, 80)]
    assert client.words[1].startswith("rebind.example:80 refused: 127.0.0.1 is loopback")


@pytest.mark.parametrize("answers", [("10.0.0.1", "::1", PUBLIC), (PUBLIC, "169.254.169.254")], ids=["first", "last"])
async def test_name_with_private_addresses_too_is_connected_to_the_public_one_alone(
    tmp_path: Path, world: World, answers: tuple[str, ...]
) -> None:
    world.names["mixed.example"] = [answers]
    async with served(echo) as door, proxied(tmp_path, world) as client:
        world.doors[PUBLIC, 80] = door
        assert await echoes(client, "mixed.example:80")

    assert world.reached == [(PUBLIC, 80)]


async def test_name_with_private_addresses_too_never_falls_back_to_them(tmp_path: Path, world: World) -> None:
    world.names["mixed.example"] = [(PUBLIC, "10.0.0.1")]
    async with proxied(tmp_path, world) as client:
        assert await client.tunnel_status("mixed.example:80") == 502

    assert world.reached == [(PUBLIC, 80)]


async def test_why_nobody_answered_is_told_without_an_address(tmp_path: Path) -> None:
    async with proxied(tmp_path, HostNetwork(), "127.0.0.1", private=True) as client:
        answer = await client.answer(connecting("127.0.0.1:1"))

    assert client.words == ["127.0.0.1:1 not reached: Connection refused"]
    assert b"502 Bad Gateway (sandbox: Connection refused)" in answer


async def test_second_address_is_tried_where_the_first_does_not_answer(tmp_path: Path, world: World) -> None:
    world.names["two.example"] = [(OTHER_PUBLIC, PUBLIC)]
    async with served(echo) as door, proxied(tmp_path, world) as client:
        world.doors[PUBLIC, 80] = door
        assert await echoes(client, "two.example:80")


async def test_tunnel_over_dns_sends_no_name_that_is_not_permitted_to_a_resolver(tmp_path: Path, world: World) -> None:
    async with proxied(tmp_path, world, "permitted.example") as client:
        for number in range(50):
            assert await client.tunnel_status(f"secret-{number}.evil.example:443") == 403
            assert await client.status(f"http://secret-{number}.permitted.example.evil.example/") == 403
        assert await client.tunnel_status("permitted.example:443") == 502

    assert world.asked == ["permitted.example"]


@pytest.mark.parametrize("where", ["other.example:443", "web.example:80", "web.example:8443", f"{PUBLIC}:443"])
async def test_what_the_list_does_not_permit_is_neither_resolved_nor_connected(
    tmp_path: Path, world: World, where: str
) -> None:
    async with proxied(tmp_path, world, "web.example:443") as client:
        assert await client.tunnel_status(where) == 403
        assert await client.status(f"http://{where}/") == 403

    assert (world.asked, world.reached) == ([], [])
    assert client.words == [f"{where} refused: not in the allow-list, test"]


METADATA = (
    "169.254.169.254",
    "169.254.169.254.",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "0xa9.0xfe.0xa9.0xfe",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::]",
    "[fd00:ec2::254]",
    "[fe80::1%25eth0]",
    "[::1]",
    "[::]",
    "0.0.0.0",
    "127.1",
)


@pytest.mark.parametrize("host", METADATA)
async def test_metadata_address_in_every_spelling_is_refused_both_ways(tmp_path: Path, world: World, host: str) -> None:
    async with proxied(tmp_path, world) as client:
        assert await client.tunnel_status(f"{host}:80") in {400, 403}
        assert await client.status(f"http://{host}/latest/meta-data/") in {400, 403}

    assert (world.asked, world.reached) == ([], [])


async def test_metadata_address_as_userinfo_or_behind_it_is_refused(tmp_path: Path, world: World) -> None:
    world.names["web.example"] = [(PUBLIC,)]
    async with proxied(tmp_path, world) as client:
        for url in ("http://web.example@169.254.169.254/", "http://169.254.169.254@web.example/"):
            assert await client.status(url) == 400

    assert (world.asked, world.reached) == ([], [])


async def test_name_that_leads_to_the_metadata_address_is_refused(tmp_path: Path, world: World) -> None:
    world.names["metadata.example"] = [("169.254.169.254",)]
    async with proxied(tmp_path, world, "metadata.example", "169.254.169.254") as client:
        assert await client.tunnel_status("metadata.example:80") == 403
        assert await client.tunnel_status("169.254.169.254:80") == 403

    assert world.reached == []


async def test_ipv6_is_reached_where_it_is_public(tmp_path: Path, world: World) -> None:
    world.names["six.example"] = [(PUBLIC_IPV6,)]
    async with served(echo) as door, proxied(tmp_path, world) as client:
        world.doors[PUBLIC_IPV6, 443] = door
        assert await echoes(client, "six.example:443")
        assert await echoes(client, f"[{PUBLIC_IPV6}]:443")


async def test_own_public_address_of_the_host_is_refused_unless_private_destinations_are_allowed(
    tmp_path: Path, world: World
) -> None:
    world.own = frozenset({PUBLIC})
    async with served(echo) as door:
        world.place("own.example", door)
        async with proxied(tmp_path / "closed", world) as client:
            assert [await client.tunnel_status(f"{host}:80") for host in ("own.example", PUBLIC)] == [403, 403]
        async with proxied(tmp_path / "open", world, private=True) as client:
            assert await echoes(client, "own.example:80")


# Plain HTTP


async def test_redirect_to_a_private_address_is_a_new_request_and_refused(tmp_path: Path, world: World) -> None:
    async with (
        served(web({"/": ("302 Found\r\nLocation: http://10.0.0.1/", b"")})) as door,
        proxied(tmp_path, world) as client,
    ):
        world.place("web.example", door)
        answer = await client.answer(plain("http://web.example/"))
        location = answer.partition(b"Location: ")[2].split()[0].decode()
        assert (answer.split()[1], await client.status(location)) == (b"302", 403)

    assert world.reached == [(PUBLIC, 80)]


async def test_host_of_a_plain_request_is_the_one_that_was_checked(tmp_path: Path, world: World) -> None:
    heads: list[bytes] = []
    async with (
        served(web({"/page?x=1": ("200 OK", b"found")}, heads)) as door,
        proxied(tmp_path, world, "web.example") as client,
    ):
        world.place("web.example", door)
        answer = await client.answer(plain("http://web.example/page?x=1", host="internal.example"))

    assert answer.endswith(b"found")
    assert heads[0].startswith(b"GET /page?x=1 HTTP/1.1\r\nhost: web.example\r\n")
    assert b"internal.example" not in heads[0]


async def test_path_as_it_was_typed_is_asked_for_in_ascii(tmp_path: Path, world: World) -> None:
    heads: list[bytes] = []
    async with served(web({}, heads)) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        await client.answer("GET http://web.example/straße HTTP/1.1\r\nHost: web.example\r\n\r\n".encode())

    assert heads[0].startswith(b"GET /stra%C3%9Fe HTTP/1.1\r\n")


async def test_second_request_on_a_plain_connection_reaches_nobody(tmp_path: Path, world: World) -> None:
    heads: list[bytes] = []
    async with served(web({"/": ("200 OK", b"found")}, heads)) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        first, second = plain("http://web.example/"), plain("http://10.0.0.1/", host="10.0.0.1")
        answer = await client.answer(first + second)

    assert (len(heads), answer.count(b"HTTP/1.1")) == (1, 1)


@pytest.mark.parametrize("said", ["", "Connection: keep-alive\r\n"], ids=["nothing", "keep-alive"])
async def test_client_is_told_that_its_connection_ends_whatever_the_server_says(
    tmp_path: Path, world: World, said: str
) -> None:
    async with served(web({"/": ("200 OK", b"found")}, closing=said)) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        head, _, body = (await client.answer(plain("http://web.example/"))).partition(b"\r\n\r\n")

    assert body == b"found"
    assert head.lower().count(b"connection: ") == 1
    assert head.endswith(b"Connection: close")


async def test_chunked_upload_that_waits_for_continue_arrives(tmp_path: Path, world: World) -> None:
    async def receives(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body.replace(b"\r\n", b"|"))

    async with served(receives) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        more = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
        reader, writer = await client.dialled(plain("http://web.example/", method="POST", more=more))
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"3\r\nabc\r\n0\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n\r\n3|abc|0||")


# Before, and after


async def test_nothing_is_permitted_before_it_is_opened_not_even_a_question(tmp_path: Path, world: World) -> None:
    async with served(echo) as door, proxied(tmp_path, world, opened=False) as client:
        world.place("web.example", door)
        assert await client.tunnel_status("web.example:80") == 403
        assert (world.asked, world.reached) == ([], [])

        client.proxy.open(rules_of())
        assert await echoes(client, "web.example:80")


async def test_client_that_connected_before_it_was_opened_follows_the_rules_all_the_same(
    tmp_path: Path, world: World
) -> None:
    async with proxied(tmp_path, world, opened=False) as client:
        reader, writer = await client.dialled(b"CONNECT other.example:80")
        await asyncio.sleep(0.05)
        client.proxy.open(rules_of("web.example"))
        writer.write(b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 403 " in await reader.readline()

    assert world.asked == []


async def test_who_waited_for_a_name_when_it_was_closed_reaches_nothing(tmp_path: Path) -> None:
    class SlowlyResolves(World):
        async def addresses(self, name: str) -> tuple[IPv4Address | IPv6Address, ...]:
            await asyncio.sleep(0.2)
            return await super().addresses(name)

    slow = SlowlyResolves()
    async with served(echo) as door, proxied(tmp_path, slow) as client:
        slow.place("web.example", door)
        waiting = [await client.dialled(connecting("web.example:80")) for _ in range(20)]
        await asyncio.sleep(0.1)
        await client.proxy.close()
        await asyncio.sleep(0.2)

        assert {await reader.read() for reader, _ in waiting} == {b""}
    assert (slow.asked, slow.reached) == ([], [])
