"""A box that waits for code, with everything that was made for it: its folder and lease, its cgroups, its processes.

Whoever starts one owns it until it is removed. It serves one request, whoever asked for it to be started.
"""

import asyncio
import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from policy.effective import EffectiveLimits
from policy.egress_rules import EgressRules
from sandbox.box import Box, BoxEnd, BoxFolder
from sandbox.cgroup_files import cgroup_members
from sandbox.cgroup_limits import CgroupLimits
from sandbox.cgroups import CgroupParent, RunCgroup, make_cgroup
from sandbox.control import control_socket_files
from sandbox.egress_proxy import EgressProxy
from sandbox.equipment import Equipment
from sandbox.errors import StartError
from sandbox.launch import own_network_command
from sandbox.leases import RUNS_FOLDER, leased_folder
from sandbox.network_namespace import check_may_enter, spec_inside
from sandbox.outcome import KeptOutput
from sandbox.processes import process_family
from sandbox.run_notes import RunNote, RunState, ended_by_administrator, remove_run_notes, write_run_note
from sandbox.spec import (
    BOX_DIGEST_ANNOTATION,
    GVISOR_GROWTH_BYTES,
    STARTUP_RAM_BYTES,
    Compiled,
    NetworkMode,
    egress_mount,
)
from sandbox.transparent_egress import TransparentEgress
from sandbox.used_trees import used_tree

W = TypeVar("W")

