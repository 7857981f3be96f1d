"""What a way out costs: runs that have one beside runs that have none, and a large download beside a direct one."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from policy.destinations import parse_destination
from policy.values import UNLIMITED
from sandbox.runner import Runner
from tests.bench.latency import hit_seconds, new_pool, request_for_bench, timed_run
from tests.bench.measuring import Row, Whose, against, counted, sample_of
from tests.bench.place import BenchPlace

COLD_TURNS = 20
HIT_TURNS = 40
DOWNLOADS = 4
DOWNLOAD_BYTES = 100 << 20
_WITH_NETWORK: dict[str, Any] = {"networking_allowed": True}
_WITHOUT: dict[str, Any] = {}
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


async def egress_rows(place: BenchPlace) -> list[Row]:
    """Cold runs, hits and a download."""
    return [*await _cold_rows(place), *await _hit_rows(place), *await _download_rows(place)]


async def _cold_rows(place: BenchPlace) -> list[Row]:
    without: list[float] = []
    with_network: list[float] = []
    async with Runner(place.equipment) as runner:
        for _ in counted("Cold runs with a network", COLD_TURNS):
            for taken, values in ((without, _WITHOUT), (with_network, _WITH_NETWORK)):
                seconds, _result = await timed_run(runner, request_for_bench(**values))
                taken.append(seconds)
                await runner.close()
    return _pair("cold run", without, with_network)


async def _hit_rows(place: BenchPlace) -> list[Row]:
    without: list[float] = []
    with_network: list[float] = []
    for _ in range(2):
        for taken, values in ((without, _WITHOUT), (with_network, _WITH_NETWORK)):
            pool = new_pool(place, size=1)
            async with Runner(place.equipment, pool=pool) as runner:
                await runner.run(request_for_bench(**values))
                for _ in counted("Pool hits with a network" if values else "Pool hits without", HIT_TURNS // 2):
                    taken.append(await hit_seconds(place, runner, pool, **values))
    return _pair("pool hit", without, with_network)


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


def _pair(what: str, without: list[float], with_network: list[float]) -> list[Row]:
    reference = Row(what=f"{what} without network", sample=sample_of(without))
    return [reference, against(Row(what=f"{what} with a way out", sample=sample_of(with_network)), reference)]


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
