"""More programs use the network unchanged: requests in real boxes; git, npm, node and wget as programs of this host.

Boxes hold none of the latter. They run beside the boxes' own forwarder, with the boxes' own variables and no others, in
a network where nothing else is.
"""

import importlib.util
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.packages import found_packages
from sandbox.tree_plan import Interpreter
from tests.sandbox.conftest import Place
from tests.sandbox.egress_boxes import Inhabited, words_of
from tests.sandbox.egress_world import PUBLIC, Authority, Served, World, served, web
from tests.sandbox.program_sites import (
    forwarded,
    git_site,
    installed_node,
    make_repository,
    needs,
    needs_own_network,
    registry_pages,
)

pytestmark = pytest.mark.timeout(600)  # the first test that needs Node waits for it to be installed
METADATA = "169.254.169.254"
AWAY = (f"302 Found\r\nLocation: http://{METADATA}/latest/", b"")
NOT_LISTED = "refused: not in the allow-list"
SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])
PORTS = {"http": 80, "https": 443}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    names = ("web.example", "git.example", "registry.example")
    return Authority.made(tmp_path_factory.mktemp("authority"), *names)


@asynccontextmanager
async def site(world: World, authority: Authority, name: str, respond: Served) -> AsyncIterator[None]:
    """A server at both ports of a name."""
    async with AsyncExitStack() as stack:
        for port, tls in ((80, None), (443, authority.for_server)):
            world.place(name, await stack.enter_async_context(served(respond, tls=tls)), port=port)
        yield


# requests, in real boxes


@pytest.fixture(scope="module")
def requests_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """requests and what it needs, as a folder of packages that an administrator offers; all of it pure Python."""
    folder = tmp_path_factory.mktemp("offered") / "packages"
    folder.mkdir()
    for name in ("requests", "urllib3", "idna", "certifi", "charset_normalizer"):
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            pytest.skip(f"{name} is not installed")
        compiled = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(Path(found.origin).parent, folder / name, ignore=compiled)
    folder.chmod(0o755)
    return folder


REQUESTS = """
import requests
with open("/tmp/authority.pem", "w") as file:
    file.write(AUTHORITY)
session = requests.Session()
session.verify = "/tmp/authority.pem"
for url in ("http://web.example/page", "https://web.example/page", "http://web.example/away", "https://web.example/away",
            "http://other.example/", "https://other.example/"):
    try:
        answer = session.get(url, timeout=10)
        print(answer.status_code, answer.text.strip())
    except requests.RequestException as error:
        print(type(error).__name__, error)
"""


@pytest.mark.gvisor
async def test_session_of_requests_asks_again_and_again_whatever_the_server_says_of_the_connection(
    place: Place, world: World, authority: Authority, requests_folder: Path
) -> None:
    offered = found_packages(requests_folder, Interpreter.current().library_name)
    offering = Place(equipment=replace(place.equipment, packages=offered))
    code = "import requests; s = requests.Session(); print([s.get('http://web.example/page').text for _ in range(3)])"
    async with site(world, authority, "web.example", web({"/page": ("200 OK", b"found")}, closing="")):
        result = await Inhabited.by(offering, world).run(code, "web.example", max_ram_megabytes=256)

    assert result.output == "['found', 'found', 'found']\n"


@pytest.mark.gvisor
async def test_requests_reaches_what_is_permitted_and_reads_why_all_else_is_refused(
    place: Place, world: World, authority: Authority, requests_folder: Path
) -> None:
    offered = found_packages(requests_folder, Interpreter.current().library_name)
    offering = Place(equipment=replace(place.equipment, packages=offered))
    code = REQUESTS.replace("AUTHORITY", repr(authority.certificate.read_text()))
    async with site(world, authority, "web.example", web({"/page": ("200 OK", b"found"), "/away": AWAY})):
        result = await Inhabited.by(offering, world).run(code, "web.example", METADATA, max_ram_megabytes=256)

    *said, tunnel = result.output.splitlines()
    closed = f"{METADATA}:80 refused: it is not public, and private destinations are closed"
    assert said[:2] == ["200 found"] * 2, result.output
    assert [one.startswith(f"403 sandbox: {closed}") for one in said[2:4]] == [True, True]
    assert said[4:] == [f"403 sandbox: other.example:80 {NOT_LISTED}"]
    assert tunnel.startswith("ProxyError ")
    assert "Tunnel connection failed: 403 Forbidden (sandbox: not in the allow-list)" in tunnel
    assert set(world.asked) == {"web.example"}
    assert f"other.example:443 {NOT_LISTED}, test" in words_of(result)


