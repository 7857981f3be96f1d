"""Runs of every kind, drawn by a seed, several at once; what ended otherwise than it should is kept.

Source: the 100 runs of `make test`, and the thousands of `make soak`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from policy.effective import fixed_limits
from policy.values import UNLIMITED
from sandbox.errors import SandboxError
from sandbox.outcome import Outcome, RunResult
from sandbox.request import RunRequest
from sandbox.runner import Runner
from tests.sandbox.conftest import PATIENCE

_VALUES = {
    "networking_allowed": False,
    "max_runtime_seconds": 20 * PATIENCE,
    "max_concurrent_runs": UNLIMITED,
    "max_instance_runs": UNLIMITED,
}
_CANCELLED_WITHIN_SECONDS = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of run, and how it must end."""

    name: str
    """For people."""
    share: int
    """How often it comes, beside the others."""
    code: str
    """What it runs."""
    outcome: Outcome | None
    """How it ends; `None` where it is cancelled at some moment."""
    output: str = ""
    """What it says before."""
    language: str = "python"
    """`python` or `bash`."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Values of limits."""

    def request(self) -> RunRequest:
        """A run of this kind."""
        limits = fixed_limits({**_VALUES, **self.values}, "soak")
        return RunRequest(language=self.language, code=self.code, limits=limits, person="soak")


KINDS = (
    Kind(name="ok", share=9, code="print(6 * 7)", outcome=Outcome.OK, output="42\n"),
    Kind(name="ok in bash", share=3, code="echo $((6 * 7))", language="bash", outcome=Outcome.OK, output="42\n"),
    Kind(name="error", share=3, code="import sys; print(1); sys.exit(3)", outcome=Outcome.ERROR, output="1\n"),
    Kind(
        name="timed out",
        share=1,
        code="import time; time.sleep(60)",
        values={"max_runtime_seconds": 1},
        outcome=Outcome.TIMED_OUT,
    ),
    Kind(
        name="out of memory",
        share=1,
        code="b = bytearray(256 << 20)",
        values={"max_ram_megabytes": 32},
        outcome=Outcome.OUT_OF_MEMORY,
    ),
    Kind(name="cancelled", share=3, code="import time; time.sleep(60)", outcome=None),
)


class Load:
    """Draws runs, and counts how they end."""

    def __init__(self, runners: Sequence[Runner], seed: int) -> None:
        """Start nothing yet.

        Args:
            runners: each run goes to one of them, drawn too.
            seed: of everything that is drawn.
        """
        self._runners = runners
        self._drawn = random.Random(seed)  # noqa: S311 -- the same each time is what it is for
        self.begun = 0
        self.ended: Counter[str] = Counter()
        self.pooled = 0
        self.wrong: list[str] = []

    async def run(self, *, at_once: int, goes_on: Callable[[], bool]) -> None:
        """Run one after the other, so many at once, for as long as it goes on."""
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(self._one_after_the_other(goes_on))

    async def _one_after_the_other(self, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            self.begun += 1
            (kind,) = self._drawn.choices(KINDS, [kind.share for kind in KINDS])
            await self._one(kind, self._drawn.choice(self._runners), self._drawn.uniform(0, _CANCELLED_WITHIN_SECONDS))

    async def _one(self, kind: Kind, runner: Runner, moment: float) -> None:
        run = asyncio.create_task(runner.run(kind.request()))
        if kind.outcome is None:
            await asyncio.sleep(moment)
            run.cancel()
        (ended,) = await asyncio.gather(run, return_exceptions=True)
        self.ended[kind.name] += 1
        match ended:
            case RunResult():
                self.pooled += ended.pooled
                if (ended.outcome, ended.output) != (kind.outcome, kind.output):
                    self.wrong.append(f"{kind.name}: {ended.outcome.value}, said {ended.output[:200]!r}")
            case asyncio.CancelledError() if kind.outcome is None:
                pass
            case SandboxError():
                self.wrong.append(f"{kind.name}: {ended}")
            case _:
                raise ended
