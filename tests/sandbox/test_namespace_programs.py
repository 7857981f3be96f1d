"""Programs in real boxes that are told of no proxy use the network unchanged: pip, curl, urllib, plain sockets."""

import hashlib
from pathlib import Path

import pytest

from sandbox.outcome import Outcome
from tests.sandbox.conftest import PATIENCE, Place
from tests.sandbox.egress_boxes import in_namespaces, words_of
from tests.sandbox.egress_world import OTHER_PUBLIC, PUBLIC, Authority, World, echo, served, web, web_example
from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE
from tests.sandbox.namespaces import needs_namespaces
from tests.sandbox.package_index import INSTALL_AND_IMPORT, offering, package_index, pip_folder

pytestmark = [pytest.mark.gvisor, needs_namespaces]
offered_pip = pip_folder


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"), "web.example", "index.example")


PYTHON_CLIENTS = """
import os, ssl, urllib.error, urllib.request
print([name for name in os.environ if "proxy" in name.lower()])
trusting = ssl.create_default_context(cadata=AUTHORITY)
for url in ("http://web.example/page", "https://web.example/page", "http://web.example/away", "https://other.example/",
            "http://ADDRESS/page", "http://169.254.169.254/latest/"):
    try:
        with urllib.request.urlopen(url, context=trusting, timeout=10) as answer:
            print(answer.read().decode())
    except urllib.error.URLError as error:
        print(type(error.reason).__name__)
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("suite", GVISOR_OF_SUITE)
async def test_urllib_reaches_what_is_permitted_with_no_proxy_variable(
    place: Place, world: World, authority: Authority, suite: str
) -> None:
    away = ("302 Found\r\nLocation: http://169.254.169.254/latest/", b"")
    async with web_example(world, authority, web({"/page": ("200 OK", b"found"), "/away": away})):
        code = PYTHON_CLIENTS.replace("AUTHORITY", repr(authority.certificate.read_text()))
        code = code.replace("ADDRESS", OTHER_PUBLIC)
        result = await in_namespaces(place, world, suite).run(code, "web.example", "169.254.169.254")

    assert result.output.splitlines() == [
        *("[]", "found", "found"),
        *("ConnectionResetError", "gaierror", "ConnectionResetError", "ConnectionResetError"),
    ]
    assert set(world.asked) == {"web.example"}
    assert {address for address, _ in world.reached} == {PUBLIC}
    assert "other.example refused: not in the allow-list, test" in words_of(result)


CURL = """
cat > /tmp/authority.pem <<END
{authority}END
env | grep -i proxy
get() {{ curl --silent --max-time 10 --cacert /tmp/authority.pem "$@" 2>&1; echo " = $?"; }}
get http://web.example/page
get https://web.example/page
get http://other.example/
get https://other.example/
get http://{other}/page
get --resolve other.example:443:{address} https://other.example/
get http://169.254.169.254/latest/meta-data/
get http://2852039166/latest/meta-data/
get http://0xa9fea9fe/
get "http://[::ffff:169.254.169.254]/"
get http://localhost:22/
"""
_UNRESOLVED, _NO_CONNECTION, _TLS_FAILED = "6", "7", "35"
_RESET = {"52", "55", "56"}
"""Told before anything was sent, while it was, or after."""


async def test_curl_reaches_what_is_permitted_with_no_proxy_variable(
    place: Place, world: World, authority: Authority
) -> None:
    async with web_example(world, authority, web({"/page": ("200 OK", b"found")})):
        code = CURL.format(authority=authority.certificate.read_text(), address=PUBLIC, other=OTHER_PUBLIC)
        result = await in_namespaces(place, world).run(code, "web.example", language="bash")

    assert result.output.startswith("found = 0\nfound = 0\n"), result.output
    ends = [line.partition(" = ")[2] for line in result.output.splitlines()]
    assert ends[2:4] == [_UNRESOLVED] * 2
    assert {*ends[4:]} <= {*_RESET, _TLS_FAILED, _NO_CONNECTION}, result.output
    assert len(ends) == 11
    assert set(world.asked) == {"web.example"}
    assert set(world.reached) == {(PUBLIC, 80), (PUBLIC, 443)}


MANY = """
import socket
opened = [socket.create_connection(("web.example", 80), timeout=20) for _ in range(200)]
for number, one in enumerate(opened):
    one.sendall(b"%03d." % number)
print(sum(one.makefile("rb").read(4) == b"%03d." % number for number, one in enumerate(opened)))
"""


@pytest.mark.parametrize("suite", GVISOR_OF_SUITE)
async def test_200_connections_at_once_work_from_a_box(place: Place, world: World, suite: str) -> None:
    async with served(echo) as door:
        world.place("web.example", door)
        result = await in_namespaces(place, world, suite).run(MANY)

    assert result.output == "200\n"
    assert words_of(result) == ["web.example:80 reached"]


EXCHANGE = """
import hashlib, socket, threading
one = socket.create_connection(("web.example", 80), timeout=15)
data = bytes(range(256)) * (8 << 12)
def send():
    one.sendall(data)
    one.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
back = one.makefile("rb").read()
print(len(back), hashlib.sha256(back).hexdigest())
"""


async def test_big_transfer_and_half_close_come_through(place: Place, world: World) -> None:
    data = bytes(range(256)) * (8 << 12)
    async with served(echo) as door:
        world.place("web.example", door)
        result = await in_namespaces(place, world).run(EXCHANGE, max_ram_megabytes=256)

    assert result.output.split() == [str(len(data)), hashlib.sha256(data).hexdigest()]


@pytest.mark.parametrize("allowed", ["index.example:443", "index.example:80", "elsewhere.example"])
async def test_pip_installs_from_an_index_with_no_proxy_variable_if_that_is_permitted(
    place: Place, world: World, authority: Authority, offered_pip: Path, allowed: str
) -> None:
    install = INSTALL_AND_IMPORT.format(authority=authority.certificate.read_text())
    async with package_index(world, authority):
        result = await in_namespaces(offering(place, offered_pip), world).run(
            f"env | grep -i proxy\n{install}",
            allowed,
            language="bash",
            max_runtime_seconds=60 * PATIENCE,
            max_ram_megabytes=256,
        )

    if allowed == "index.example:443":
        assert result.output == "good day\n", result.output
        assert words_of(result) == ["index.example:443 reached"]
    else:
        assert result.outcome is Outcome.ERROR
        assert (world.reached, "good day" in result.output) == ([], False)