# git


@SCHEMES
@needs_own_network
@needs("git")
async def test_git_clones_and_pushes_if_that_is_permitted(
    tmp_path: Path, world: World, authority: Authority, scheme: str
) -> None:
    git = ("git", "-c", f"http.sslCAInfo={authority.certificate}")
    make_repository(tmp_path)
    async with (
        site(world, authority, "git.example", git_site(tmp_path)),
        forwarded(tmp_path, world, "git.example") as programs,
    ):
        cloned = await programs.run(*git, "clone", f"{scheme}://git.example/greeting.git")
        told = await programs.run("git", "-C", "greeting", "log", "--format=%s")
        pushed = await programs.run(*git, "-C", "greeting", "push", "origin", "main:copy")

    assert (cloned.exit_code, told.said) == (0, "good day\n"), cloned.said
    assert (pushed.exit_code, "main -> copy" in pushed.said) == (0, True), pushed.said
    assert programs.words == {f"git.example:{PORTS[scheme]} reached"}


@needs_own_network
@needs("git")
async def test_git_that_is_refused_says_so_at_once(tmp_path: Path, world: World) -> None:
    async with forwarded(tmp_path, world, "elsewhere.example") as programs:
        plain = await programs.run("git", "clone", "http://git.example/greeting.git")
        secure = await programs.run("git", "clone", "https://git.example/greeting.git")

    assert (plain.exit_code, secure.exit_code) == (128, 128)
    assert f"remote: sandbox: git.example:80 {NOT_LISTED}" in plain.said
    assert re.search(r"unable to access 'https://git\.example/.* 403", secure.said), secure.said
    assert (world.asked, world.reached) == ([], [])


# npm and node


@pytest.fixture(scope="session")
def node() -> Path:
    """Its program."""
    return installed_node() / "bin" / "node"


