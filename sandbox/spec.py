"""Compiles a request, purely, to an OCI spec, `runsc` arguments and cgroup limits. Goldens show each.

Nothing a person wrote enters any of them: not the code, not who asks. The box sees its own tree, read-only, and one
writable file system whose size is limited.

Source: OCI runtime specification 1.0.2; `runsc flags`.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

from policy.effective import EffectiveLimits
from policy.limits import (
    MAX_CPUS,
    MAX_DISK_MEGABYTES,
    MAX_PROCESSES,
    MAX_RAM_MEGABYTES,
    NETWORK_ALLOWLIST,
    NETWORKING_ALLOWED,
)
from policy.values import Unlimited
from sandbox.cgroup_limits import CgroupLimits
from sandbox.forwarder import EGRESS_FOLDER, PROXY_ENVIRONMENT
from sandbox.packages import BOX_PACKAGES, Packages
from sandbox.starters import starter_command
from sandbox.tree import FileTree
from sandbox.tree_build import BOX_UID

STARTUP_RAM_BYTES = 192 << 20
"""RAM on top of the limit until a box is ready, for gVisor, the interpreter and what it imports beforehand."""
GVISOR_GROWTH_BYTES = 16 << 20
"""RAM on top of the limit and of what a ready box uses, for gVisor's own kernel, which grows while code runs."""
GVISOR_THREADS = 1_024
"""Threads on top of the limit for gVisor itself, which shares the cgroup; each guest thread needs several outside."""
HOST_THREADS_PER_GUEST_THREAD = 4
BOX_DIGEST_ANNOTATION = "io.sandbox-lockdown.box-digest"
"""Where a box says what it was made from. A box that waits is nobody's yet, so this is the digest of what it enforces
itself; the record of a run holds it beside the digest of all limits."""
BOX_ENVIRONMENT = (
    "PATH=/usr/bin",
    "HOME=/tmp",
    "TMPDIR=/tmp",
    "USER=sandbox",
    "LANG=C.UTF-8",
    "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
)
THREADS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""By what numpy and its kin are told how many threads to start. Source: the manuals of OpenMP, OpenBLAS and MKL."""
_PROC_MOUNT = {"destination": "/proc", "type": "proc", "source": "proc"}
_KILOBYTE = 1 << 10
_MEGABYTE = 1 << 20
_SHARED_MEMORY_PART = 4


class NetworkMode(Enum):
    """What network a box has."""

    NONE = "none"
    """Its own loopback alone."""
    PROXY = "proxy"
    """Its own loopback, and a socket in its file system that leads to an egress proxy outside."""
    NAMESPACE = "namespace"
    """A network namespace of its own, in which every connection comes to the runner."""


_NETWORK_FLAGS = {
    NetworkMode.NONE: ("--network=none",),
    NetworkMode.PROXY: ("--network=none", "--host-uds=open"),
    NetworkMode.NAMESPACE: ("--network=host",),
}
"""`open` lets a box connect to sockets in what is mounted into it: there is one. `host` is the namespace it is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Everything that gVisor and the kernel are told about one run."""

    spec: dict[str, Any]
    """The OCI spec, as `config.json` holds it but for the annotation."""
    runsc_flags: tuple[str, ...]
    """Flags before `run` that follow from the limits."""
    cgroup_limits: CgroupLimits
    """What the run's cgroup is set to."""
    network: NetworkMode
    """What network the box has."""
    network_notice: str
    """Why there is none, for people whose code failed; empty where there is one."""


def compile_run(
    language: str,
    limits: EffectiveLimits,
    tree: FileTree,
    *,
    packages: Packages | None = None,
    imports: tuple[str, ...] = (),
    way: NetworkMode = NetworkMode.PROXY,
) -> Compiled:
    """The one description of a run that follows from its language and limits.

    Args:
        language: `python` or `bash`.
        limits: what policy decided.
        tree: what the box sees.
        packages: what the administrator offers beside it.
        imports: modules that its interpreter imports before it waits for code.
        way: how it reaches what its limits permit, if they permit anything.
    """
    mode, notice = network_mode(limits, way)
    forwards = mode is NetworkMode.PROXY
    return Compiled(
        spec={
            "ociVersion": "1.0.2",
            "process": _process(
                _rlimits(limits, beside=1 if forwards else 0),
                arguments=starter_command(
                    language,
                    python=tree.python,
                    bash=tree.bash,
                    packages=BOX_PACKAGES if packages else "",
                    imports=imports,
                    forwards=forwards,
                ),
                environment=(
                    *BOX_ENVIRONMENT,
                    *_packages_environment(limits, packages),
                    *(PROXY_ENVIRONMENT if forwards else ()),
                ),
            ),
            "root": {"path": str(tree.root), "readonly": True},
            "hostname": "sandbox",
            "mounts": [_PROC_MOUNT, *_writable_mounts(limits), *_packages_mounts(packages)],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
        },
        runsc_flags=_NETWORK_FLAGS[mode],
        cgroup_limits=_cgroup_limits(limits),
        network=mode,
        network_notice=notice,
    )


