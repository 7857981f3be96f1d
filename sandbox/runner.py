"""Runs a request from beginning to end: limits held, outcome told by the kernels, nothing left behind.

One `Runner` belongs to one command or one plugin instance, and ends with it. Each run has a folder, cgroups and a box
of its own, which are gone soon after it ends, by whatever way it ends: the code's own end, the deadline, an error, or
cancellation. A box that waits in the pool is taken where one of the same plan is there; else one is started.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

from policy.effective import EffectiveLimits
from policy.limits import (
    DEBUG,
    MAX_OUTPUT_KILOBYTES,
    MAX_PROCESSES,
    MAX_RAM_MEGABYTES,
    MAX_RUNTIME_SECONDS,
)
from policy.values import Unlimited
from sandbox.box import STARTUP_SECONDS, BoxEnd
from sandbox.cgroup_counters import Counters
from sandbox.cgroup_limits import CgroupLimits
from sandbox.egress_account import EMPTY_EGRESS
from sandbox.enforcing import Enforced, enforceable
from sandbox.equipment import Equipment
from sandbox.errors import StartError, UnenforceableError
from sandbox.outcome import KeptOutput, Outcome, RunResult, RunUsage
from sandbox.pool import Pool
from sandbox.ready_box import BoxPlan, ReadyBox, disk_full_error, finished_although_cancelled
from sandbox.request import RunRequest
from sandbox.run_notes import RunState, ended_by_administrator
from sandbox.slots import QueueBounds, taken_slots
from sandbox.spec import Compiled, compile_run

_OUTPUT_UNIT_BYTES = 1 << 10
_REFILL_SECONDS = 0.1  # a short run is over by then, and has had the processor to itself
_COMPLAINTS_OF_NO_NETWORK = (
    b"name resolution",
    b"Name or service not known",
    b"Could not resolve host",
    b"Network is unreachable",
    b"No route to host",
    b"EAI_AGAIN",
)
"""What programs say of names and routes that are not there, in a box without network."""
_EXIT_OF_A_LOST_GOFER = 137
"""What gVisor itself tells where the process that serves its files is killed before it is."""
_NOTHING_COUNTED = Counters(oom_kills=0, peak_memory_bytes=None, cpu_seconds=None, pids_limit_hits=0)
_NO_QUEUE = QueueBounds(size=0, max_wait_seconds=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What is known of a run once its box has got it."""

    request: RunRequest
    """What is asked for."""
    compiled: Compiled
    """What follows from it."""
    enforced: Enforced
    """What holds here."""
    ready: ReadyBox
    """Its box."""
    pooled: bool
    """Whether that had waited for it."""
    queue_seconds: float
    """How long the run waited for a slot."""
    startup_seconds: float
    """How long it took from then until the box was there."""


