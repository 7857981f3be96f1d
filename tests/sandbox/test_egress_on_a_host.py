"""The egress proxy on a real host's network: a real resolver, real own addresses, in a namespace made by the test."""

import asyncio
import socket
import threading
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from sandbox.egress_network import HostNetwork
from sandbox.egress_proxy import EgressBounds
from tests.sandbox.egress_client import Client, connecting, proxied
from tests.sandbox.egress_world import (
    PUBLIC,
    PUBLIC_IPV6,
    Names,
    echo,
    gone,
    in_own_network,
    name_server,
    served,
    stop_reading,
)

FAR = "151.101.0.81"


def resolvers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("egress-resolver")]


async def statuses(client: Client, *places: str) -> list[int]:
    return [await client.tunnel_status(place) for place in places]


def test_dns_tunnel_leads_no_denied_name_to_a_real_resolver(tmp_path: Path) -> None:
    async def work() -> list[str]:
        async with name_server({"web.example": [(PUBLIC,)]}) as resolver:
            async with proxied(tmp_path, HostNetwork(), "web.example") as client:
                denied = [f"secret-{number}.evil.example:443" for number in range(20)]
                assert set(await statuses(client, *denied, "web.example.:8080", "sub.web.example:443")) <= {403, 502}
                await statuses(client, "web.example:443")
            return resolver.asked

    asked = in_own_network(tmp_path, work)

    assert set(asked) == {"web.example"}


def test_dns_rebinding_by_a_real_server_never_reaches_the_host(tmp_path: Path) -> None:
    came: list[bytes] = []

    async def notes(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        came.append(await reader.read())

    async def work() -> list[int]:
        names: Names = {"rebind.example": [(FAR,), ("127.0.0.1",), ("::1",)]}
        async with name_server(names), served(notes, host="") as door, proxied(tmp_path, HostNetwork()) as client:
            return await statuses(client, *[f"rebind.example:{door}"] * 3)

    assert in_own_network(tmp_path, work) == [502, 403, 403]
    assert came == []


def test_own_addresses_of_the_host_are_refused_although_they_are_public(tmp_path: Path) -> None:
    async def work() -> tuple[list[int], list[int]]:
        names: Names = {"own.example": [(PUBLIC,)], "own-six.example": [(PUBLIC_IPV6,)], "far.example": [(FAR,)]}
        async with name_server(names), served(echo, host="0.0.0.0") as door, served(echo, host="::") as six:
            places = [f"{host}:{door}" for host in (PUBLIC, "own.example", "127.0.0.1")]
            places += [f"{host}:{six}" for host in (f"[{PUBLIC_IPV6}]", "own-six.example", "[::1]")]
            async with proxied(tmp_path / "closed", HostNetwork()) as client:
                closed = await statuses(client, *places, f"far.example:{door}")
            async with proxied(tmp_path / "open", HostNetwork(), private=True) as client:
                return closed, await statuses(client, *places)

    closed, opened = in_own_network(tmp_path, work, f"{PUBLIC}/32", f"{PUBLIC_IPV6}/128")

    assert closed == [403] * 6 + [502]
    assert opened == [200] * 6


def test_resolver_that_never_answers_holds_up_nobody_and_leaves_no_threads(tmp_path: Path) -> None:
    async def work() -> list[int]:
        async with proxied(tmp_path, HostNetwork(), bounds=EgressBounds(connect_seconds=0.5)) as client:
            silent = asyncio.DatagramProtocol
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(silent, local_addr=("127.0.0.1", 53))
            async with served(echo) as door:
                names = [f"name-{number}.example:443" for number in range(8)]
                answers = asyncio.gather(*(client.tunnel_status(name) for name in names))
                got = [*await answers, await client.tunnel_status(f"127.0.0.1:{door}")]
            transport.close()
            while resolvers():
                await client.proxy.close()
                await asyncio.sleep(0.05)
            return got

    assert in_own_network(tmp_path, work) == [502] * 8 + [403]


def test_every_ipv4_mapped_answer_is_the_ipv4_address_that_it_is(tmp_path: Path) -> None:
    async def work() -> list[bytes]:
        names: Names = {
            "mapped.example": [("::ffff:127.0.0.1",)],
            "metadata.example": [("169.254.169.254",)],
            "translated.example": [("64:ff9b::a9fe:a9fe",)],
        }
        async with name_server(names), proxied(tmp_path, HostNetwork()) as client:
            return [await client.answer(connecting(f"{name}:80")) for name in names]

    answers = in_own_network(tmp_path, work)

    assert [answer.split()[1] for answer in answers] == [b"403"] * 3
    assert all(b"it is not public, and private destinations are closed" in answer for answer in answers)
    assert not any(b"127.0.0.1" in answer or b"link-local" in answer for answer in answers)  # no map of the network


async def test_memory_bomb_by_a_server_that_is_first_read_and_then_not_stays_small() -> None:
    much = bytes(64 << 20)  # the kernel lets buffers grow for whoever reads fast
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # at its own end
        reader, writer = await HostNetwork().connected(ip_address("127.0.0.1"), listening.getsockname()[1])
        with listening.accept()[0] as server:
            await asyncio.gather(asyncio.to_thread(server.sendall, much), reader.readexactly(len(much)))
            stop_reading(writer)
            server.settimeout(0.5)
            sent = 0
            with suppress(TimeoutError):
                while True:
                    sent += server.send(bytes(1 << 16))
    await gone(writer)

    assert sent < 2 << 20
