"""Attacks on the network from inside real boxes: past the proxy, at the host, at another box, at the forwarder."""

import asyncio
import re
import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest

from policy.effective import EffectiveLimits
from sandbox.runner import Runner
from tests.sandbox.conftest import PATIENCE, Place, limits_of
from tests.sandbox.egress_boxes import Inhabited, networked, networked_request
from tests.sandbox.egress_world import PUBLIC, World, echo, served

pytestmark = pytest.mark.gvisor


@pytest.fixture
def world() -> World:
    return World()


# Past the proxy


HOST_SERVICES = """
import socket
def reached(family, kind, address, said=b"GET / HTTP/1.0\\r\\n\\r\\n"):
    one = socket.socket(family, kind)
    one.settimeout(1)
    try:
        one.connect(address)
        one.sendall(said)
        return one.recv(100)
    except OSError:
        return None
def through(target):
    one = socket.create_connection(("127.0.0.1", 3128))
    one.settimeout(5)
    one.sendall(b"CONNECT " + target + b" HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    return one.recv(100).split()[1]
for address in ("127.0.0.1", "PUBLIC", "OWN", "169.254.169.254"):
    for port in (TCP, 80):
        print(reached(socket.AF_INET, socket.SOCK_STREAM, (address, port)))
    print(reached(socket.AF_INET, socket.SOCK_DGRAM, (address, UDP)))
print(reached(socket.AF_INET6, socket.SOCK_STREAM, ("::1", TCP)))
print(reached(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", TCP)))
for path in ("\\0ABSTRACT", "PATH", "/run/egress/../../../../PATH", "/var/run/docker.sock"):
    print(reached(socket.AF_UNIX, socket.SOCK_STREAM, path))
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).send(bytes(60))
except OSError:
    print(None)
try:
    print(through(b"127.0.0.1:TCP"), through(b"[::1]:TCP"), through(b"localhost:TCP"))
except OSError:
    print("no proxy")
"""
STATES = {
    "none": (limits_of(), "no proxy"),
    "public": (networked(), "b'403' b'403' b'403'"),
    "listed": (networked("127.0.0.1", "localhost", "::1"), "b'403' b'403' b'403'"),
    "private-too": (networked("127.0.0.1", private=True), "b'200' b'403' b'403'"),
}


def own_address() -> str:
    """An address of this host that is not its loopback; where it has none, its loopback."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        with suppress(OSError):
            asking.connect(("192.0.2.1", 9))  # nothing is sent
            return str(asking.getsockname()[0])
        return "127.0.0.1"


@pytest.mark.parametrize(("limits", "through"), STATES.values(), ids=STATES)
async def test_no_service_of_the_host_is_reached_directly_in_any_state_nor_through_the_proxy_unless_allowed(
    place: Place, tmp_path: Path, limits: EffectiveLimits, through: str
) -> None:
    abstract, path = f"tests-{tmp_path.name}", tmp_path / "service"
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    async with served(echo) as tcp, served(echo, path=f"\0{abstract}"), served(echo, path=str(path)):
        path.chmod(0o777)
        for where in (f"\0{abstract}", str(path)):  # here they are reached
            with closing(socket.socket(socket.AF_UNIX)) as one:
                one.connect(where)
        code = HOST_SERVICES
        for word, value in {
            "TCP": tcp,
            "UDP": udp.get_extra_info("sockname")[1],
            "OWN": own_address(),
            "PUBLIC": PUBLIC,
            "ABSTRACT": abstract,
            "PATH": path,
        }.items():
            code = code.replace(word, str(value))
        async with Runner(place.equipment) as runner:
            result = await runner.run(networked_request(code, limits=limits))
    udp.close()

    *direct, last = result.output.splitlines()
    assert (set(direct), len(direct), last) == ({"None"}, 19, through), result.output


SOCKET_FOLDER = """
import os, socket
def tried(action):
    try:
        return action()
    except OSError as error:
        return error.strerror
folder = "/run/egress"
print(os.listdir(folder), oct(os.stat(folder).st_mode & 0o777))
print(tried(lambda: open(folder + "/new", "w")))
print(tried(lambda: os.unlink(folder + "/proxy")), tried(lambda: os.rename(folder + "/proxy", folder + "/other")))
print(tried(lambda: os.symlink("/etc", folder + "/link")), tried(lambda: os.chmod(folder + "/proxy", 0)))
print(tried(lambda: socket.socket(socket.AF_UNIX).bind(folder + "/mine")))
print(tried(lambda: os.link(folder + "/proxy", "/tmp/proxy")))
print(tried(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect(folder + "/proxy")))
print(os.listdir(folder))
one = socket.socket(socket.AF_UNIX)
one.connect(folder + "/proxy")
one.sendall(b"CONNECT other.example:80 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
print(one.recv(20))
one = socket.socket(socket.AF_UNIX)
one.bind("/tmp/own")
one.listen()
print(tried(lambda: socket.socket(socket.AF_UNIX).connect("/tmp/own")))
"""


async def test_folder_of_the_socket_holds_nothing_else_and_takes_nothing(place: Place, world: World) -> None:
    result = await Inhabited.by(place, world).run(SOCKET_FOLDER, "web.example")

    lines = result.output.splitlines()
    assert lines[0] == "['proxy'] 0o755"
    refused = "(Read-only file system|Permission denied|Operation not permitted|Invalid cross-device link)"
    for line, count in zip(lines[1:6], (1, 2, 2, 1, 1), strict=True):
        assert re.fullmatch(" ".join([refused] * count), line), result.output
    assert lines[6] != "None"
    assert lines[7:] == ["['proxy']", "b'HTTP/1.1 403 Forbidd'", "None"]


# One box and another


SERVES = """
import socket, threading, urllib.request
listeners = []
for family, address in ((socket.AF_INET, ("0.0.0.0", 8123)), (socket.AF_UNIX, "/tmp/neighbour"),
                        (socket.AF_UNIX, "\\0neighbour")):
    one = socket.socket(family)
    one.bind(address)
    one.listen()
    listeners.append(one)
urllib.request.urlopen("http://meet.example/up").read()
for one in listeners:
    one.setblocking(False)
    try:
        print("somebody came", one.accept())
    except BlockingIOError:
        print("nobody came")
"""
VISITS = """
import socket
for family, address in ((socket.AF_INET, ("127.0.0.1", 8123)), (socket.AF_INET, ("sandbox", 8123)),
                        (socket.AF_UNIX, "/tmp/neighbour"), (socket.AF_UNIX, "\\0neighbour")):
    try:
        socket.socket(family).connect(address)
        print("in")
    except OSError:
        print("out")
for host in (b"127.0.0.1", b"sandbox"):
    one = socket.create_connection(("127.0.0.1", 3128))
    one.sendall(b"CONNECT " + host + b":8123 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(one.recv(100).split()[1].decode())
"""


async def test_one_box_never_reaches_another(place: Place, world: World) -> None:
    up, visited = asyncio.Event(), asyncio.Event()

    async def meets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        up.set()
        await visited.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    inhabited = Inhabited.by(place, world)
    async with served(meets) as door:
        world.place("meet.example", door)
        serving = asyncio.create_task(inhabited.run(SERVES))
        await asyncio.wait_for(up.wait(), 20 * PATIENCE)
        visitor = await inhabited.run(VISITS, "public", private=True)
        visited.set()
        server = await serving

    assert visitor.output.split() == ["out"] * 4 + ["502"] * 2
    assert server.output == "nobody came\n" * 3
