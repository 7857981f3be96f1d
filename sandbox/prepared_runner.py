"""The one runner of a process: its gVisor found or installed, its host proved, its pool sized; anew where that changes.

Owned by a session, and ends with it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from policy.effective import EffectiveLimits
from policy.limits import AUTO_INSTALL, DEBUG, MAX_INSTANCE_RUNS
from policy.values import Unlimited
from sandbox.announcing import Announce, InTurn
from sandbox.cgroup_counters import memory_left_bytes
from sandbox.cgroups import CgroupParent, CgroupsUnavailable
from sandbox.equipment import Equipment, found_runsc, installed_runsc, prepared
from sandbox.errors import StartError
from sandbox.gvisor import Runsc
from sandbox.leases import RUNS_FOLDER, remove_leftovers
from sandbox.packages import PackagesOrder
from sandbox.pool import Pool, automatic_pool_size
from sandbox.proving import with_kept_proof, with_new_proof
from sandbox.release import ReleaseSource
from sandbox.runner import Runner
from sandbox.slots import QueueBounds, remove_free_slots
from sandbox.spec import NetworkMode

_MEMORY_INFORMATION = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostChoices:
    """What the administrator chose for this host, beside the limits."""

    gvisor: ReleaseSource
    """Which gVisor is wanted."""
    gvisor_platform: str | None = None
    """The only platform to start it on; `None` leaves it to what works here."""
    network_way: NetworkMode = NetworkMode.PROXY
    """How code reaches what its limits permit."""
    pool_size: int | None
    """How many boxes may wait for code; `None` leaves it to the memory there is."""
    pool_imports: tuple[str, ...]
    """Modules that the interpreters of waiting boxes import beforehand."""
    packages: PackagesOrder | None
    """Which packages are offered to code, if any."""
    queue: QueueBounds
    """How many runs may wait for others."""


class PreparedRunner:
    """Prepares on first use, and again where gVisor or the file tree is gone or another event loop asks."""

    def __init__(
        self, environ: Mapping[str, str], *, keeps_boxes: bool, outdated: Callable[[], Awaitable[bool]]
    ) -> None:
        """Prepare nothing yet.

        Args:
            environ: this process's environment.
            keeps_boxes: whether boxes may wait for code; for those that run once it would be a waste.
            outdated: whether the policy has changed since somebody last ran something.
        """
        self._environ = environ
        self._keeps_boxes = keeps_boxes
        self._outdated = outdated
        self._preparing = asyncio.Lock()
        self._equipment: Equipment | None = None
        self._runner: Runner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ready(self, choices: HostChoices, limits: EffectiveLimits, announce: Announce) -> Runner:
        """The runner, announcing what has to be done first.

        Raises:
            SandboxError: something is missing that no setting can do without.
        """
        async with InTurn(announce) as teller, self._preparing:
            # Whoever is slow to hear waits alone: the lock is not held for that.
            equipment = await self._prepared(choices, limits, teller.tell)
            loop = asyncio.get_running_loop()
            if self._runner is None or self._loop is not loop or self._equipment is not equipment:
                await self.close()
                self._equipment, self._loop = equipment, loop
                self._runner = self._made(equipment, choices, limits)
            return self._runner

    def retire_boxes(self) -> None:
        """Let no box wait any longer that was started before now."""
        if self._runner is not None:
            self._runner.retire_boxes()

    async def close(self) -> None:
        """End what waits; runs under way go on."""
        runner, self._runner = self._runner, None
        if runner is not None and self._loop is asyncio.get_running_loop():
            await runner.close()

    def _made(self, equipment: Equipment, choices: HostChoices, limits: EffectiveLimits) -> Runner:
        size = self._pool_size(equipment.cgroups, choices, limits)
        pool = Pool(equipment.folder / "slots", size=size, outdated=self._outdated) if size else None
        return Runner(equipment, pool=pool, bounds=choices.queue)

    def _pool_size(
        self, cgroups: CgroupParent | CgroupsUnavailable, choices: HostChoices, limits: EffectiveLimits
    ) -> int:
        if not self._keeps_boxes:
            return 0
        if choices.pool_size is not None:
            return choices.pool_size
        runs = limits[MAX_INSTANCE_RUNS]
        places = () if isinstance(cgroups, CgroupsUnavailable) else cgroups.places
        left = min(filter(None, (_available_bytes(), memory_left_bytes(places))), default=0)
        return automatic_pool_size(left, None if isinstance(runs, Unlimited) else runs)

    async def _prepared(self, choices: HostChoices, limits: EffectiveLimits, announce: Announce) -> Equipment:
        kept = self._equipment if self._equipment is not None and self._equipment.intact() else None
        runsc = kept.runsc if kept else await asyncio.to_thread(found_runsc, choices.gvisor, self._environ)
        if runsc is None:
            runsc = await self._installed(choices.gvisor, limits, announce)
        await announce("Initializing sandbox configuration...")
        await announce("Setting up sandbox environment...")
        if kept is not None and kept.proof is not None and kept.proof.lasts(time.monotonic()):
            return kept
        equipment = await self._equipped(runsc, choices, limits, announce)
        await remove_leftovers(equipment.folder / RUNS_FOLDER, equipment.cgroups)
        await asyncio.to_thread(remove_free_slots, equipment.folder / "slots")
        equipment = replace(equipment, pool_imports=choices.pool_imports, network_way=choices.network_way)
        equipment = await asyncio.to_thread(with_kept_proof, equipment)
        if equipment.proof is None:
            await announce("Proving on this host that each limit holds...")
            equipment = await with_new_proof(equipment)
        return equipment

    async def _equipped(
        self, runsc: Runsc, choices: HostChoices, limits: EffectiveLimits, announce: Announce
    ) -> Equipment:
        try:
            return await asyncio.to_thread(
                prepared,
                runsc,
                self._environ,
                _reporter(announce),
                choices.packages,
                gvisor_platform=choices.gvisor_platform,
            )
        except StartError as error:
            if limits[DEBUG]:
                raise error.with_internals() from error
            raise

    async def _installed(self, source: ReleaseSource, limits: EffectiveLimits, announce: Announce) -> Runsc:
        if limits[AUTO_INSTALL]:
            await announce("Auto-installing gVisor...")
        return await asyncio.to_thread(installed_runsc, source, self._environ, limits, _reporter(announce))


def _available_bytes() -> int | None:
    """Memory that this machine could give now. Source: proc_meminfo(5), MemAvailable."""
    with suppress(OSError, ValueError):
        for line in _MEMORY_INFORMATION.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) << 10
    return None


def _reporter(announce: Announce) -> Callable[[str], None]:
    """Announces, from the thread that works, in the loop that waits."""
    loop = asyncio.get_running_loop()

    def report(sentence: str) -> None:
        asyncio.run_coroutine_threadsafe(_announced(announce, sentence), loop)

    return report


async def _announced(announce: Announce, sentence: str) -> None:
    await announce(sentence)