class Runner:
    """Runs requests on this host."""

    def __init__(
        self,
        equipment: Equipment,
        *,
        pool: Pool | None = None,
        bounds: QueueBounds = _NO_QUEUE,
        startup_seconds: float = STARTUP_SECONDS,
    ) -> None:
        """Run on this equipment.

        Args:
            equipment: what the host has.
            pool: where boxes wait; this runner ends it. Without one each run starts a box.
            bounds: how many runs may wait for a slot, and for how long.
            startup_seconds: how long a box may take to start.
        """
        self._equipment = equipment
        self._pool = pool
        self._bounds = bounds
        self._startup_seconds = startup_seconds
        self._removals: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Use it for as long as the context lasts."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing behind."""
        await self.close()

    def retire_boxes(self) -> None:
        """Let no box wait any longer that was started before now."""
        if self._pool is not None:
            self._pool.retire()

    async def close(self) -> None:
        """End the boxes that wait, and wait until all are gone."""
        if self._pool is not None:
            await finished_although_cancelled(self._pool.close())
        await asyncio.gather(*self._removals)

    async def run(
        self,
        request: RunRequest,
        tell: Callable[[str], Awaitable[None]] | None = None,
        spent: Callable[[RunUsage], None] | None = None,
    ) -> RunResult:
        """Run a request to its end.

        Args:
            request: what to run.
            tell: gets a sentence for the person while the run has to wait for others.
            spent: gets what a run has used that is stopped before it comes to a result.

        Raises:
            UnenforceableError: a limit cannot be enforced here, and the limits do not permit going without.
            BusyError: as many runs as the limits permit are under way, and too many wait already or it took too long.
            StartError: gVisor did not bring the interpreter up.
        """
        try:
            return await self._run(request, tell or _untold, spent or _uncounted)
        except OSError as error:
            raise _host_refused(error, self._equipment.folder) from error
        except StartError as error:
            if request.limits[DEBUG]:
                raise error.with_internals() from error
            raise
        finally:
            if self._pool is not None:
                self._pool.refill()

    async def _run(
        self, request: RunRequest, tell: Callable[[str], Awaitable[None]], spent: Callable[[RunUsage], None]
    ) -> RunResult:
        equipment, clock = self._equipment, asyncio.get_running_loop().time
        compiled = compile_run(
            request.language,
            request.limits,
            equipment.tree,
            packages=equipment.packages,
            way=equipment.network_way,
        )
        enforced = enforceable(_held_to(request, compiled), request.limits, equipment.cgroups, equipment.proof)
        asked = clock()
        async with AsyncExitStack() as slots:
            folder = equipment.folder / "slots"
            await slots.enter_async_context(
                taken_slots(folder, request.person, request.limits, bounds=self._bounds, tell=tell)
            )
            permitted = clock()
            ready, pooled = await self._box_for(request, compiled, enforced)
            begun = _Begun(
                request=request,
                compiled=compiled,
                enforced=enforced,
                ready=ready,
                pooled=pooled,
                queue_seconds=permitted - asked,
                startup_seconds=clock() - permitted,
            )
            try:
                result = await self._served(begun)
            except BaseException:
                try:
                    with suppress(UnenforceableError):
                        wall_seconds = clock() - permitted - begun.startup_seconds
                        spent(self._usage(begun, _counters_of(ready), wall_seconds=wall_seconds))
                finally:
                    await finished_although_cancelled(ready.remove())
                raise
            await self._removed(ready)
            return result

    async def _box_for(self, request: RunRequest, compiled: Compiled, enforced: Enforced) -> tuple[ReadyBox, bool]:
        """A box that is ready for code, and whether it had waited for it."""
        plan = BoxPlan(
            compiled=compiled,
            cgroup_limits=enforced.cgroup_limits,
            equipment=self._equipment,
            language=request.language,
            startup_seconds=self._startup_seconds,
        )
        if self._pool is not None:
            asyncio.get_running_loop().call_later(_REFILL_SECONDS, self._pool.refill)
            waiting = self._pool.taken(self._importing(plan, request))
            if waiting is not None:
                return waiting, True
        return await ReadyBox.started(plan), False

    def _importing(self, plan: BoxPlan, request: RunRequest) -> BoxPlan:
        """The plan of a box that waits: its interpreter has imported beforehand what the administrator lists."""
        imports = self._equipment.pool_imports
        if not imports or request.language != "python":
            return plan
        equipment = self._equipment
        compiled = compile_run(
            "python",
            request.limits,
            equipment.tree,
            packages=equipment.packages,
            imports=imports,
            way=equipment.network_way,
        )
        return replace(plan, compiled=compiled)

    async def _served(self, begun: _Begun) -> RunResult:
        """Hand the code over to a box, and say how it ended."""
        request, ready, limits = begun.request, begun.ready, begun.request.limits
        output = KeptOutput(limit_bytes=_output_bytes(limits))
        whose = {"person": request.person, "surface": request.surface, "limits_digest": limits.digest}
        clock = asyncio.get_running_loop().time
        handed_over = clock()
        end = await ready.serve(
            request.code_bytes,
            output,
            limits=limits,
            within_seconds=_runtime_seconds(limits),
            handed_over=lambda: ready.note(RunState.RUNNING, **whose),
        )
        usage = self._usage(begun, counters := _counters_of(ready), wall_seconds=clock() - handed_over)
        ended_by_hand = ended_by_administrator(ready.folder.path)
        outcome = outcome_of(end, counters, asked=ready.answers, ended_by_hand=ended_by_hand)
        return RunResult(
            outcome=outcome,
            language=request.language,
            exit_code=end.exit_code if outcome in {Outcome.OK, Outcome.ERROR} else None,
            chunks=output.chunks,
            truncated=output.seen_bytes > output.kept_bytes,
            output_limit_kilobytes=_output_bytes(limits) // _OUTPUT_UNIT_BYTES,
            runtime_limit_seconds=_finite(limits[MAX_RUNTIME_SECONDS]),
            ram_limit_megabytes=_finite(limits[MAX_RAM_MEGABYTES]),
            process_limit=_finite(limits[MAX_PROCESSES]),
            memory_limit_bytes=ready.memory_limit_bytes,
            notices=(*limits.notices, *_network_notices(begun.compiled, outcome, output), *usage.egress.notices),
            unenforced=begun.enforced.unenforced,
            debug_allowed=limits[DEBUG],
            limits_digest=limits.digest,
            policies=tuple((policy.policy_id, policy.serial) for policy in limits.policies),
            ended_by_administrator=ended_by_hand,
            code_sha256=request.code_sha256,
            **{field.name: getattr(usage, field.name) for field in fields(usage)},
        )

    def _usage(self, begun: _Begun, counters: Counters, *, wall_seconds: float) -> RunUsage:
        counted, way_out = counters.cpu_seconds, begun.ready.egress
        return RunUsage(
            gvisor=self._equipment.gvisor_words,
            box_digest=begun.ready.plan_digest,
            pooled=begun.pooled,
            queue_seconds=begun.queue_seconds,
            startup_seconds=begun.startup_seconds,
            wall_seconds=wall_seconds,
            cpu_seconds=None if counted is None else max(counted - begun.ready.startup_cpu_seconds, 0.0),
            peak_memory_bytes=counters.peak_memory_bytes,
            egress=way_out.account.summary if way_out else EMPTY_EGRESS,
        )

    async def _removed(self, ready: ReadyBox) -> None:
        """Remove a box whose code is at its end; a server that lives on does so while the result is on its way."""
        if self._pool is None:
            await finished_although_cancelled(ready.remove())
            return
        if ready.box is not None:
            ready.box.kill()  # whoever gets the slot finds none of its code running
        removal = ready.removal()
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)


