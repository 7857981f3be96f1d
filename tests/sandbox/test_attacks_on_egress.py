"""Attacks on the egress proxy, each by name: on the host behind it, on the server that it runs in, on its record."""

import asyncio
import itertools
import os
import resource
import socket
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from sandbox.egress_account import EgressAccount
from sandbox.egress_asking import Asked, asked_by
from sandbox.egress_network import HostNetwork, UnreachableError
from sandbox.egress_proxy import EgressBounds, EgressProxy
from tests.sandbox.conftest import eventually
from tests.sandbox.egress_client import LOOPS, connecting, on_both_loops, proxied
from tests.sandbox.egress_world import (
    PUBLIC,
    PUBLIC_IPV6,
    Names,
    Streams,
    World,
    echo,
    in_own_network,
    name_server,
    open_descriptors,
    served,
)

SECONDARY = "93.184.216.35"


@pytest.fixture
def world() -> World:
    return World()


def address_tool(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)  # noqa: S607 -- as `egress_world` has it


# On the host behind it


def test_ssrf_secondary_address_of_the_host_is_its_own_too(tmp_path: Path) -> None:
    async def work() -> list[int]:
        async with served(echo, host="0.0.0.0") as door, proxied(tmp_path, HostNetwork()) as client:
            return [await client.tunnel_status(f"{address}:{door}") for address in (PUBLIC, SECONDARY)]

    assert in_own_network(tmp_path, work, f"{PUBLIC}/24", f"{SECONDARY}/24") == [403, 403]


def test_ssrf_whatever_the_kernel_would_deliver_here_is_its_own(tmp_path: Path) -> None:
    here = ("151.101.0.7", "2a04:4e42::7", "93.184.216.255", PUBLIC, "127.0.0.1", "::1")
    elsewhere = ("8.8.8.8", "2001:4860:4860::8888")

    async def work() -> list[bool]:
        for command in ("route add local 151.101.0.0/24 dev lo", "-6 route add local 2a04:4e42::/64 dev lo"):
            address_tool(*command.split())
        network = HostNetwork()
        return [network.is_own(ip_address(address)) for address in (*here, *elsewhere)]

    assert in_own_network(tmp_path, work, f"{PUBLIC}/24") == [True] * len(here) + [False] * len(elsewhere)


def test_ssrf_address_added_while_a_run_lasts_is_its_own_at_once(tmp_path: Path) -> None:
    async def work() -> list[bool]:
        network, address = HostNetwork(), ip_address(PUBLIC)
        before = network.is_own(address)
        address_tool("address", "add", f"{PUBLIC}/32", "dev", "lo")
        return [before, network.is_own(address)]

    assert in_own_network(tmp_path, work) == [False, True]


async def test_ssrf_address_of_which_nobody_can_tell_whose_it_is_stays_closed(tmp_path: Path) -> None:
    class Unsure(World):
        def is_own(self, address: IPv4Address | IPv6Address) -> bool:
            if str(address) == PUBLIC_IPV6:
                raise UnreachableError("the kernel does not tell")
            return False

    world = Unsure(names={"one.example": [(PUBLIC_IPV6,)], "two.example": [(PUBLIC_IPV6, PUBLIC)]})
    async with served(echo) as door, proxied(tmp_path, world) as client:
        world.doors[PUBLIC, 80] = door
        assert [await client.tunnel_status(f"{name}.example:80") for name in ("one", "two")] == [502, 200]

    assert world.reached == [(PUBLIC, 80)]
    assert client.words == ["one.example:80 not reached: the kernel does not tell", "two.example:80 reached"]


def test_search_domain_of_the_host_is_told_no_name_and_answers_for_none(tmp_path: Path) -> None:
    names: Names = {"web.example.corp.example": [(PUBLIC,)], "build.corp.example": [(PUBLIC,)]}

    async def work() -> tuple[list[str], tuple[object, ...]]:
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch corp.example\noptions ndots:5 timeout:1\n")
        async with name_server(names) as resolver:
            with pytest.raises(UnreachableError):
                await HostNetwork().addresses("web.example")
            return list(resolver.asked), await HostNetwork().addresses("build")

    asked, of_one_label = in_own_network(tmp_path, work)

    assert set(asked) == {"web.example"}
    assert of_one_label == (ip_address(PUBLIC),)


def test_hosts_file_still_decides_about_the_names_in_it(tmp_path: Path) -> None:
    async def work() -> tuple[list[str], tuple[object, ...]]:
        (tmp_path / "hosts").write_text(
            f"127.0.0.1 localhost\n{PUBLIC} www Web.Example # not.example\nrubbish x.example\n"
        )
        async with name_server({"web.example": [("8.8.8.8",)]}) as resolver:
            found = await HostNetwork().addresses("web.example")
            for name in ("not.example", "x.example"):
                with pytest.raises(UnreachableError):
                    await HostNetwork().addresses(name)
            return resolver.asked, found

    asked, found = in_own_network(tmp_path, work)

    assert found == (ip_address(PUBLIC),)
    assert set(asked) == {"not.example", "x.example"}


def test_flood_of_addresses_for_one_name_is_cut(tmp_path: Path) -> None:
    async def work() -> int:
        many = tuple(f"9.9.9.{number}" for number in range(60))
        async with name_server({"many.example": [many]}):
            return len(await HostNetwork().addresses("many.example"))

    assert 1 < in_own_network(tmp_path, work) <= 16


