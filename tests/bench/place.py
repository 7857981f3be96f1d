"""Where boxes are measured: this host's gVisor and file tree, with a folder and a cgroup that nothing else uses."""

import asyncio
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from policy.effective import EffectiveLimits, fixed_limits
from sandbox.cgroup_limits import CgroupLimits
from sandbox.cgroup_places import CgroupVersion
from sandbox.cgroups import CgroupParent, RunCgroup, make_cgroup
from sandbox.enforcing import enforceable
from sandbox.equipment import Equipment, found_runsc, prepared
from sandbox.errors import SandboxError
from sandbox.gvisor import RunscOrigin
from sandbox.packages import PackagesOrder
from sandbox.proving import with_new_proof
from sandbox.ready_box import BoxPlan
from sandbox.release import release_source
from sandbox.spec import compile_run

_NO_LIMITS = CgroupLimits(memory_bytes=None, cpu_thousandths=None, processes_hard_stop=None)
_ORIGINS = {
    RunscOrigin.RELEASE: "official release",
    RunscOrigin.DEBIAN: "Debian's package",
    RunscOrigin.PREINSTALLED: "put there by somebody",
}
_SETTLED_SECONDS = 30.0
_POLL_SECONDS = 0.01
_STARTUP_SECONDS = 60.0


class NoPlaceError(Exception):
    """No box with all limits can be started here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlace:
    """One place for boxes."""

    equipment: Equipment
    """Real gVisor and file tree; folder and cgroups are the place's own."""
    folder: Path
    """For what is made by hand."""
    whole: RunCgroup
    """The cgroup in which all others are made, so that its counters also hold those that are gone."""

    @property
    def cgroups(self) -> CgroupParent:
        """Where the cgroups of single runs are made."""
        return CgroupParent(places=self.whole.places, missing=())

    def plan(self, limits: EffectiveLimits, imports: tuple[str, ...] = ()) -> BoxPlan:
        """The plan of a box for Python, as a runner makes it."""
        equipment = self.equipment
        compiled = compile_run("python", limits, equipment.tree, packages=equipment.packages, imports=imports)
        return BoxPlan(
            compiled=compiled,
            cgroup_limits=enforceable(compiled.cgroup_limits, limits, self.cgroups, None).cgroup_limits,
            equipment=equipment,
            language="python",
            startup_seconds=_STARTUP_SECONDS,
        )

    def boxes(self) -> tuple[RunCgroup, ...]:
        """The cgroups of all boxes that are there."""
        return self.cgroups.existing_runs()

    def cpu_seconds(self) -> float:
        """What all boxes so far have used, gVisor's own use included."""
        used = self.whole.counters().cpu_seconds
        if used is None:
            raise NoPlaceError("nothing counts CPU time here")
        return used

    async def settled(self, boxes: int = 0) -> None:
        """Wait until no more than so many boxes are left."""
        await until(lambda: len(self.boxes()) <= boxes)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + _SETTLED_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("boxes are left behind, or none comes up")
        await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def bench_place(*, packages: Path | None = None, imports: tuple[str, ...] = ()) -> AsyncIterator[BenchPlace]:
    """A place on this host, proved as a server does at its start, of which nothing is left at the end.

    Args:
        packages: what is offered to code.
        imports: what waiting boxes import of it beforehand.

    Raises:
        NoPlaceError: this host has no gVisor, or cannot enforce all limits.
    """
    equipment = replace(_equipment(packages), pool_imports=imports)
    lacks = equipment.cgroups.missing if isinstance(equipment.cgroups, CgroupParent) else (equipment.cgroups,)
    if not isinstance(equipment.cgroups, CgroupParent) or lacks:
        raise NoPlaceError(f"RAM, CPU and processes cannot be limited here: {'; '.join(lack.reason for lack in lacks)}")
    whole = make_cgroup(equipment.cgroups, secrets.token_hex(16), _NO_LIMITS)
    for one in whole.places:
        os.utime(one.folder, (0, time.time() + 86_400))  # else a reaper of somebody else could take it for forgotten
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        own = replace(equipment, folder=folder / "private", cgroups=CgroupParent(places=whole.places, missing=()))
        made = BenchPlace(equipment=await with_new_proof(own), folder=folder, whole=whole)
        yield made
        await made.settled()
    finally:
        await whole.kill()
        CgroupParent(places=whole.places, missing=()).remove_once()
        await whole.remove()
        shutil.rmtree(folder)


def limits_for_bench(**values: object) -> EffectiveLimits:
    """The built-in limits without a network, but for what is named."""
    return fixed_limits({"networking_allowed": False, **values}, "bench")


def machine_words(place: BenchPlace) -> str:
    """What was measured on, without any name of it."""
    kernel = ".".join(platform.release().split(".")[:2])
    version = 1 if any(one.version is CgroupVersion.V1 for one in place.cgroups.places) else 2
    runsc, launch = place.equipment.runsc, place.equipment.launch
    way = f", {launch.words}" if launch else ""
    return (
        f"{os.cpu_count()} cores, Linux {kernel}, cgroup v{version}; gVisor {runsc.version.removesuffix('.0')} "
        f"({_ORIGINS[runsc.origin]}{way}); Python {platform.python_version()} on uvloop"
    )


def _equipment(packages: Path | None) -> Equipment:
    try:
        runsc = found_runsc(release_source(machine=platform.machine()), os.environ)
        if runsc is None:
            raise NoPlaceError("no gVisor is installed: `sandbox install` does it")
        order = PackagesOrder(path=packages, off_limits=()) if packages else None
        return prepared(runsc, os.environ, lambda _: None, order)
    except SandboxError as error:
        raise NoPlaceError(str(error)) from error
