"""Programs in real boxes use the network unchanged: urllib, curl, pip, and whoever reads the variables."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from sandbox.outcome import Outcome
from tests.sandbox.conftest import PATIENCE, Place
from tests.sandbox.egress_boxes import Inhabited, words_of
from tests.sandbox.egress_world import PUBLIC, Authority, World, echo, served, web, web_example
from tests.sandbox.package_index import INSTALL_AND_IMPORT, offering, package_index, pip_folder

pytestmark = pytest.mark.gvisor
offered_pip = pip_folder


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"), "web.example", "index.example")


PYTHON_CLIENTS = """
import ssl, urllib.error, urllib.request
def get(url):
    try:
        with urllib.request.urlopen(url, context=trusting, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.URLError as error:
        return f"{type(error).__name__} {error}"
trusting = ssl.create_default_context(cadata=AUTHORITY)
for url in ("http://web.example/page", "https://web.example/page", "http://web.example/away", "https://other.example/",
            "http://other.example/"):
    print(get(url))
"""


async def test_urllib_reaches_what_is_permitted_and_no_redirect_leads_elsewhere(
    place: Place, world: World, authority: Authority
) -> None:
    away = ("302 Found\r\nLocation: http://169.254.169.254/latest/", b"")
    async with web_example(world, authority, web({"/page": ("200 OK", b"found"), "/away": away})):
        code = PYTHON_CLIENTS.replace("AUTHORITY", repr(authority.certificate.read_text()))
        result = await Inhabited.by(place, world).run(code, "web.example", "169.254.169.254")

    closed = "it is not public, and private destinations are closed"
    assert result.output.splitlines() == [
        "found",
        "found",
        f"HTTPError HTTP Error 403: Forbidden (sandbox: {closed})",
        "URLError <urlopen error Tunnel connection failed: 403 Forbidden (sandbox: not in the allow-list)>",
        "HTTPError HTTP Error 403: Forbidden (sandbox: not in the allow-list)",
    ]
    assert set(world.asked) == {"web.example"}
    assert "other.example:443 refused: not in the allow-list, test" in words_of(result)


CURL = """
cat > /tmp/authority.pem <<END
{authority}END
get() {{ curl --silent --show-error --max-time 10 --cacert /tmp/authority.pem "$@" 2>&1; echo " = $?"; }}
get http://web.example/page
get https://web.example/page
get --proxy socks5h://127.0.0.1:3128 https://web.example/page
get http://other.example/
get https://other.example/
get --connect-to web.example:443:web.example:443 -H "Host: inside.example" https://web.example/page
get --resolve other.example:443:{address} https://other.example/
get --noproxy "*" http://{address}/page
"""


async def test_curl_reaches_what_is_permitted_over_http_and_socks(
    place: Place, world: World, authority: Authority
) -> None:
    async with web_example(world, authority, web({"/page": ("200 OK", b"found")})):
        code = CURL.format(authority=authority.certificate.read_text(), address=PUBLIC)
        result = await Inhabited.by(place, world).run(code, "web.example", language="bash")

    assert result.output.startswith(
        "found = 0\nfound = 0\nfound = 0\nsandbox: other.example:80 refused: not in the allow-list\n"
    )
    ends = [line.partition(" = ")[2] for line in result.output.splitlines() if " = " in line]
    assert ends == ["0", "0", "0", "0", "56", "0", "56", "7"], result.output
    assert set(world.asked) == {"web.example"}


MANY = """
import selectors, socket, time
ready, opened = selectors.DefaultSelector(), []
for number in range(200):
    one = socket.create_connection(("127.0.0.1", 3128), timeout=20)
    one.sendall(b"CONNECT web.example:80 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    opened.append(one)
def upto(one, end):
    got = b""
    while not got.endswith(end):
        more = one.recv(1000)
        if not more: break
        got += more
    return got
granted = sum(b" 200 " in upto(one, b"\\r\\n\\r\\n") for one in opened)
for number, one in enumerate(opened):
    one.sendall(b"%03d." % number)
print(granted, sum(upto(one, b".") == b"%03d." % number for number, one in enumerate(opened)))
"""


async def test_200_connections_at_once_work_from_a_box(place: Place, world: World) -> None:
    async with served(echo) as door:
        world.place("web.example", door)
        result = await Inhabited.by(place, world).run(MANY)

    assert result.output == "200 200\n"
    assert words_of(result) == ["web.example:80 reached"]


EXCHANGE = """
import hashlib, socket
def tunnel(path=None):
    one = socket.create_connection(("127.0.0.1", 3128), timeout=15)
    one.sendall(b"CONNECT web.example:80 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    reader = one.makefile("rb")
    while reader.readline().strip(): pass
    return one, reader
one, reader = tunnel()
data = bytes(range(256)) * (8 << 12)
one.sendall(data)
one.shutdown(socket.SHUT_WR)
back = reader.read()
print(len(back), hashlib.sha256(back).hexdigest())
"""


async def test_big_transfer_and_half_close_come_through_the_forwarder(place: Place, world: World) -> None:
    async def reversed_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read())[::-1])

    data = (bytes(range(256)) * (8 << 12))[::-1]
    async with served(reversed_at_the_end) as door:
        world.place("web.example", door)
        result = await Inhabited.by(place, world).run(EXCHANGE, max_ram_megabytes=256)

    assert result.output.split() == [str(len(data)), hashlib.sha256(data).hexdigest()]


# pip


@pytest.mark.parametrize("allowed", ["index.example:443", "elsewhere.example"])
async def test_pip_installs_from_an_index_if_that_is_permitted(
    place: Place, world: World, authority: Authority, offered_pip: Path, allowed: str
) -> None:
    async with package_index(world, authority):
        code = INSTALL_AND_IMPORT.format(authority=authority.certificate.read_text())
        result = await Inhabited.by(offering(place, offered_pip), world).run(
            code, allowed, language="bash", max_runtime_seconds=60 * PATIENCE, max_ram_megabytes=256
        )

    if allowed == "elsewhere.example":
        assert "403 Forbidden" in result.output or "No matching distribution" in result.output
        assert (result.outcome, world.asked) == (Outcome.ERROR, [])
    else:
        assert result.output == "good day\n", result.output
        assert set(words_of(result)) == {"index.example:443 reached"}
