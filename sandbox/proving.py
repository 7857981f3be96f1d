"""The start-up probe: holds this host against code that tries to break each limit, once for each boot and set-up."""

import asyncio
import time
from dataclasses import replace
from types import MappingProxyType

from sandbox.equipment import Equipment
from sandbox.errors import SandboxError, StartError
from sandbox.kept_launch import forget_launch
from sandbox.probes import PROBES, Probe
from sandbox.proof import HostProof, keep_proof, kept_proof, proof_binding
from sandbox.runner import Runner

_PROBES_AT_ONCE = 3


def with_kept_proof(equipment: Equipment) -> Equipment:
    """The equipment with the proof that is kept of this very host; without one where none is."""
    binding = proof_binding(equipment.runsc, equipment.tree.digest, equipment.cgroups)
    return replace(equipment, proof=kept_proof(equipment.folder, binding))


async def with_new_proof(equipment: Equipment) -> Equipment:
    """The equipment with a proof of just now, which is kept if every limit held; takes a few seconds.

    Raises:
        StartError: no box starts here at all.
    """
    # Before anything runs: a gVisor that is exchanged meanwhile does not get the proof of the one before.
    binding = proof_binding(equipment.runsc, equipment.tree.digest, equipment.cgroups)
    turns = asyncio.Semaphore(_PROBES_AT_ONCE)
    async with Runner(replace(equipment, proof=None)) as runner:
        try:
            # One alone first: where no box starts at all, that is said once.
            found = [await _broken_reason(PROBES[0], runner, turns)]
        except StartError:
            forget_launch(equipment.folder)  # what worked before does not any more: the next start looks anew
            raise
        async with asyncio.TaskGroup() as group:
            rest = [group.create_task(_broken_reason(probe, runner, turns)) for probe in PROBES[1:]]
        found += [task.result() for task in rest]
    broken = MappingProxyType({name: reason for name, reason in found if reason})
    proof = HostProof(broken=broken, found_at=time.monotonic())
    if not proof.broken:
        keep_proof(equipment.folder, binding)
    return replace(equipment, proof=proof)


async def _broken_reason(probe: Probe, runner: Runner, turns: asyncio.Semaphore) -> tuple[str, str]:
    """The name of the limit, and why it cannot be relied on; empty where it held, or is known not to be enforced."""
    async with turns:
        try:
            result = await runner.run(probe.request())
        except SandboxError as error:
            if probe is PROBES[0]:
                raise
            return probe.limit, f"the start-up probe could not try it ({error.reason})"
    if probe.limit in result.unenforced or probe.held(result):
        return probe.limit, ""
    return probe.limit, f"the start-up probe broke it ({result.sentence.removesuffix('.')})"
