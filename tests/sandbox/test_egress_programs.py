"""Programs in real boxes use the network unchanged: urllib, curl, pip, and whoever reads the variables."""

import asyncio
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.outcome import Outcome
from sandbox.packages import found_packages
from sandbox.tree_plan import Interpreter
from tests.sandbox.conftest import PATIENCE, Place
from tests.sandbox.egress_boxes import Inhabited, words_of
from tests.sandbox.egress_world import PUBLIC, Authority, Served, World, echo, served, web

pytestmark = pytest.mark.gvisor


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"), "web.example", "index.example")


@asynccontextmanager
async def sites(world: World, authority: Authority, respond: Served) -> AsyncIterator[None]:
    """One server for both ports of `web.example`, and of `other.example`."""
    async with AsyncExitStack() as stack:
        for port, tls in ((80, None), (443, authority.for_server)):
            world.place("web.example", await stack.enter_async_context(served(respond, tls=tls)), port=port)
        world.names["other.example"] = [(PUBLIC,)]
        yield


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
    async with sites(world, authority, web({"/page": ("200 OK", b"found"), "/away": away})):
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
    async with sites(world, authority, web({"/page": ("200 OK", b"found")})):
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


WHEEL_NAME = "greeting-1.0-py3-none-any.whl"


def wheel() -> bytes:
    """A package of one module, as an index has it."""
    files = {
        "greeting.py": "WORDS = 'good day'\n",
        "greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        "greeting-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "greeting-1.0.dist-info/RECORD": "greeting.py,,\n",
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


@pytest.fixture(scope="module")
def pip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pip, as a folder of packages that an administrator offers."""
    found = importlib.util.find_spec("ensurepip._bundled")
    bundled = (
        [path for place in (found.submodule_search_locations or ()) for path in Path(place).glob("pip-*.whl")]
        if found
        else []
    )
    if not bundled:
        pytest.skip("this Python comes without pip")
    folder = tmp_path_factory.mktemp("offered") / "packages"
    with zipfile.ZipFile(bundled[0]) as archive:
        archive.extractall(folder)
    folder.chmod(0o755)
    return folder


PIP = """
cat > /tmp/authority.pem <<END
{authority}END
python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --cert /tmp/authority.pem \
    --retries 0 --index-url https://{index}/simple/ --target /tmp/installed greeting 2>&1 | tail -n 1
PYTHONPATH=/tmp/installed python3 -c 'import greeting; print(greeting.WORDS)'
"""


@pytest.mark.parametrize("allowed", ["index.example:443", "elsewhere.example"])
async def test_pip_installs_from_an_index_if_that_is_permitted(
    place: Place, world: World, authority: Authority, pip_folder: Path, allowed: str
) -> None:
    data = wheel()
    link = f'<a href="/files/{WHEEL_NAME}#sha256={hashlib.sha256(data).hexdigest()}">{WHEEL_NAME}</a>'
    listing = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
    pages = {
        "/simple/greeting/": ("200 OK\r\nContent-Type: text/html", listing),
        f"/files/{WHEEL_NAME}": ("200 OK", data),
    }
    offered = found_packages(pip_folder, Interpreter.current().library_name)
    offering = Place(equipment=replace(place.equipment, packages=offered))
    async with served(web(pages), tls=authority.for_server) as door:
        world.place("index.example", door, port=443)
        code = PIP.format(authority=authority.certificate.read_text(), index="index.example")
        result = await Inhabited.by(offering, world).run(
            code, allowed, language="bash", max_runtime_seconds=60 * PATIENCE, max_ram_megabytes=256
        )

    if allowed == "elsewhere.example":
        assert "403 Forbidden" in result.output or "No matching distribution" in result.output
        assert (result.outcome, world.asked) == (Outcome.ERROR, [])
    else:
        assert result.output == "good day\n", result.output
        assert set(words_of(result)) == {"index.example:443 reached"}
