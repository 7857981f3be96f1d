"""Whoever sits in the network namespace of a box, without a box: programs started there, sockets made there."""

import asyncio
import ctypes
import os
import shutil
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import pytest

from sandbox.egress_network import EgressNetwork
from sandbox.egress_proxy import EgressBounds
from sandbox.network_namespace import NetworkNamespace
from sandbox.transparent_egress import TransparentEgress
from tests.sandbox.conftest import eventually
from tests.sandbox.egress_client import rules_of
from tests.sandbox.egress_world import open_descriptors

R = TypeVar("R")
_NEW_NETWORK = 0x40000000

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin") is None,
    reason="network namespaces need root and nft",
)


async def inside(namespace: NetworkNamespace, work: Callable[[], R]) -> R:
    """Do something that may block in a thread that is in a namespace, and tell what came of it."""
    done: list[R | BaseException] = []

    def enter() -> None:
        assert ctypes.CDLL(None).setns(namespace.descriptor, _NEW_NETWORK) == 0
        try:
            done.append(work())
        except OSError as error:
            done.append(error)

    def entered() -> None:
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()

    await asyncio.to_thread(entered)
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Insider:
    """Code in a box."""

    egress: TransparentEgress

    async def talk(self, address: str, port: int, said: bytes = b"", *, end: bool = False) -> bytes:
        """Connect, say something, and tell all that comes back."""

        def talked() -> bytes:
            with socket.create_connection((address, port), timeout=10) as connection:
                connection.sendall(said)
                if end:
                    connection.shutdown(socket.SHUT_WR)
                with connection.makefile("rb") as answer:
                    return answer.read()

        return await inside(self.egress.namespace, talked)

    async def datagram(self, address: str, port: int, said: bytes, *, within: float = 5.0) -> bytes:
        """Send a datagram, and tell what comes back."""

        def sent() -> bytes:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sending:
                sending.settimeout(within)
                sending.connect((address, port))
                sending.send(said)
                return sending.recv(4096)

        return await inside(self.egress.namespace, sent)

    async def output(self, code: str) -> str:
        """What Python code prints there, whose libraries know of no proxy."""
        command = (sys.executable, "-I", "-S", "-c", code)
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net={self.egress.namespace.path}", *command, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        return said.decode()

    @property
    def words(self) -> list[str]:
        """What the account tells of each destination."""
        return [decision.words for decision in self.egress.account.summary.decisions]


@asynccontextmanager
async def boxed_in(
    network: EgressNetwork,
    *allowed: str,
    private: bool = False,
    bounds: EgressBounds | None = None,
    opened: bool = True,
) -> AsyncIterator[Insider]:
    """Code in a namespace of its own; at its end nothing of that is left."""
    before, tasks = open_descriptors(), asyncio.all_tasks()
    egress = await TransparentEgress.listening(network, bounds)
    if opened:
        egress.open(rules_of(*allowed, private=private))
    try:
        yield Insider(egress=egress)
    finally:
        await egress.close()
    await eventually(lambda: asyncio.all_tasks() <= tasks)
    await eventually(lambda: open_descriptors() <= before)
