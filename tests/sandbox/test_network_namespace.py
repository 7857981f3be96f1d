"""What leads out of a box's network namespace, and what is said where none can be made."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from sandbox.cgroup_places import CgroupPlace, CgroupVersion
from sandbox.cgroups import CgroupParent
from sandbox.equipment import Equipment
from sandbox.errors import UnenforceableError
from sandbox.network_namespace import NetworkNamespace, check_may_enter, original_destination
from tests.sandbox.conftest import PATIENCE, eventually
from tests.sandbox.egress_world import open_descriptors
from tests.sandbox.namespaces import inside, needs_namespaces

pytestmark = needs_namespaces

TELL_WHY = """
import asyncio
from sandbox.errors import UnenforceableError
from sandbox.network_namespace import NetworkNamespace
try:
    asyncio.run(NetworkNamespace.made())
    print("made")
except UnenforceableError as error:
    print(error)
"""


def told_by(*command: str) -> str:
    """What a process says of the namespace that it cannot make."""
    told = subprocess.run(
        [*command, sys.executable, "-c", TELL_WHY],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return told.stdout


def with_nft(program: str) -> tuple[str, ...]:
    """A command that lets another see a different program in the place of nft."""
    hidden = f'for nft in /usr/sbin/nft /sbin/nft; do mount --bind {program} $nft; done; exec "$@"'
    return ("unshare", "--mount", "sh", "-c", hidden, "sh")


async def test_namespace_is_made_in_little_time_and_leaves_nothing() -> None:
    before = open_descriptors()
    begun = time.monotonic()

    for _ in range(5):
        (await NetworkNamespace.made()).close()

    assert time.monotonic() - begun < 5 * 0.2 * PATIENCE
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("93.184.216.34", 443),
        ("169.254.169.254", 80),
        ("10.0.0.1", 22),
        ("192.168.255.255", 1),
        ("::ffff:1.2.3.4", 65535),
        ("2606:2800::1", 443),
        ("fd00::1", 80),
    ],
)
async def test_connection_arrives_with_where_it_was_meant_to_go(address: str, port: int) -> None:
    namespace = await NetworkNamespace.made()

    def connect() -> None:
        socket.create_connection((address, port), timeout=5).close()

    await inside(namespace, connect)
    meant = ip_address(address.removeprefix("::ffff:"))
    listening = namespace.connections[0 if meant.version == 4 else 1]
    with listening.accept()[0] as arrived:
        assert original_destination(arrived) == (meant, port)
    namespace.close()


def _connected_once(address: tuple[str, int]) -> None:
    socket.create_connection(address, timeout=5).close()


async def test_connection_to_our_own_socket_was_meant_for_nobody() -> None:
    namespace = await NetworkNamespace.made()

    for listening in namespace.connections:
        own = listening.getsockname()[:2]
        await inside(namespace, partial(_connected_once, own))
        with listening.accept()[0] as arrived, pytest.raises(OSError):  # noqa: PT011 -- any will do
            original_destination(arrived)
    namespace.close()


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:2800::1", "239.255.255.250", "10.0.0.1"])
async def test_datagram_is_refused_at_once(address: str) -> None:
    namespace = await NetworkNamespace.made()

    def send() -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"data", (address, 123))

    with pytest.raises(PermissionError):
        await inside(namespace, send)
    namespace.close()


async def test_ping_is_refused_at_once() -> None:
    namespace = await NetworkNamespace.made()

    def ping() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sending:
            sending.sendto(b"\x08\0\xf7\xff\0\0\0\0", ("8.8.8.8", 0))

    with pytest.raises(PermissionError):
        await inside(namespace, ping)
    namespace.close()


async def test_loopback_of_the_host_is_another() -> None:
    namespace = await NetworkNamespace.made()
    with socket.create_server(("127.0.0.1", 0)) as hosts, pytest.raises(ConnectionRefusedError):
        await inside(namespace, lambda: socket.create_connection(hosts.getsockname(), timeout=5).close())
    namespace.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.0.8", "::1"])
async def test_own_servers_are_reached_in_it(address: str) -> None:
    namespace = await NetworkNamespace.made()

    def talk() -> bytes:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with (
            socket.create_server(("", 0), family=family) as server,
            socket.create_connection((address, server.getsockname()[1]), timeout=5) as client,
            server.accept()[0] as accepted,
        ):
            accepted.sendall(b"hello")
            return client.recv(5)

    assert await inside(namespace, talk) == b"hello"
    namespace.close()


async def test_own_traffic_is_not_tracked_by_the_kernel() -> None:
    namespace = await NetworkNamespace.made()

    def tracked() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(100):
                socket.create_connection(server.getsockname(), timeout=5).close()
                server.accept()[0].close()
        return int(Path("/proc/thread-self/net/stat/nf_conntrack").read_text().splitlines()[1].split()[0], 16)

    assert await inside(namespace, tracked) < 20
    namespace.close()


async def test_namespaces_do_not_reach_each_other() -> None:
    one, other = await NetworkNamespace.made(), await NetworkNamespace.made()

    def serve() -> socket.socket:
        return socket.create_server(("192.0.0.8", 4444))

    with await inside(one, serve), pytest.raises(ConnectionRefusedError):
        await inside(other, lambda: socket.create_connection(("192.0.0.8", 4444), timeout=5).close())
    one.close()
    other.close()


async def test_namespace_holds_who_was_started_in_it() -> None:
    namespace = await NetworkNamespace.made()
    process = await asyncio.create_subprocess_exec("nsenter", f"--net={namespace.path}", "sleep", "60")

    await eventually(lambda: namespace.is_entered_by((1, process.pid)))
    assert not namespace.is_entered_by((os.getpid(), 1, 1 << 30))
    process.kill()
    await process.wait()
    namespace.close()


@pytest.mark.gvisor
def test_rootless_gvisor_is_refused(equipment: Equipment) -> None:
    runsc = equipment.runsc
    check_may_enter(equipment)

    with pytest.raises(UnenforceableError, match="without privileges"):
        check_may_enter(replace(equipment, runsc=replace(runsc, arguments=(*runsc.arguments, "--rootless"))))


@pytest.mark.gvisor
@pytest.mark.parametrize("version", CgroupVersion)
def test_kernel_that_bounds_no_memory_of_sockets_is_refused(
    equipment: Equipment, tmp_path: Path, version: CgroupVersion
) -> None:
    place = CgroupPlace(folder=tmp_path, version=version, controllers=frozenset({"memory"}))
    there = replace(equipment, cgroups=CgroupParent(places=(place,), missing=()))

    with pytest.raises(UnenforceableError, match="bounds") if version is CgroupVersion.V1 else nullcontext():
        check_may_enter(there)


async def test_making_that_is_cancelled_leaves_nothing() -> None:
    before = open_descriptors()

    for seconds in (0, 0.001, 0.004):
        task = asyncio.create_task(NetworkNamespace.made())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await eventually(lambda: open_descriptors() == before)


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("sys_admin", "Run it as root with the capabilities SYS_ADMIN and NET_ADMIN"),
        ("net_admin", "Run it as root with the capabilities SYS_ADMIN and NET_ADMIN"),
    ],
)
def test_missing_capability_is_told_with_its_remedy(missing: str, remedy: str) -> None:
    told = told_by("setpriv", f"--bounding-set=-{missing}", f"--inh-caps=-{missing}")

    assert told.startswith("SANDBOX_NETWORK_MODE=namespace (this host): no network namespace: ")
    assert "Operation not permitted" in told
    assert remedy in told
    assert "SANDBOX_NETWORK_MODE=proxy" in told


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("/dev/null", "the program nft is not there. Install nftables"),
        ("/bin/false", "nft did not load its rules"),
        ("/bin/true", "a connection in it went astray"),
    ],
    ids=["no-nft", "nft-that-fails", "nft-that-does-nothing"],
)
def test_nft_that_does_not_do_it_is_told(program: str, reason: str) -> None:
    assert reason in told_by(*with_nft(program))
