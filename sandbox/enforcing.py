"""Which of the limits can be enforced on this host: what is found and proved here, held against what a run asks for.

A RAM, CPU, process or disk limit that cannot be had is refused or named, as `require_resource_limiting` says; any other
that does not hold is refused, whatever any setting says.
"""

from dataclasses import dataclass

from policy.effective import EffectiveLimits
from policy.limits import MAX_DISK_MEGABYTES, REQUIRE_RESOURCE_LIMITING, limit_named
from policy.values import Unlimited
from sandbox.cgroup_limits import CgroupLimits
from sandbox.cgroup_places import LIMIT_OF_CONTROLLER, CgroupController
from sandbox.cgroups import CgroupParent, CgroupsUnavailable
from sandbox.errors import UnenforceableError
from sandbox.proof import HostProof

RESOURCE_LIMITS = (*LIMIT_OF_CONTROLLER.values(), MAX_DISK_MEGABYTES.name)
"""The limits that `require_resource_limiting` is about."""
_CONTROLLER_OF_LIMIT = {name: controller for controller, name in LIMIT_OF_CONTROLLER.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforced:
    """What will be enforced of one run's limits."""

    cgroup_limits: CgroupLimits
    """What can be set here."""
    unenforced: tuple[str, ...]
    """Names of the limits that go without, where that is permitted."""


def enforceable(
    wanted: CgroupLimits, limits: EffectiveLimits, cgroups: CgroupParent | CgroupsUnavailable, proof: HostProof | None
) -> Enforced:
    """Hold what a run asks for against what this host can do.

    Args:
        wanted: what its cgroup would be set to.
        limits: what policy decided.
        cgroups: where cgroups can be made, or why not.
        proof: what the start-up probe found; without one, what the kernel accepts counts as enforced.

    Raises:
        UnenforceableError: a limit cannot be enforced, and the limits do not permit going without it.
    """
    missing = _missing_controllers(wanted, cgroups) | _disproved(limits, proof)
    for name, (reason, remedy) in missing.items():
        if name not in RESOURCE_LIMITS:
            raise _unenforceable(limits, name, reason, remedy)
        if limits[REQUIRE_RESOURCE_LIMITING]:
            without = ". Or permit runs without it by SANDBOX_REQUIRE_RESOURCE_LIMITING=false"
            raise _unenforceable(limits, name, reason, f"{remedy}{without}")
    absent = {_CONTROLLER_OF_LIMIT[name] for name in missing if name in _CONTROLLER_OF_LIMIT}
    return Enforced(
        cgroup_limits=CgroupLimits(
            memory_bytes=None if CgroupController.MEMORY in absent else wanted.memory_bytes,
            cpu_thousandths=None if CgroupController.CPU in absent else wanted.cpu_thousandths,
            processes_hard_stop=None if CgroupController.PIDS in absent else wanted.processes_hard_stop,
        ),
        unenforced=tuple(name for name in RESOURCE_LIMITS if name in missing),
    )


def _missing_controllers(
    wanted: CgroupLimits, cgroups: CgroupParent | CgroupsUnavailable
) -> dict[str, tuple[str, str]]:
    """Reason and remedy for each limit whose controller is needed and cannot be had."""
    if isinstance(cgroups, CgroupsUnavailable):
        lacks = dict.fromkeys(CgroupController, (cgroups.reason, cgroups.remedy))
    else:
        lacks = {lack.controller: (lack.reason, lack.remedy) for lack in cgroups.missing}
    return {LIMIT_OF_CONTROLLER[name]: lack for name, lack in lacks.items() if wanted.asked_for(name)}


def _disproved(limits: EffectiveLimits, proof: HostProof | None) -> dict[str, tuple[str, str]]:
    """Reason and remedy for each limit that the probe broke; one that is unlimited needs no proof."""
    if proof is None:
        return {}
    broken = {}
    for name, reason in proof.broken.items():
        limit = limit_named(name)
        if limit is None or not isinstance(limits[limit], Unlimited):
            broken[name] = (reason, "`sandbox doctor` shows each probe; report this with its output")
    return broken


def _unenforceable(limits: EffectiveLimits, name: str, reason: str, remedy: str) -> UnenforceableError:
    limit = limit_named(name)
    return UnenforceableError(
        key=name,
        origin=limits.origin_of(limit) if limit else name,
        reason=f"this host cannot enforce it: {reason}",
        remedy=remedy,
    )