@pytest.fixture(scope="session")
def npm_install(node: Path) -> tuple[str, ...]:
    """The command, which asks the registry for packages and nothing else."""
    npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return (str(node), str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund")


@SCHEMES
@needs_own_network
async def test_npm_installs_from_a_registry_if_that_is_permitted(
    tmp_path: Path, world: World, authority: Authority, node: Path, npm_install: tuple[str, ...], scheme: str
) -> None:
    registry = f"{scheme}://registry.example"
    where = ("--registry", registry, "--cafile", str(authority.certificate))
    async with (
        site(world, authority, "registry.example", web(registry_pages(registry))),
        forwarded(tmp_path, world, f"registry.example:{PORTS[scheme]}") as programs,
    ):
        installed = await programs.run(*npm_install, *where, "greeting")
        used = await programs.run(str(node), "--print", "require('greeting')")

    assert (installed.exit_code, used.said) == (0, "good day\n"), installed.said
    assert programs.words == {f"registry.example:{PORTS[scheme]} reached"}


@SCHEMES
@needs_own_network
async def test_npm_that_is_refused_says_so_at_once(
    tmp_path: Path, world: World, npm_install: tuple[str, ...], scheme: str
) -> None:
    registry = f"{scheme}://registry.example"
    async with forwarded(tmp_path, world, "elsewhere.example") as programs:
        refused = await programs.run(*npm_install, "--registry", registry, "greeting")

    assert refused.exit_code == 1
    assert re.search(rf"403 403 Forbidden.* - GET {registry}/greeting", refused.said), refused.said
    assert (world.asked, world.reached) == ([], [])
    assert programs.words == {f"registry.example:{PORTS[scheme]} {NOT_LISTED}, test"}


@needs_own_network
async def test_npm_fetches_no_archive_that_a_registry_says_is_at_a_private_address(
    tmp_path: Path, world: World, authority: Authority, npm_install: tuple[str, ...]
) -> None:
    pages = registry_pages("http://registry.example", archives=f"http://{METADATA}")
    async with (
        site(world, authority, "registry.example", web(pages)),
        forwarded(tmp_path, world, "registry.example", METADATA) as programs,
    ):
        refused = await programs.run(*npm_install, "--registry", "http://registry.example", "greeting")

    assert (refused.exit_code, f"GET http://{METADATA}/" in refused.said) == (1, True), refused.said
    assert {address for address, _ in world.reached} == {PUBLIC}


FETCHES = """
const fetched = url => fetch(url).then(answer => answer.text(), error => `${error.cause}`)
for (const url of ["https://web.example/page", "http://web.example/page", "https://other.example/"])
    console.log(await fetched(url))
"""


@needs_own_network
async def test_fetch_of_node_reaches_what_is_permitted(
    tmp_path: Path, world: World, authority: Authority, node: Path
) -> None:
    async with (
        site(world, authority, "web.example", web({"/page": ("200 OK", b"found")})),
        forwarded(tmp_path, world, "web.example") as programs,
    ):
        trusting = ("env", f"NODE_EXTRA_CA_CERTS={authority.certificate}")
        ended = await programs.run(*trusting, str(node), "--input-type=module", "--eval", FETCHES)

    assert ended.said.splitlines()[:2] == ["found", "found"], ended.said
    assert "Error" in ended.said.splitlines()[2]
    assert set(world.asked) == {"web.example"}
    assert f"other.example:443 {NOT_LISTED}, test" in programs.words


# wget


@SCHEMES
@needs_own_network
@needs("wget")
async def test_wget_fetches_if_that_is_permitted(
    tmp_path: Path, world: World, authority: Authority, scheme: str
) -> None:
    wget = ("wget", "--quiet", "--tries=1", f"--ca-certificate={authority.certificate}", "--output-document=-")
    async with (
        site(world, authority, "web.example", web({"/page": ("200 OK", b"found")})),
        forwarded(tmp_path, world, "web.example") as programs,
    ):
        ended = await programs.run(*wget, f"{scheme}://web.example/page")

    assert (ended.exit_code, ended.said) == (0, "found")
    assert programs.words == {f"web.example:{PORTS[scheme]} reached"}


@needs_own_network
@needs("wget")
async def test_wget_that_is_refused_says_so_at_once(tmp_path: Path, world: World) -> None:
    async with forwarded(tmp_path, world, "elsewhere.example") as programs:
        plain = await programs.run("wget", "--content-on-error", "--output-document=-", "http://web.example/")
        secure = await programs.run("wget", "--output-document=-", "https://web.example/")

    assert (plain.exit_code, secure.exit_code) == (8, 4)
    assert f"sandbox: web.example:80 {NOT_LISTED}" in plain.said
    assert "Proxy tunneling failed: Forbidden" in secure.said
    assert (world.asked, world.reached) == ([], [])


# Where no program gets


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("git", "clone", "http://web.example/away"), marks=needs("git"), id="git"),
        pytest.param(("wget", "http://web.example/away"), marks=needs("wget"), id="wget"),
        pytest.param(("curl", "--fail", "--location", "http://web.example/away"), marks=needs("curl"), id="curl"),
    ],
)
@needs_own_network
async def test_no_redirect_leads_a_program_to_a_private_address(
    tmp_path: Path, world: World, authority: Authority, command: tuple[str, ...]
) -> None:
    pages = {"/away": AWAY, "/away/info/refs?service=git-upload-pack": AWAY}
    async with (
        site(world, authority, "web.example", web(pages)),
        forwarded(tmp_path, world, "web.example", METADATA) as programs,
    ):
        ended = await programs.run(*command)

    assert (ended.exit_code != 0, "403" in ended.said) == (True, True), ended.said
    assert {address for address, _ in world.reached} == {PUBLIC}
    assert any(one.startswith(f"{METADATA}:80 refused: ") for one in programs.words)


PAST_THE_PROXY = """
import socket, sys
for where in (("127.0.0.1", int(sys.argv[1])), (sys.argv[2], 80), ("web.example", 80)):
    try:
        print(socket.create_connection(where, timeout=5))
    except OSError as error:
        print("closed")
"""


@needs_own_network
async def test_program_that_ignores_the_proxy_reaches_nothing(tmp_path: Path, world: World) -> None:
    async with (
        served(web({"/": ("200 OK", b"found")})) as door,
        forwarded(tmp_path, world) as programs,
    ):
        world.place("web.example", door)
        ended = await programs.run(sys.executable, "-I", "-S", "-c", PAST_THE_PROXY, str(door), PUBLIC)

    assert ended.said.split() == ["closed"] * 3
    assert (world.asked, world.reached) == ([], [])
