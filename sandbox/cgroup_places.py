"""Where a cgroup is and what it controls there, and what to say where a controller cannot be had."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path

from sandbox.errors import UnenforceableError

CGROUP_MOUNT_REMEDY = (
    "Docker: `--cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw`; Kubernetes: `securityContext.privileged: true` and "
    "a `hostPath` volume of `/sys/fs/cgroup` mounted there with `readOnly: false`; else mount /sys/fs/cgroup writable"
)
CGROUP_DELEGATION_REMEDY = (
    "systemd: `Delegate=yes` and `DelegateSubgroup=runner` (systemd 254 or newer) in the service, or run as root; "
    "Docker: `--cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw`; Kubernetes: `securityContext.privileged: true`"
)
CGROUP_KERNEL_REMEDY = (
    "Boot the kernel with `cgroup_enable={name}` and without `cgroup_disable={name}`, or use a kernel built with it"
)


class CgroupVersion(IntEnum):
    """Which interface the files of a hierarchy have."""

    V1 = 1
    V2 = 2


class CgroupController(StrEnum):
    """A kernel controller that a limit needs."""

    MEMORY = "memory"
    CPU = "cpu"
    PIDS = "pids"


LIMIT_OF_CONTROLLER = {
    CgroupController.MEMORY: "max_ram_megabytes",
    CgroupController.CPU: "max_cpus",
    CgroupController.PIDS: "max_processes",
}
ACCOUNTING_CONTROLLER = "cpuacct"
MEMORY_LIMIT_FILES = {CgroupVersion.V1: "memory.limit_in_bytes", CgroupVersion.V2: "memory.max"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupPlace:
    """One cgroup of one hierarchy, and what it controls there."""

    folder: Path
    """The cgroup itself: in a `CgroupParent` the one that holds `sandbox-lockdown`, in a `RunCgroup` the run's own."""
    version: CgroupVersion
    """Which interface its files have."""
    controllers: frozenset[str]
    """Names of the controllers used there; on v1 `cpuacct` may be among them, which only counts."""


def cgroup_place_of(places: tuple[CgroupPlace, ...], controller: str) -> CgroupPlace | None:
    """Where a controller is used; `None` where it is not."""
    return next((place for place in places if controller in place.controllers), None)


def unenforceable_controller(controller: CgroupController, reason: str, remedy: str) -> UnenforceableError:
    """The refusal to go without the limit that a controller is needed for."""
    return UnenforceableError(key=LIMIT_OF_CONTROLLER[controller], origin="this host", reason=reason, remedy=remedy)