def network_mode(limits: EffectiveLimits, way: NetworkMode = NetworkMode.PROXY) -> tuple[NetworkMode, str]:
    """Which network a run gets, and why none where it gets none."""
    if not limits[NETWORKING_ALLOWED]:
        origin = limits.origin_of(NETWORKING_ALLOWED)
        return NetworkMode.NONE, f"The run had no network: networking_allowed is false, by {origin}."
    if not limits[NETWORK_ALLOWLIST]:
        origin = limits.origin_of(NETWORK_ALLOWLIST)
        return NetworkMode.NONE, f"The run had no network: network_allowlist, by {origin}, allows no destination."
    return way, ""


def egress_mount(folder: Path) -> dict[str, Any]:
    """The mount of one box's own folder with the socket of its proxy."""
    options = ["bind", "ro", "nosuid", "nodev", "noexec"]
    return {"destination": EGRESS_FOLDER, "type": "bind", "source": str(folder), "options": options}


def _process(
    rlimits: list[dict[str, Any]], *, arguments: tuple[str, ...], environment: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "terminal": False,
        "user": {"uid": BOX_UID, "gid": BOX_UID},
        "args": list(arguments),
        "env": list(environment),
        "cwd": "/tmp",  # noqa: S108 -- the box's own, empty and its only writable place
        "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        "rlimits": rlimits,
        "noNewPrivileges": True,
    }


def _packages_mounts(packages: Packages | None) -> list[dict[str, Any]]:
    """The packages alone: what is mounted below them on the host is not."""
    if packages is None:
        return []
    options = ["bind", "ro", "nosuid", "nodev"]
    return [{"destination": BOX_PACKAGES, "type": "bind", "source": str(packages.folder), "options": options}]


def _packages_environment(limits: EffectiveLimits, packages: Packages | None) -> list[str]:
    """What tells programs where packages are, and how many threads a numerical library may start by itself.

    Left alone it starts one for each of the host's processors, and fails where there are more than processes permitted.
    """
    if packages is None:
        return []
    threads = _threads(limits)
    return [f"PYTHONPATH={BOX_PACKAGES}", *(f"{name}={threads}" for name in THREADS_VARIABLES if threads is not None)]


def _threads(limits: EffectiveLimits) -> int | None:
    """As many as there are processors to run them on, and processes to spare."""
    cpus, processes = limits[MAX_CPUS], limits[MAX_PROCESSES]
    bounds = [
        *(() if isinstance(cpus, Unlimited) else (math.ceil(cpus),)),
        *(() if isinstance(processes, Unlimited) else (processes // 2,)),
    ]
    return max(1, min(bounds)) if bounds else None


def _rlimits(limits: EffectiveLimits, *, beside: int) -> list[dict[str, Any]]:
    ceilings = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1_024}
    processes = limits[MAX_PROCESSES]
    if not isinstance(processes, Unlimited):
        ceilings["RLIMIT_NPROC"] = processes + beside
    return [{"type": name, "soft": value, "hard": value} for name, value in ceilings.items()]


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


def _cgroup_limits(limits: EffectiveLimits) -> CgroupLimits:
    megabytes, cpus, processes = limits[MAX_RAM_MEGABYTES], limits[MAX_CPUS], limits[MAX_PROCESSES]
    return CgroupLimits(
        memory_bytes=None if isinstance(megabytes, Unlimited) else megabytes * _MEGABYTE + STARTUP_RAM_BYTES,
        cpu_thousandths=int(cpus * 1_000) if isinstance(cpus, Decimal) else None,
        processes_hard_stop=None
        if isinstance(processes, Unlimited)
        else processes * HOST_THREADS_PER_GUEST_THREAD + GVISOR_THREADS,
    )