_LEAST_FREE_BYTES = 1 << 16
_LEAST_FREE_FILES = 8
_CPU_THOUSANDTHS_OF_START = 1_000
_DESCRIPTORS_TO_REMOVE = 4
"""Measured: two are enough."""
_REMOVAL_TRIES_SECONDS = 30.0
_PAUSE_BETWEEN_TRIES_SECONDS = 0.05
BOX_FORMAT = 2
"""Raised with every change of how boxes are started and served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxPlan:
    """Everything that one box is made from; boxes of equal plans can stand in for each other."""

    compiled: Compiled
    """Spec, flags and limits, none of which names a person, code or run."""
    cgroup_limits: CgroupLimits
    """What can be enforced of its cgroup limits."""
    equipment: Equipment
    """What the host has for it."""
    language: str
    """`python` or `bash`."""
    startup_seconds: float
    """How long it may take until its interpreter is ready; no part of what a box is made from."""

    @property
    def digest(self) -> str:
        """SHA-256 over all of it and the versions of gVisor and of this runner, in lower-case hexadecimal."""
        limits = self.cgroup_limits
        runsc, packages = self.equipment.runsc, self.equipment.packages
        whole = {
            "format": BOX_FORMAT,
            "spec": self.compiled.spec,
            "flags": self.compiled.runsc_flags,
            "cgroup": [limits.memory_bytes, limits.cpu_thousandths, limits.processes_hard_stop],
            "runsc": [str(runsc.path), runsc.version, runsc.arguments],
            "tree": self.equipment.tree.digest,
            "packages": None if packages is None else packages.digest,
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@dataclass(slots=True)
class ReadyBox:
    """One box and what belongs to it."""

    plan_digest: str
    """Of the plan that it was made from."""
    folder: BoxFolder
    """Its own."""
    startup_seconds: float = 0.0
    """How long it took until its interpreter was ready."""
    language: str = ""
    """`python` or `bash`."""
    started_at: float = field(default_factory=time.time)
    """Seconds since 1970."""
    cgroup: RunCgroup | None = None
    """Its own, where there is one."""
    startup_cpu_seconds: float = 0.0
    """CPU time that it took until then."""
    memory_limit_bytes: int | None = None
    """What its cgroup holds it to once it is ready, gVisor's share included; `None` where nothing does."""
    egress: EgressProxy | TransparentEgress | None = None
    """Its way out; absent where it has none."""
    box: Box | None = None
    """Its process; absent until it was started."""
    lease: ExitStack = field(default_factory=ExitStack)
    """The locks on its folder and, shared, on the file tree that it sees."""
    set_aside: ExitStack = field(default_factory=ExitStack)
    """Descriptors that its removal will need, so that a process that has run out of them can still clean up."""

    @classmethod
    async def started(cls, plan: BoxPlan) -> Self:
        """Start a box and wait until it is ready; whatever goes wrong, nothing is left behind.

        Raises:
            UnenforceableError: the kernel did not take a limit.
            StartError: gVisor did not bring the interpreter up.
        """
        made = cls._leased(plan)
        path = made.folder.path
        try:
            await made._start(plan)  # noqa: SLF001 -- its own
        except StartError as error:
            full = disk_is_full(path)
            await finished_although_cancelled(made.remove())
            if full:
                raise disk_full_error(plan.equipment.folder) from error
            raise
        except BaseException:
            await finished_although_cancelled(made.remove())
            raise
        return made

    @property
    def usable(self) -> bool:
        """Whether code could be handed to it now: it lives, and no administrator is about to end it."""
        return self.box is not None and self.box.alive and not ended_by_administrator(self.folder.path)

    def processes(self) -> frozenset[int]:
        """Its processes on this host; each is in all of its cgroups."""
        if self.cgroup is not None:
            return cgroup_members(self.cgroup.places[0].folder)
        return process_family(self.box.process_id) if self.box is not None else frozenset()

    @property
    def answers(self) -> bool:
        """Whether gVisor can be asked how the code ended."""
        return self.box is not None and self.box.answers

    async def serve(
        self,
        code: bytes,
        output: KeptOutput,
        *,
        limits: EffectiveLimits,
        within_seconds: float | None,
        handed_over: Callable[[], None],
    ) -> BoxEnd:
        """Hand the code over, and wait for its end or the deadline; `handed_over` is called in between.

        The box reaches what the limits permit, from just before until its end.
        """
        if self.box is None:
            raise StartError(reason="the box was never started")
        if self.egress is None:
            return await self.box.serve(code, output, within_seconds=within_seconds, handed_over=handed_over)
        self.egress.open(EgressRules.of_limits(limits))
        try:
            return await self.box.serve(code, output, within_seconds=within_seconds, handed_over=handed_over)
        finally:
            await self.egress.close()

    def note(self, state: RunState, **who: Any) -> None:  # noqa: ANN401 -- fields of `RunNote`
        """Say in its folder what it is doing, for `sandbox ps`."""
        places = self.cgroup.places if self.cgroup else ()
        note = RunNote(
            state=state,
            language=self.language,
            box_digest=self.plan_digest,
            caller_pid=os.getpid(),
            since=time.time(),
            started=self.started_at,
            cgroup_folders=tuple(str(place.folder) for place in places),
            **{"person": None, "surface": None, "limits_digest": None, **who},
        )
        with suppress(OSError):  # a full disk is no reason to stop what runs already
            write_run_note(self.folder.path, note)

    def abandon(self) -> None:
        """Kill it, waiting for nothing: for when nobody is left to wait. What it leaves, the next start removes."""
        self.set_aside.close()
        if self.egress is not None:
            self.egress.abandon()
        if self.box is not None:
            self.box.abandon()
        self.lease.close()

    def removal(self) -> asyncio.Task[None]:
        """Remove it in the background; where the event loop ends before that has, it is abandoned."""
        removal = asyncio.get_running_loop().create_task(self._removed())
        removal.add_done_callback(lambda ended: self.abandon() if ended.cancelled() else None)
        return removal

    async def remove(self) -> None:
        """Kill it if it still lives, and leave nothing of it behind."""
        self.set_aside.close()
        given_up = time.monotonic() + _REMOVAL_TRIES_SECONDS
        with self.lease:
            while True:
                try:
                    await self._remove_once()
                except OSError:
                    # Others have taken what was set aside, or the kernel refuses for now.
                    if time.monotonic() >= given_up:
                        raise
                    await asyncio.sleep(_PAUSE_BETWEEN_TRIES_SECONDS)
                else:
                    return

    async def _removed(self) -> None:
        await finished_although_cancelled(self.remove())

    async def _remove_once(self) -> None:
        if self.egress is not None:
            await self.egress.close()
        if self.cgroup is not None:
            await self.cgroup.kill()
        if self.box is not None:
            await self.box.close()
        if self.cgroup is None or await _cgroup_removed(self.cgroup):
            await asyncio.to_thread(_folder_removed, self.folder)

    @classmethod
    def _leased(cls, plan: BoxPlan) -> Self:
        """A folder of its own with its lock, and nothing in it yet."""
        name = secrets.token_hex(16)
        with ExitStack() as set_aside, ExitStack() as lease:
            for _ in range(_DESCRIPTORS_TO_REMOVE):
                set_aside.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            lease.enter_context(used_tree(plan.equipment.tree.root))
            path = lease.enter_context(leased_folder(plan.equipment.folder / RUNS_FOLDER, name))
            return cls(
                plan_digest=plan.digest,
                folder=BoxFolder(path=path, name=name),
                language=plan.language,
                lease=lease.pop_all(),
                set_aside=set_aside.pop_all(),
            )

    async def _start(self, plan: BoxPlan) -> None:
        begun = time.monotonic()
        cgroups = plan.equipment.cgroups
        self.folder.write(await self._own_spec(plan))
        if isinstance(cgroups, CgroupParent):
            # Named before it is made: whoever kills us in between leaves a note that leads to it.
            self.cgroup = cgroups.run_cgroup(self.folder.name)
            self.note(RunState.STARTING)
            make_cgroup(cgroups, self.folder.name, _limits_of_start(plan.cgroup_limits))
        else:
            self.note(RunState.STARTING)
        box = await finished_although_cancelled(self._start_box(plan))
        await box.ready(within_seconds=plan.startup_seconds)
        if self.cgroup is not None and plan.equipment.proof is None:
            # Of a gVisor not yet tried on this host each process is looked at; once proved, it does so again.
            _prove_membership(self.cgroup, box.process_id)
        if isinstance(self.egress, TransparentEgress) and not self.egress.namespace.is_entered_by(self.processes()):
            raise StartError(reason="the box is not in the network namespace made for it")
        await box.watch(self.processes)
        self._hold(plan.cgroup_limits)
        self.startup_seconds = time.monotonic() - begun

    async def _own_spec(self, plan: BoxPlan) -> dict[str, Any]:
        """The spec with what is this box's alone."""
        compiled = plan.compiled
        spec = {**compiled.spec, "annotations": {BOX_DIGEST_ANNOTATION: self.plan_digest}}
        if compiled.network is NetworkMode.PROXY:
            self.egress = await EgressProxy(plan.equipment.egress_network()).listen(self.folder.egress)
            spec["mounts"] = [*spec["mounts"], egress_mount(self.folder.egress)]
        if compiled.network is NetworkMode.NAMESPACE:
            check_may_enter(plan.equipment)
            self.egress = await TransparentEgress.listening(plan.equipment.egress_network())
            return spec_inside(spec, self.egress.namespace)
        return spec

    def _hold(self, limits: CgroupLimits) -> None:
        """Tighten what a start had more of than any code will."""
        if self.cgroup is None:
            return
        self.startup_cpu_seconds = self.cgroup.cpu_seconds() or 0.0
        if limits.memory_bytes is not None:
            code_bytes = limits.memory_bytes - STARTUP_RAM_BYTES
            self.memory_limit_bytes = self.cgroup.hold_memory(code_bytes + GVISOR_GROWTH_BYTES)
        if limits.cpu_thousandths is not None:
            self.cgroup.hold_cpu(limits.cpu_thousandths)

    async def _start_box(self, plan: BoxPlan) -> Box:
        """Start the process; not to be cancelled, since asyncio then loses sight of one that it has just made."""
        runsc = plan.equipment.runsc
        self.box = await Box.start(
            (*own_network_command(), str(runsc.path), *runsc.arguments, *plan.compiled.runsc_flags),
            self.folder,
            self.cgroup.procs_files if self.cgroup else (),
        )
        return self.box


