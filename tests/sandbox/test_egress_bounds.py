"""Attacks on the egress proxy by how much passes through it, how often, and how slowly. No box, real servers."""

import asyncio
import hashlib
import os
import time
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from sandbox.egress_proxy import EgressBounds
from tests.sandbox.conftest import PATIENCE
from tests.sandbox.egress_client import Client, on_both_loops, plain, proxied
from tests.sandbox.egress_world import (
    OTHER_PUBLIC,
    PUBLIC,
    Streams,
    World,
    echo,
    ends,
    open_descriptors,
    served,
    stop_reading,
)

ENOUGH = 10 * PATIENCE


@pytest.fixture
def world() -> World:
    return World()


# How much


@on_both_loops
async def test_big_upload_and_download_come_through_whole(tmp_path: Path, world: World) -> None:
    data = os.urandom(16 << 20)
    got: list[str] = []

    async def exchanges(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(hashlib.sha256(await reader.readexactly(len(data))).hexdigest())
        writer.write(data[::-1])
        await writer.drain()

    async with served(exchanges) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        reader, writer = await client.tunnel("web.example:80")
        writer.write(data)
        back = await asyncio.wait_for(reader.read(), 6 * ENOUGH)

    assert got == [hashlib.sha256(data).hexdigest()]
    assert hashlib.sha256(back).digest() == hashlib.sha256(data[::-1]).digest()
    summary = client.proxy.account.summary
    assert (summary.sent_bytes, summary.received_bytes) == (len(data), len(data))


@on_both_loops
async def test_client_that_does_not_read_makes_the_server_wait(tmp_path: Path, world: World) -> None:
    said = 0

    async def talks_on(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
            said += 1 << 16

    async with served(talks_on) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        _, writer = await client.tunnel("web.example:80")
        stop_reading(writer)
        await asyncio.sleep(0.5)
        passed = client.proxy.account.received_bytes
        await asyncio.sleep(0.5)

        assert client.proxy.account.received_bytes == passed < 4 << 20
        assert said < 32 << 20


@on_both_loops
async def test_server_that_does_not_read_makes_the_client_wait(tmp_path: Path, world: World) -> None:
    async def stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stop_reading(writer)
        assert reader
        await asyncio.sleep(60)

    async with proxied(tmp_path, world) as client, served(stops) as door:
        world.place("web.example", door)
        _, writer = await client.tunnel("web.example:80")
        writer.write(bytes(64 << 20))
        await asyncio.sleep(0.5)
        passed = client.proxy.account.sent_bytes
        await asyncio.sleep(0.5)

        assert client.proxy.account.sent_bytes == passed < 32 << 20


@on_both_loops
async def test_bytes_beyond_the_bound_end_every_connection(tmp_path: Path, world: World) -> None:
    async with served(echo) as door, proxied(tmp_path, world, bounds=EgressBounds(total_bytes=1 << 20)) as client:
        world.place("web.example", door)
        reader, writer = await client.tunnel("web.example:80")
        writer.write(bytes(1 << 20))
        assert len(await ends(reader)) < 1 << 20
        reader, writer = await client.tunnel("web.example:80")
        writer.write(b"more")
        assert await ends(reader) == b""

    assert any("1 megabytes have passed" in words for words in client.words)


# How many, how fast


async def answered(client: Client, where: str) -> bool:
    reader, writer = await client.tunnel(where)
    writer.write(b"hello")
    writer.write_eof()
    return await asyncio.wait_for(reader.read(), ENOUGH) == b"hello"


@on_both_loops
async def test_200_connections_at_once_work(tmp_path: Path, world: World) -> None:
    async with served(echo) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        tunnels = await asyncio.gather(*(client.tunnel("web.example:80") for _ in range(200)))
        for number, (_, writer) in enumerate(tunnels):
            writer.write(f"{number:03}".encode())
        said = await asyncio.gather(*(reader.readexactly(3) for reader, _ in tunnels))

    assert [int(text) for text in said] == list(range(200))


@on_both_loops
async def test_connections_beyond_those_at_once_are_refused_until_one_ends(tmp_path: Path, world: World) -> None:
    async with served(echo) as door, proxied(tmp_path, world, bounds=EgressBounds(connections_at_once=10)) as client:
        world.place("web.example", door)
        tunnels = [await client.tunnel("web.example:80") for _ in range(10)]
        assert await client.tunnel_status("web.example:80") == 403
        for _, writer in tunnels:
            writer.close()
        await asyncio.sleep(0.1)
        assert await answered(client, "web.example:80")


@on_both_loops
async def test_flood_of_connections_that_say_nothing_uses_up_no_descriptors(tmp_path: Path, world: World) -> None:
    async with proxied(tmp_path, world, bounds=EgressBounds(connections_at_once=10)) as client:
        before = open_descriptors()
        for _ in range(300):
            await client.dialled()
        await asyncio.sleep(0.2)

        ours = 300
        assert open_descriptors() - before - ours <= 20


@on_both_loops
async def test_connections_in_all_are_bounded(tmp_path: Path, world: World) -> None:
    async with served(echo) as door, proxied(tmp_path, world, bounds=EgressBounds(connections=3)) as client:
        world.place("web.example", door)
        statuses = [await client.tunnel_status("web.example:80") for _ in range(5)]

    assert statuses == [200, 200, 200, 403, 403]


@on_both_loops
async def test_rate_of_connections_is_bounded(tmp_path: Path, world: World) -> None:
    bounds = EgressBounds(connections_at_once=5, connections_a_second=20)
    async with served(echo) as door, proxied(tmp_path, world, bounds=bounds) as client:
        world.place("web.example", door)
        begun = time.monotonic()
        for _ in range(15):
            assert await answered(client, "web.example:80")

        assert time.monotonic() - begun >= 10 / 20


@on_both_loops
async def test_slow_loris_ends_and_harms_nobody_else(tmp_path: Path, world: World) -> None:
    bounds = EgressBounds(head_seconds=1.0)
    async with served(echo) as door, proxied(tmp_path, world, bounds=bounds) as client:
        world.place("web.example", door)
        silent = [await client.dialled() for _ in range(50)]
        slow = [await client.dialled(b"CONNECT web.example:80 HTTP/1.1\r\nX: ") for _ in range(50)]
        socks = [await client.dialled(b"\x05\x01") for _ in range(50)]
        begun = time.monotonic()
        assert await answered(client, "web.example:80")
        for _ in range(3):
            for _, writer in slow:
                writer.write(b"x")
            await asyncio.sleep(0.1)
        await asyncio.gather(*(ends(reader) for reader, _ in (*silent, *slow, *socks)))

        assert 0.5 <= time.monotonic() - begun < ENOUGH


@on_both_loops
async def test_name_that_takes_forever_to_resolve_ends_in_time(tmp_path: Path) -> None:
    class NeverResolves(World):
        async def addresses(self, name: str) -> tuple[IPv4Address | IPv6Address, ...]:
            await asyncio.sleep(60)
            return await super().addresses(name)

    async with proxied(tmp_path, NeverResolves(), bounds=EgressBounds(connect_seconds=0.2)) as client:
        assert await client.tunnel_status("web.example:80") == 502

    assert client.words == ["web.example:80 not reached: it did not answer in time"]


async def longest_pause(work: asyncio.Task[bytes]) -> float:
    """For how long at a stretch nobody else's turn came while something was done."""
    longest, last = 0.0, time.perf_counter()
    while not work.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest


@on_both_loops
async def test_body_in_chunks_of_one_byte_lets_others_have_their_turn(tmp_path: Path, world: World) -> None:
    async def swallows(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"0\r\n\r\n" not in await reader.read(1 << 20):
            pass
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")

    body = b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
    async with served(swallows) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        said = plain("http://web.example/", method="POST", more="Transfer-Encoding: chunked\r\n", body=body)
        pause = await longest_pause(asyncio.get_running_loop().create_task(client.answer(said)))

    assert pause < 0.1 * PATIENCE


@on_both_loops
async def test_request_that_cannot_be_read_brings_no_words_of_its_own_into_the_record(
    tmp_path: Path, world: World
) -> None:
    async with proxied(tmp_path, world) as client:
        for line in ("CONNECT \x80 HTTP/1.1", f"{'do this: ' * 5_000}", "GET / HTTP/x", "\x04\x01\x00\x50"):
            assert b" 400 " in await client.answer(f"{line}\r\n\r\n".encode())

    assert client.words == ["? refused: a request that cannot be read: it is no HTTP/1.1"]


@on_both_loops
async def test_address_that_does_not_answer_leaves_time_for_the_next(tmp_path: Path) -> None:
    class Hangs(World):
        async def connected(self, address: IPv4Address | IPv6Address, port: int) -> Streams:
            if str(address) == OTHER_PUBLIC:
                await asyncio.sleep(60)
            return await super().connected(address, port)

    world = Hangs(names={"web.example": [(OTHER_PUBLIC, PUBLIC)]})
    async with served(echo) as door, proxied(tmp_path, world, bounds=EgressBounds(connect_seconds=1.0)) as client:
        world.doors[PUBLIC, 80] = door
        assert await answered(client, "web.example:80")
