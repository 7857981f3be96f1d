"""Attacks on the egress proxy by what passes through it and by how it ends. No box, real servers."""

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.sandbox.conftest import PATIENCE, eventually
from tests.sandbox.egress_client import on_both_loops, proxied
from tests.sandbox.egress_world import (
    Authority,
    Streams,
    World,
    echo,
    ends,
    open_descriptors,
    reset,
    served,
)

ENOUGH = 10 * PATIENCE


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"), "web.example", "api.example", "evil.example")


def client_hello(name: str | None, *alpn: str) -> bytes:
    """What a TLS client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


# TLS


@on_both_loops
async def test_sni_of_another_host_is_refused_and_noted_and_reaches_nobody(tmp_path: Path, world: World) -> None:
    seen: list[bytes] = []

    async def notes(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())

    async with served(notes) as door, proxied(tmp_path, world, "web.example") as client:
        world.place("web.example", door, port=443)
        reader, writer = await client.tunnel("web.example:443")
        writer.write(client_hello("evil.example"))
        assert await ends(reader) == b""
        await eventually(lambda: seen == [b""])

    assert client.words == [
        "web.example:443 reached",
        "evil.example:443 refused: TLS asks for it: not in the allow-list, test",
    ]


@pytest.mark.parametrize("name", ["web.example", "api.example", None], ids=["same", "permitted-too", "none"])
@on_both_loops
async def test_tls_with_a_permitted_name_or_none_passes(
    tmp_path: Path, world: World, authority: Authority, name: str | None
) -> None:
    context = authority.for_client
    context.check_hostname = name is not None
    async with (
        served(echo, tls=authority.for_server) as door,
        proxied(tmp_path, world, "web.example", "api.example:443") as client,
    ):
        world.place("web.example", door, port=443)
        reader, writer = await client.tunnel("web.example:443")
        # asyncio's streams cannot ask for no name, so the bytes are carried by hand
        told = await handshaken(context, (reader, writer), name)
    assert told.startswith("TLSv1")


async def handshaken(context: ssl.SSLContext, streams: Streams, name: str | None) -> str:
    """Shake hands over streams; returns the version agreed on."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            streams[1].write(outgoing.read())
            got = await asyncio.wait_for(streams[0].read(1 << 16), ENOUGH)
            assert got
            incoming.write(got)
        else:
            return tls.version() or ""


@pytest.mark.parametrize("size", [1, 5, 100])
@on_both_loops
async def test_client_hello_in_small_pieces_is_held_until_its_name_is_known(
    tmp_path: Path, world: World, size: int
) -> None:
    hello = client_hello("web.example")
    async with served(echo) as door, proxied(tmp_path, world, "web.example") as client:
        world.place("web.example", door, port=443)
        reader, writer = await client.tunnel("web.example:443")
        for start in range(0, len(hello), size):
            writer.write(hello[start : start + size])
            await asyncio.sleep(0)
        assert await asyncio.wait_for(reader.readexactly(len(hello)), ENOUGH) == hello


@on_both_loops
async def test_client_hello_that_never_ends_reaches_nobody(tmp_path: Path, world: World) -> None:
    async with served(echo) as door, proxied(tmp_path, world, "web.example") as client:
        world.place("web.example", door, port=443)
        reader, writer = await client.tunnel("web.example:443")
        writer.write(b"\x16\x03\x01\x3f\xff\x01\x00\xff\xff" + bytes(200_000))
        assert await ends(reader) == b""

    assert any("its TLS cannot be read" in words for words in client.words)


# Ends


@on_both_loops
async def test_tunnel_that_the_client_half_closes_still_answers(tmp_path: Path, world: World) -> None:
    async def answers_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.write(said.upper())

    async with served(answers_at_the_end) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        reader, writer = await client.tunnel("web.example:80")
        writer.write(b"question")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), ENOUGH) == b"QUESTION"


@on_both_loops
async def test_tunnel_that_the_server_half_closes_still_listens(tmp_path: Path, world: World) -> None:
    heard: list[bytes] = []

    async def speaks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"greeting")
        writer.write_eof()
        heard.append(await reader.read())

    async with served(speaks_first) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        reader, writer = await client.tunnel("web.example:80")
        assert await asyncio.wait_for(reader.read(), ENOUGH) == b"greeting"
        writer.write(b"and now this")
        writer.write_eof()
        await eventually(lambda: heard == [b"and now this"], ENOUGH)


@on_both_loops
async def test_server_that_resets_ends_the_client(tmp_path: Path, world: World) -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        reset(writer)

    async with served(resets) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        for _ in range(5):
            reader, writer = await client.tunnel("web.example:80")
            writer.write(b"x" * 1000)
            assert await ends(reader) == b""


@on_both_loops
async def test_client_that_goes_away_ends_the_server(tmp_path: Path, world: World) -> None:
    ended: list[str] = []

    async def talks_on(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
        finally:
            ended.append("ended")

    async with served(talks_on) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        for _ in range(5):
            reader, writer = await client.tunnel("web.example:80")
            await reader.readexactly(10)
            writer.transport.abort()
        await eventually(lambda: len(ended) == 5, ENOUGH)


@on_both_loops
async def test_both_ends_gone_at_once_leave_nothing(tmp_path: Path, world: World) -> None:
    theirs: list[asyncio.StreamWriter] = []

    async def keeps(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs.append(writer)
        await reader.read()

    async with served(keeps) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        for number in range(20):
            _, writer = await client.tunnel("web.example:80")
            await eventually(lambda: len(theirs) == number + 1)  # noqa: B023 -- waited for within the loop
            writer.write(b"x")
            (writer.transport.abort if number % 2 else writer.write_eof)()
            reset(theirs[number])


@on_both_loops
async def test_closing_ends_tunnels_at_both_ends(tmp_path: Path, world: World) -> None:
    ended = asyncio.Event()

    async def until_the_end(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            ended.set()

    async with served(until_the_end) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        reader, _ = await client.tunnel("web.example:80")
        await client.proxy.close()

        assert await ends(reader) == b""
        await asyncio.wait_for(ended.wait(), ENOUGH)
        with pytest.raises(OSError, match="refused"):
            await client.dialled()


async def never_reads(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """A server that takes in what its buffers hold, and lives on."""
    assert reader
    await asyncio.sleep(60)


@on_both_loops
async def test_server_that_never_reads_holds_no_descriptor_after_closing(tmp_path: Path, world: World) -> None:
    async with proxied(tmp_path, world) as client, served(never_reads) as door:
        world.place("web.example", door)
        before = open_descriptors()
        tunnels = [await client.tunnel("web.example:80") for _ in range(5)]
        for _, writer in tunnels:
            writer.write(bytes(16 << 20))
        await asyncio.sleep(0.3)

        await client.proxy.close()

        for _, writer in tunnels:
            writer.transport.abort()
        their_own = len(tunnels)
        await eventually(lambda: open_descriptors() <= before + their_own - 1)  # the proxy listens no more
