"""What a way out costs: runs that have one beside runs that have none, and a large download beside a direct one."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from policy.destinations import parse_destination
from policy.values import UNLIMITED
from sandbox.equipment import Equipment
from sandbox.errors import UnenforceableError
from sandbox.network_namespace import NetworkNamespace
from sandbox.runner import Runner
from sandbox.spec import NetworkMode
from tests.bench.latency import hit_seconds, new_pool, request_for_bench, timed_run
from tests.bench.measuring import Row, Skip, Whose, against, counted, sample_of
from tests.bench.place import BenchPlace

COLD_TURNS = 20
HIT_TURNS = 40
HIT_ROUNDS = 2
DOWNLOADS = 4
DOWNLOAD_BYTES = 100 << 20
_WITH_NETWORK: dict[str, Any] = {"networking_allowed": True}
_SERVER = f"""
import http.server, sys

class Download(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "{DOWNLOAD_BYTES}")
        self.end_headers()
        for _ in range({DOWNLOAD_BYTES >> 20}):
            self.wfile.write(bytes(1 << 20))

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Download)
print(server.server_port, flush=True)
server.serve_forever()
"""
_GET = """
import os, time, urllib.request
os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""  # the server is on what programs take for their own loopback
opener = urllib.request.build_opener(urllib.request.ProxyHandler({proxies}))
begun, size = time.perf_counter(), 0
with opener.open("http://127.0.0.1:{port}/") as answer:
    while data := answer.read(1 << 18):
        size += len(data)
print(size, time.perf_counter() - begun)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What code may reach, and by which way."""

    words: str
    """For people."""
    limits: Mapping[str, Any]
    """Limits that differ from those of other benches, which permit no network."""
    way: NetworkMode = NetworkMode.PROXY
    """How it gets there."""


_LISTED = frozenset(parse_destination(text) for text in ("pypi.org:443", "*.pythonhosted.org:443", "192.88.99.0/24"))
_STATES = (
    State(words="without network", limits={}),
    State(words="allow-list, by proxy", limits={**_WITH_NETWORK, "network_allowlist": _LISTED}),
    State(words="public, by proxy", limits=_WITH_NETWORK),
    State(words="public, by namespace", limits=_WITH_NETWORK, way=NetworkMode.NAMESPACE),
)


async def egress_rows(place: BenchPlace) -> list[Row | Skip]:
    """Cold runs, hits and a download."""
    states: Sequence[State] = _STATES
    skips: list[Skip] = []
    try:
        (await NetworkNamespace.made()).close()
    except UnenforceableError as error:
        states, skips = _STATES[:-1], [Skip(what=_STATES[-1].words, reason=error.reason)]
    return [*await _cold_rows(place, states), *await _hit_rows(place, states), *await _download_rows(place), *skips]


async def _cold_rows(place: BenchPlace, states: Sequence[State]) -> list[Row]:
    taken: dict[str, list[float]] = {state.words: [] for state in states}
    runners = {state.words: Runner(_equipment(place, state)) for state in states}
    for _ in counted("Cold runs in each state of the network", COLD_TURNS):
        for state in states:
            seconds, _result = await timed_run(runners[state.words], request_for_bench(**state.limits))
            taken[state.words].append(seconds)
            await runners[state.words].close()
    return _beside_the_first("cold run", taken)


async def _hit_rows(place: BenchPlace, states: Sequence[State]) -> list[Row]:
    taken: dict[str, list[float]] = {state.words: [] for state in states}
    for _ in range(HIT_ROUNDS):
        for state in states:
            pool = new_pool(place, size=1)
            async with Runner(_equipment(place, state), pool=pool) as runner:
                await runner.run(request_for_bench(**state.limits))
                for _ in counted(f"Pool hits, {state.words}", HIT_TURNS // HIT_ROUNDS):
                    taken[state.words].append(await hit_seconds(place, runner, pool, **state.limits))
    return _beside_the_first("pool hit", taken)


def _equipment(place: BenchPlace, state: State) -> Equipment:
    return replace(place.equipment, network_way=state.way)


async def _download_rows(place: BenchPlace) -> list[Row]:
    direct: list[float] = []
    through: list[float] = []
    with _server() as port:
        request = request_for_bench(
            _GET.format(port=port, proxies="{'http': 'http://127.0.0.1:3128'}"),
            **_WITH_NETWORK,
            network_private_allowed=True,
            network_allowlist=frozenset({parse_destination(f"127.0.0.1:{port}")}),
            max_runtime_seconds=UNLIMITED,
        )
        async with Runner(place.equipment) as runner:
            for _ in counted("Downloads of 100 MB", DOWNLOADS):
                through.append(_told_seconds((await runner.run(request)).output))
                said = await asyncio.to_thread(_direct_download, port)
                direct.append(_told_seconds(said))
    reference = Row(what="100 MB on the host, direct", sample=sample_of(direct), whose=Whose.REFERENCE)
    return [reference, against(Row(what="100 MB in a box, through the proxy", sample=sample_of(through)), reference)]


def _beside_the_first(what: str, taken: Mapping[str, list[float]]) -> list[Row]:
    reference, *others = (Row(what=f"{what}, {words}", sample=sample_of(seconds)) for words, seconds in taken.items())
    return [reference, *(against(row, reference) for row in others)]


@contextmanager
def _server() -> Iterator[int]:
    """Serve downloads from a process of its own."""
    with subprocess.Popen([sys.executable, "-I", "-c", _SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline()) if process.stdout else 0
            _wait_for(port)
            yield port
        finally:
            process.kill()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _direct_download(port: int) -> str:
    code = _GET.format(port=port, proxies="{}")
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout


def _told_seconds(said: str) -> float:
    size, seconds = said.split()
    if int(size) != DOWNLOAD_BYTES:
        raise RuntimeError(f"{size} bytes came of {DOWNLOAD_BYTES}")
    return float(seconds)
