"""A process of its own that runs boxes until it is done, or killed: orders come in, pickled; results go out as lines.

For tests of what a killed caller leaves behind, and of neighbours on one host.
"""

import asyncio
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from policy.effective import fixed_limits
from policy.values import UNLIMITED
from sandbox.equipment import Equipment
from sandbox.errors import SandboxError
from sandbox.pool import Pool
from sandbox.request import RunRequest
from sandbox.runner import Runner

CALLER_COMMAND = (sys.executable, "-c", "from tests.sandbox.caller import main; main()")
UP = b"up\n"
"""Its first line: it has its orders, and has started nothing yet."""
_VALUES = {"networking_allowed": False, "max_runtime_seconds": 60, "max_instance_runs": UNLIMITED}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerOrders:
    """What such a process is to do."""

    equipment: Equipment
    """With what."""
    codes: tuple[str, ...]
    """Python code, one after the other."""
    pool_size: int = 0
    """How many boxes wait; 0 is no pool."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of limits."""


@asynccontextmanager
async def called(orders: CallerOrders, *, through: Sequence[str] = ()) -> AsyncIterator[asyncio.subprocess.Process]:
    """A caller that has its orders; killed at the end of the context.

    Args:
        orders: what it is to do.
        through: a command that starts it.
    """
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*through, *CALLER_COMMAND, stdin=pipe, stdout=pipe)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pickle.dumps(orders))
        process.stdin.close()
        assert await process.stdout.readline() == UP
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def main() -> None:
    """Do what standard input says."""
    orders = pickle.load(sys.stdin.buffer)  # noqa: S301 -- written by the test that started this
    _say(UP.decode().strip())
    asyncio.run(_done(orders))


async def _done(orders: CallerOrders) -> None:
    pool = None
    if orders.pool_size:
        pool = Pool(orders.equipment.folder / "slots", size=orders.pool_size, outdated=_never)
    limits = fixed_limits({**_VALUES, **orders.values}, "test")
    async with Runner(orders.equipment, pool=pool) as runner:
        for code in orders.codes:
            try:
                result = await runner.run(RunRequest(language="python", code=code, limits=limits, person="caller"))
            except SandboxError as error:
                _say(f"{type(error).__name__} {error}")
            else:
                _say(f"{result.outcome.value} {result.output.strip()}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _never() -> bool:
    return False