# On the server that it runs in


@on_both_loops
async def test_connection_flood_ends_with_nobody_listening_and_harms_no_tunnel(tmp_path: Path, world: World) -> None:
    async with served(echo) as door, proxied(tmp_path, world, bounds=EgressBounds(connections=10)) as client:
        world.place("web.example", door)
        reader, writer = await client.tunnel("web.example:80")
        with suppress(ConnectionError):
            for _ in range(100):
                await client.answer(b"x\r\n\r\n")
        with pytest.raises(ConnectionError):
            await client.dialled()
        writer.write(b"still")
        assert await reader.readexactly(5) == b"still"


async def test_connection_flood_lets_others_have_their_turn(tmp_path: Path) -> None:
    heard: list[int] = []

    async def counted(client: Streams) -> Asked | None:
        heard.append(1)
        return await asked_by(client)

    await asyncio.to_thread(tmp_path.mkdir, exist_ok=True)
    proxy = await EgressProxy(World(), asking=counted).listen(tmp_path / "egress")
    flood = [connected_at_once(tmp_path / "egress" / "proxy") for _ in range(200)]
    turns = [len(heard)]
    while len(heard) < len(flood):
        await asyncio.sleep(0)
        turns.append(len(heard))
    await proxy.close()
    for one in flood:
        one.close()

    assert max(after - before for before, after in itertools.pairwise(turns)) <= 40


def connected_at_once(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(str(path))
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def at_most_descriptors(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@on_both_loops
async def test_descriptor_exhaustion_by_one_box_leaves_the_server_half_of_them(tmp_path: Path, world: World) -> None:
    async with served(echo) as door, proxied(tmp_path, world) as client:
        world.place("web.example", door)
        spare = os.open(os.devnull, os.O_RDONLY)
        os.close(spare)
        with at_most_descriptors(2 * (spare + 40)):
            dialled = [await client.dialled(connecting("web.example:80")) for _ in range(60)]
            await asyncio.sleep(0.2)
            await eventually(lambda: "? refused: the server has too few file descriptors left" in client.words)
            assert open_descriptors() <= spare + 40 + 60
            for _, writer in dialled:
                writer.close()
            await eventually(lambda: open_descriptors() <= spare + 5)
            reader, writer = await client.tunnel("web.example:80")
            writer.write(b"again")
            assert await reader.readexactly(5) == b"again"


@on_both_loops
async def test_cancelled_listening_leaves_the_loop_no_descriptor_to_watch(tmp_path: Path, world: World) -> None:
    loop = asyncio.get_running_loop()
    async with served(echo):
        """What an event loop opens once, it has opened by now."""
    await another_reads()
    before = open_descriptors()
    for turns in range(4):
        proxy = EgressProxy(world)
        listening = loop.create_task(proxy.listen(tmp_path / str(turns)))
        for _ in range(turns):
            await asyncio.sleep(0)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        with suppress(asyncio.CancelledError):
            listening.result()
            await proxy.close()
        await asyncio.sleep(0)
        await another_reads()
    await eventually(lambda: open_descriptors() <= before)


async def another_reads() -> None:
    """Somebody else's descriptors, which have the numbers that were let go of."""
    loop, ends = asyncio.get_running_loop(), [os.pipe() for _ in range(4)]
    for reading, writing in ends:
        came = asyncio.Event()
        loop.add_reader(reading, came.set)
        os.write(writing, b"x")
        await asyncio.wait_for(came.wait(), 5)
        loop.remove_reader(reading)
    for pair in ends:
        for end in pair:
            os.close(end)


@on_both_loops
async def test_descriptor_race_with_other_threads_of_the_server_hinders_no_listening(tmp_path: Path) -> None:
    ended = threading.Event()

    def other() -> None:
        while not ended.is_set():
            os.close(os.open(os.devnull, os.O_RDONLY))

    others = [threading.Thread(target=other) for _ in range(2)]
    for one in others:
        one.start()
    try:
        for number in range(100):
            proxy = await EgressProxy(World()).listen(tmp_path / str(number))
            await proxy.close()
    finally:
        ended.set()
        for one in others:
            one.join()


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_loop_that_is_closed_hinders_no_abandoning(
    tmp_path: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    loop = loop_factory()
    proxy = loop.run_until_complete(EgressProxy(World()).listen(tmp_path / "egress"))
    with warnings.catch_warnings():  # uvloop's own about what is still open when it closes
        warnings.simplefilter("ignore")
        loop.close()

    proxy.abandon()
    proxy.abandon()

    with pytest.raises(ConnectionError):
        connected_at_once(tmp_path / "egress" / "proxy")


# On its record


def test_flood_of_refusals_does_not_hide_where_code_has_been() -> None:
    account = EgressAccount()
    for number in range(1_000):
        account.note(f"{number}.junk.example:443", permitted=False, reason="not in the allow-list")
    account.note("exfil.example:443", permitted=True)

    summary = account.summary

    assert summary.notices[0] == "Reached over the network: exfil.example:443."
    assert summary.decisions[-1].destination == "exfil.example:443"


def test_notice_promises_no_more_than_the_record_holds() -> None:
    account = EgressAccount()
    for number in range(100):
        account.note(f"{number}.junk.example:443", permitted=False, reason="not in the allow-list")

    assert account.summary.notices[-1] == (
        "90 more attempts to connect are in the run's record, 36 of them as a mere number."
    )