async def _cgroup_removed(cgroup: RunCgroup) -> bool:
    """Remove the cgroup of a box that is gone; where that fails, the folder stays to tell the next start of it."""
    if not cgroup.remove_once():
        return True
    await cgroup.kill()  # what was just being started may have joined meanwhile
    return not await cgroup.remove()


def _limits_of_start(limits: CgroupLimits) -> CgroupLimits:
    """What holds until a box is ready: a whole CPU, so that a small share of one makes no start last for minutes."""
    cpu = limits.cpu_thousandths
    return replace(limits, cpu_thousandths=None if cpu is None else max(cpu, _CPU_THOUSANDTHS_OF_START))


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


def disk_is_full(folder: Path) -> bool:
    """Whether too little can be had there for what gVisor notes down; it tells so in words of its own."""
    try:
        left = os.statvfs(folder)
    except OSError:
        return False
    few_files = left.f_files > 0 and left.f_favail < _LEAST_FREE_FILES
    return few_files or left.f_bavail * left.f_frsize < _LEAST_FREE_BYTES


def disk_full_error(folder: Path) -> StartError:
    """What is said of a run that a full disk did not let start."""
    return StartError(
        reason=f"the disk is full ({folder})", remedy="Free space there; nothing of the run was left behind"
    )


def _folder_removed(folder: BoxFolder) -> None:
    remove_run_notes(folder.path)
    for left in control_socket_files(folder.state, folder.name):
        with suppress(OSError):
            left.unlink()
    shutil.rmtree(folder.path, ignore_errors=True)
    if folder.path.exists():
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder.path))


async def finished_although_cancelled(work: Coroutine[Any, Any, W]) -> W:
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
