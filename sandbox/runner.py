"""Runs a request from beginning to end: limits held, outcome told by the kernel, nothing left behind.

One `Runner` belongs to one command or one plugin instance. Each run has a folder, cgroups and a box of its own, which
are gone when it ends, by whatever way it ends: the code's own end, the deadline, an error, or cancellation.
"""

import asyncio
import secrets
import shutil
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from policy.effective import EffectiveLimits
from policy.limits import (
    DEBUG,
    MAX_CPUS,
    MAX_OUTPUT_KILOBYTES,
    MAX_RAM_MEGABYTES,
    MAX_RUNTIME_SECONDS,
    REQUIRE_RESOURCE_LIMITING,
    limit_named,
)
from policy.values import Unlimited
from sandbox.box import STARTUP_SECONDS, Box, BoxEnd, BoxFolder, process_family
from sandbox.cgroups import (
    LIMIT_OF_CONTROLLER,
    CgroupController,
    CgroupLimits,
    CgroupParent,
    CgroupsUnavailable,
    Counters,
    RunCgroup,
    cgroup_members,
    make_cgroup,
)
from sandbox.equipment import Equipment
from sandbox.errors import StartError, UnenforceableError
from sandbox.leases import RUNS_FOLDER, leased_folder
from sandbox.outcome import KeptOutput, Outcome, RunResult
from sandbox.request import RunRequest
from sandbox.slots import taken_slots
from sandbox.spec import Compiled, compile_run

W = TypeVar("W")

_OUTPUT_UNIT_BYTES = 1 << 10
_MOST_STARTUP_CPU_SECONDS = 1.0  # measured: 0.25
_NOTHING_COUNTED = Counters(oom_kills=0, peak_memory_bytes=None, cpu_seconds=None, pids_limit_hits=0)


@dataclass(slots=True)
class _Run:
    """What one run has made so far, and must not leave behind."""

    folder: BoxFolder
    cgroup: RunCgroup | None = None
    box: Box | None = None


class Runner:
    """Runs requests on this host."""

    def __init__(self, equipment: Equipment, *, startup_seconds: float = STARTUP_SECONDS) -> None:
        self._equipment = equipment
        self._startup_seconds = startup_seconds

    async def run(self, request: RunRequest) -> RunResult:
        """Run a request to its end.

        Raises:
            UnenforceableError: a limit cannot be enforced here, and the limits do not permit going without.
            BusyError: as many runs as the limits permit are under way.
            StartError: gVisor did not bring the interpreter up.
        """
        compiled = compile_run(request.language, request.limits, self._equipment.tree)
        enforced, unenforced = _enforceable(compiled.cgroup_limits, self._equipment.cgroups, request.limits)
        name = secrets.token_hex(16)
        try:
            with (
                taken_slots(self._equipment.folder / "slots", request.person, request.limits),
                leased_folder(self._equipment.folder / RUNS_FOLDER, name) as folder,
            ):
                run = _Run(folder=BoxFolder(path=folder, name=name))
                try:
                    return await self._run_in_box(request, compiled, run, enforced, unenforced)
                finally:
                    await _finished_although_cancelled(self._leave_nothing(run))
        except OSError as error:
            raise StartError(reason=f"this host refused: {error.strerror} ({error.filename})") from error
        except StartError as error:
            if request.limits[DEBUG]:
                raise error.with_internals() from error
            raise

    async def _run_in_box(
        self, request: RunRequest, compiled: Compiled, run: _Run, enforced: CgroupLimits, unenforced: tuple[str, ...]
    ) -> RunResult:
        clock = asyncio.get_running_loop().time
        begun = clock()
        output = KeptOutput(limit_bytes=_output_bytes(request.limits))
        box = await self._ready_box(request.limits, compiled, run, enforced, output)
        ready = clock()
        end = await box.serve(request.code_bytes, within_seconds=_runtime_seconds(request.limits))
        ended = clock()
        counters = run.cgroup.counters() if run.cgroup else _NOTHING_COUNTED
        limits = request.limits
        return RunResult(
            outcome=_outcome(end, counters),
            language=request.language,
            exit_code=end.exit_code if end.exit_code >= 0 and not end.timed_out and not counters.oom_kills else None,
            chunks=output.chunks,
            truncated=output.seen_bytes > output.kept_bytes,
            output_limit_kilobytes=_output_bytes(limits) // _OUTPUT_UNIT_BYTES,
            runtime_limit_seconds=_finite(limits[MAX_RUNTIME_SECONDS]),
            ram_limit_megabytes=_finite(limits[MAX_RAM_MEGABYTES]),
            notices=tuple(filter(None, (*limits.notices, compiled.network_notice))),
            unenforced=unenforced,
            debug_allowed=limits[DEBUG],
            limits_digest=limits.digest,
            policies=tuple((policy.policy_id, policy.serial) for policy in limits.policies),
            gvisor=self._equipment.gvisor_words,
            startup_seconds=ready - begun,
            wall_seconds=ended - ready,
            cpu_seconds=counters.cpu_seconds,
            peak_memory_bytes=counters.peak_memory_bytes,
            code_sha256=request.code_sha256,
        )

    async def _ready_box(
        self, limits: EffectiveLimits, compiled: Compiled, run: _Run, enforced: CgroupLimits, output: KeptOutput
    ) -> Box:
        """A box that waits for code, with every process of it where its limits are."""
        run.folder.write(compiled.spec)
        if isinstance(self._equipment.cgroups, CgroupParent):
            run.cgroup = make_cgroup(self._equipment.cgroups, run.folder.name, enforced)
        box = await _finished_although_cancelled(self._start_box(run, compiled, output))
        await box.ready(within_seconds=self._startup_seconds + _slowed_startup_seconds(limits))
        if run.cgroup is not None:
            _prove_membership(run.cgroup, box.process_id)
        return box

    async def _start_box(self, run: _Run, compiled: Compiled, output: KeptOutput) -> Box:
        """Start the box; not to be cancelled, since asyncio then loses sight of a process that it has just made."""
        run.box = await Box.start(
            (str(self._equipment.runsc.path), *self._equipment.runsc.arguments, *compiled.runsc_flags),
            run.folder,
            run.cgroup.procs_files if run.cgroup else (),
            output,
        )
        return run.box

    async def _leave_nothing(self, run: _Run) -> None:
        if run.cgroup is not None:
            await run.cgroup.kill()
        if run.box is not None:
            await run.box.close()
        if run.cgroup is not None:
            # Again, since what was just being started may have joined meanwhile.
            await run.cgroup.kill()
            await run.cgroup.remove()
        await asyncio.to_thread(shutil.rmtree, run.folder.path, ignore_errors=True)


