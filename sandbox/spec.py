"""Compiles a request, purely, to an OCI spec, `runsc` arguments and cgroup limits. Goldens show each.

Nothing a person wrote enters any of them: not the code, not who asks. The box sees its own tree, read-only, and one
writable file system whose size is limited.

Source: OCI runtime specification 1.0.2; `runsc flags`.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

from policy.effective import EffectiveLimits
from policy.limits import (
    MAX_CPUS,
    MAX_DISK_MEGABYTES,
    MAX_PROCESSES,
    MAX_RAM_MEGABYTES,
    NETWORK_ALLOWLIST,
    NETWORK_PRIVATE_ALLOWED,
    NETWORKING_ALLOWED,
)
from policy.values import Unlimited
from sandbox.cgroups import CgroupLimits
from sandbox.starters import starter_command
from sandbox.tree import BOX_UID, FileTree

GVISOR_HEADROOM_BYTES = 64 << 20
"""RAM on top of the limit for gVisor's own kernel, which shares the cgroup: measured at 25 to 45 MiB."""
GVISOR_THREADS = 1_024
"""Threads on top of the limit for gVisor itself, which shares the cgroup; each guest thread needs several outside."""
HOST_THREADS_PER_GUEST_THREAD = 4
DIGEST_ANNOTATION = "io.sandbox-lockdown.limits-digest"
_KILOBYTE = 1 << 10
_MEGABYTE = 1 << 20
_SHARED_MEMORY_PART = 4


class NetworkMode(Enum):
    """What network a box has."""

    LOOPBACK = "none"
    """Its own loopback alone."""
    HOST = "host"
    """The host's network, unfiltered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Everything that gVisor and the kernel are told about one run."""

    spec: dict[str, Any]
    """The OCI spec, as `config.json` holds it."""
    runsc_flags: tuple[str, ...]
    """Flags before `run` that follow from the limits."""
    cgroup_limits: CgroupLimits
    """What the run's cgroup is set to."""
    network_notice: str
    """What people are told where they get less network than the limits name; empty otherwise."""


def compile_run(language: str, limits: EffectiveLimits, tree: FileTree) -> Compiled:
    """The one description of a run that follows from its language and limits."""
    mode, notice = network_mode(limits)
    return Compiled(
        spec={
            "ociVersion": "1.0.2",
            "process": _process(language, limits, tree),
            "root": {"path": str(tree.root), "readonly": True},
            "hostname": "sandbox",
            "mounts": _mounts(limits, mode),
            "linux": {"namespaces": _namespaces(mode)},
            "annotations": {DIGEST_ANNOTATION: limits.digest},
        },
        runsc_flags=(f"--network={mode.value}",),
        cgroup_limits=_cgroup_limits(limits),
        network_notice=notice,
    )


def network_mode(limits: EffectiveLimits) -> tuple[NetworkMode, str]:
    """Which network a run gets, and what to tell people where that is less than the limits name."""
    if not limits[NETWORKING_ALLOWED]:
        return NetworkMode.LOOPBACK, ""
    allowlist = NETWORK_ALLOWLIST.kind.text(limits[NETWORK_ALLOWLIST])
    lists, private = limits.origin_of(NETWORK_ALLOWLIST), limits.origin_of(NETWORK_PRIVATE_ALLOWED)
    if allowlist == "none":
        return NetworkMode.LOOPBACK, f"The run had no network: network_allowlist, by {lists}, allows no destination."
    if allowlist == "public" and limits[NETWORK_PRIVATE_ALLOWED]:
        return NetworkMode.HOST, ""
    wanted = "public destinations only" if allowlist == "public" else f"only {allowlist}"
    return NetworkMode.LOOPBACK, (
        f"The run had no network: its limits permit {wanted} (network_allowlist by {lists}, network_private_allowed "
        f"by {private}), which this version cannot enforce yet."
    )


def _process(language: str, limits: EffectiveLimits, tree: FileTree) -> dict[str, Any]:
    return {
        "terminal": False,
        "user": {"uid": BOX_UID, "gid": BOX_UID},
        "args": list(starter_command(language, python=tree.python, bash=tree.bash)),
        "env": [
            "PATH=/usr/bin",
            "HOME=/tmp",
            "TMPDIR=/tmp",
            "USER=sandbox",
            "LANG=C.UTF-8",
            "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        ],
        "cwd": "/tmp",  # noqa: S108 -- the box's own, empty and its only writable place
        "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        "rlimits": _rlimits(limits),
        "noNewPrivileges": True,
    }


def _rlimits(limits: EffectiveLimits) -> list[dict[str, Any]]:
    ceilings = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1_024}
    processes = limits[MAX_PROCESSES]
    if not isinstance(processes, Unlimited):
        ceilings["RLIMIT_NPROC"] = processes
    return [{"type": name, "soft": value, "hard": value} for name, value in ceilings.items()]


def _mounts(limits: EffectiveLimits, mode: NetworkMode) -> list[dict[str, Any]]:
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        *_writable_mounts(limits),
    ]
    if mode is NetworkMode.HOST:
        resolver = {"destination": "/etc/resolv.conf", "type": "bind", "source": "/etc/resolv.conf"}
        mounts.append({**resolver, "options": ["bind", "ro"]})
    return mounts


def _writable_mounts(limits: EffectiveLimits) -> list[dict[str, Any]]:
    """Everything writable: `/tmp`, and a quarter of the limit as shared memory, which multiprocessing needs."""
    megabytes = limits[MAX_DISK_MEGABYTES]
    if isinstance(megabytes, Unlimited):
        return [_tmpfs("/tmp", None), _tmpfs("/dev/shm", None)]  # noqa: S108 -- paths inside the box
    total = megabytes * _MEGABYTE // _KILOBYTE
    shared = total // _SHARED_MEMORY_PART
    return [_tmpfs("/tmp", total - shared), _tmpfs("/dev/shm", shared)]  # noqa: S108 -- paths inside the box


def _tmpfs(destination: str, kilobytes: int | None) -> dict[str, Any]:
    size = [] if kilobytes is None else [f"size={kilobytes}k"]
    options = ["nosuid", "nodev", "mode=1777", *size]
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}


def _namespaces(mode: NetworkMode) -> list[dict[str, str]]:
    kinds = ["pid", "ipc", "uts", "mount"]
    if mode is NetworkMode.LOOPBACK:
        kinds.append("network")
    return [{"type": kind} for kind in kinds]


def _cgroup_limits(limits: EffectiveLimits) -> CgroupLimits:
    megabytes, cpus, processes = limits[MAX_RAM_MEGABYTES], limits[MAX_CPUS], limits[MAX_PROCESSES]
    return CgroupLimits(
        memory_bytes=None if isinstance(megabytes, Unlimited) else megabytes * _MEGABYTE + GVISOR_HEADROOM_BYTES,
        cpu_thousandths=int(cpus * 1_000) if isinstance(cpus, Decimal) else None,
        processes_hard_stop=None
        if isinstance(processes, Unlimited)
        else processes * HOST_THREADS_PER_GUEST_THREAD + GVISOR_THREADS,
    )
