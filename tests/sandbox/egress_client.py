"""A client of the egress proxy as code in a box is one, without a box: over the proxy's own socket."""

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

import pytest
import uvloop

from policy.egress_rules import EgressRules
from sandbox.egress_network import EgressNetwork
from sandbox.egress_proxy import EgressBounds, EgressProxy
from tests.policy.factories import destinations
from tests.sandbox.conftest import PATIENCE, eventually, limits_of
from tests.sandbox.egress_world import Streams, echo, gone, open_descriptors, served

LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]
"""The event loops that Open WebUI may run on."""
P = ParamSpec("P")
_LONGEST_SECONDS = 30 * PATIENCE


def on_both_loops(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test of coroutines on each event loop that Open WebUI may run on."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], *given: P.args, **named: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(test(*given, **named), _LONGEST_SECONDS))

    factory = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = inspect.Signature([factory, *inspect.signature(test).parameters.values()])
    functools.update_wrapper(run, test).__dict__["__signature__"] = wanted  # where pytest looks for fixtures
    return pytest.mark.parametrize("loop_factory", LOOPS)(run)


def rules_of(*allowed: str, private: bool = False) -> EgressRules:
    return EgressRules.of_limits(
        limits_of(
            networking_allowed=True,
            network_allowlist=destinations(*allowed or ("public",)),
            network_private_allowed=private,
        )
    )


@dataclass(slots=True)
class Client:
    """Whoever sits in the box."""

    proxy: EgressProxy
    socket: Path
    opened: list[asyncio.StreamWriter] = field(default_factory=list)

    async def dialled(self, said: bytes = b"") -> Streams:
        """A new connection to the proxy, with something said already."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        self.opened.append(writer)
        writer.write(said)
        return reader, writer

    async def answer(self, said: bytes) -> bytes:
        """All that comes back."""
        reader, writer = await self.dialled(said)
        answer = await reader.read()
        writer.close()
        return answer

    async def tunnel(self, where: str) -> Streams:
        """A tunnel that is granted."""
        reader, writer = await self.dialled(connecting(where))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head, head + await reader.read()
        return reader, writer

    async def tunnel_status(self, where: str) -> int:
        """What asking for a tunnel comes to, which is not used."""
        reader, writer = await self.dialled(connecting(where))
        status = int((await reader.readline()).split()[1])
        writer.close()
        return status

    async def status(self, url: str, method: str = "GET") -> int:
        """What a plain request comes to."""
        return int((await self.answer(plain(url, method=method))).split()[1])

    @property
    def words(self) -> list[str]:
        """What the account tells of each destination."""
        return [decision.words for decision in self.proxy.account.summary.decisions]


def connecting(where: str) -> bytes:
    return f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()


def plain(url: str, *, method: str = "GET", host: str = "stated.example", more: str = "", body: bytes = b"") -> bytes:
    return f"{method} {url} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode() + body


@asynccontextmanager
async def proxied(
    folder: Path,
    network: EgressNetwork,
    *allowed: str,
    private: bool = False,
    bounds: EgressBounds | None = None,
    opened: bool = True,
) -> AsyncIterator[Client]:
    """A client of a proxy; at its end nothing of either is left, and no task has failed unseen."""
    loop, complaints = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    async with served(echo):
        """What an event loop opens once, it has opened by now."""
    before, tasks = open_descriptors(), asyncio.all_tasks()
    proxy = await EgressProxy(network, bounds).listen(folder / "egress")
    client = Client(proxy=proxy, socket=folder / "egress" / "proxy")
    if opened:
        proxy.open(rules_of(*allowed, private=private))
    try:
        yield client
    finally:
        await proxy.close()
        await gone(*client.opened)
    await eventually(lambda: asyncio.all_tasks() <= tasks)
    await eventually(lambda: open_descriptors() <= before)
    del proxy, client
    gc.collect()
    assert not complaints, str(complaints)