def _enforceable(
    wanted: CgroupLimits, cgroups: CgroupParent | CgroupsUnavailable, limits: EffectiveLimits
) -> tuple[CgroupLimits, tuple[str, ...]]:
    """The cgroup limits that can be set here, and the names of those that cannot, where going without is permitted."""
    missing = _missing(wanted, cgroups)
    unenforced = tuple(LIMIT_OF_CONTROLLER[controller] for controller in missing)
    if limits[REQUIRE_RESOURCE_LIMITING] and missing:
        controller, (reason, remedy) = next(iter(missing.items()))
        name = LIMIT_OF_CONTROLLER[controller]
        limit = limit_named(name)
        raise UnenforceableError(
            key=name,
            origin=limits.origin_of(limit) if limit else name,
            reason=f"this host cannot enforce it: {reason}",
            remedy=f"{remedy}. Or permit runs without it by SANDBOX_REQUIRE_RESOURCE_LIMITING=false",
        )
    return (
        CgroupLimits(
            memory_bytes=None if CgroupController.MEMORY in missing else wanted.memory_bytes,
            cpu_thousandths=None if CgroupController.CPU in missing else wanted.cpu_thousandths,
            processes_hard_stop=None if CgroupController.PIDS in missing else wanted.processes_hard_stop,
        ),
        unenforced,
    )


def _missing(
    wanted: CgroupLimits, cgroups: CgroupParent | CgroupsUnavailable
) -> dict[CgroupController, tuple[str, str]]:
    """Reason and remedy for each controller that is needed and cannot be had."""
    if isinstance(cgroups, CgroupsUnavailable):
        lacks = dict.fromkeys(CgroupController, (cgroups.reason, cgroups.remedy))
    else:
        lacks = {lack.controller: (lack.reason, lack.remedy) for lack in cgroups.missing}
    return {controller: lack for controller, lack in lacks.items() if wanted.asked_for(controller)}


def _prove_membership(cgroup: RunCgroup, process_id: int) -> None:
    """Refuse a box of which any process is not where its limits are."""
    before = process_family(process_id)
    members = {place: cgroup_members(place.folder) for place in cgroup.places}
    box = before & process_family(process_id)  # those that lived all the while: what has ended is in no cgroup
    if len(box) <= 1:
        raise StartError(reason="gVisor ended as soon as the interpreter was ready")
    for place in cgroup.places:
        outside = box - members[place]
        if outside:
            controllers = ", ".join(sorted(place.controllers))
            raise StartError(
                reason=f"{len(outside)} of the box's processes are outside the cgroup made for it ({controllers})"
            )


def _outcome(end: BoxEnd, counters: Counters) -> Outcome:
    if counters.oom_kills:
        return Outcome.OUT_OF_MEMORY
    if end.timed_out:
        return Outcome.TIMED_OUT
    if end.exit_code < 0:
        return Outcome.KILLED
    return Outcome.ERROR if end.exit_code else Outcome.OK


def _output_bytes(limits: EffectiveLimits) -> int:
    kilobytes = limits[MAX_OUTPUT_KILOBYTES]
    if isinstance(kilobytes, Unlimited):
        raise ValueError("the table permits no unlimited output")
    return kilobytes * _OUTPUT_UNIT_BYTES


def _runtime_seconds(limits: EffectiveLimits) -> float | None:
    seconds = _finite(limits[MAX_RUNTIME_SECONDS])
    return None if seconds is None else float(seconds)


def _slowed_startup_seconds(limits: EffectiveLimits) -> float:
    """How much longer than a whole CPU's start-up one may take that has only a share of it."""
    cpus = limits[MAX_CPUS]
    return 0.0 if isinstance(cpus, Unlimited) else _MOST_STARTUP_CPU_SECONDS / float(cpus)


def _finite(number: int | Unlimited) -> int | None:
    return None if isinstance(number, Unlimited) else number


async def _finished_although_cancelled(work: Coroutine[Any, Any, W]) -> W:
    """Carry work to its end, even where the task that waits for it is cancelled meanwhile; then pass that on."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    result = task.result()
    if cancelled:
        raise asyncio.CancelledError
    return result