def outcome_of(end: BoxEnd, counters: Counters, *, asked: bool, ended_by_hand: bool) -> Outcome:
    """How a run ended, from what the kernels say.

    Args:
        end: how its processes ended.
        counters: what was counted in its cgroups.
        asked: whether gVisor could be asked how the code ended; an exit code that it did not tell is then no code's.
        ended_by_hand: whether an administrator ended it.
    """
    if counters.oom_kills:
        return Outcome.OUT_OF_MEMORY
    if end.timed_out:
        return Outcome.TIMED_OUT
    if ended_by_hand and (not end.told_by_gvisor or end.exit_code == _EXIT_OF_A_LOST_GOFER):
        return Outcome.KILLED
    if counters.pids_limit_hits and end.exit_code and not end.told_by_gvisor:
        return Outcome.TOO_MANY_PROCESSES
    if end.told_by_gvisor or (not asked and end.exit_code >= 0):
        return Outcome.ERROR if end.exit_code else Outcome.OK
    return Outcome.KILLED if end.exit_code < 0 else Outcome.GVISOR_FAILED


def _network_notices(compiled: Compiled, outcome: Outcome, output: KeptOutput) -> tuple[str, ...]:
    """Why there was no network, where the code failed and complains of that; it is advice, no outcome."""
    if not compiled.network_notice or outcome is not Outcome.ERROR:
        return ()
    said = b"".join(chunk.data for chunk in output.chunks)
    return (compiled.network_notice,) if any(words in said for words in _COMPLAINTS_OF_NO_NETWORK) else ()


def _counters_of(ready: ReadyBox) -> Counters:
    return ready.cgroup.counters() if ready.cgroup else _NOTHING_COUNTED


def _held_to(request: RunRequest, compiled: Compiled) -> CgroupLimits:
    """What the box's cgroup is to be set to: what follows from the limits, but for what a probe asks for."""
    stop = request.processes_hard_stop
    return compiled.cgroup_limits if stop is None else replace(compiled.cgroup_limits, processes_hard_stop=stop)


async def _untold(_: str) -> None:
    """Nobody listens."""


def _uncounted(_: RunUsage) -> None:
    """Nobody wants to know."""


def _host_refused(error: OSError, folder: Path) -> StartError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return disk_full_error(folder)
    return StartError(reason=f"this host refused: {error.strerror} ({error.filename})")


def _output_bytes(limits: EffectiveLimits) -> int:
    kilobytes = limits[MAX_OUTPUT_KILOBYTES]
    if isinstance(kilobytes, Unlimited):
        raise ValueError("the table permits no unlimited output")
    return kilobytes * _OUTPUT_UNIT_BYTES


def _runtime_seconds(limits: EffectiveLimits) -> float | None:
    seconds = _finite(limits[MAX_RUNTIME_SECONDS])
    return None if seconds is None else float(seconds)


def _finite(number: int | Unlimited) -> int | None:
    return None if isinstance(number, Unlimited) else number
