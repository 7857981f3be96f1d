"""Says, check by check, whether this host can enforce each limit, and for each failure the exact remedy.

What can be proved is proved: each limit is held against code that tries to break it, in a real box. The facts that are
only read (container, seccomp, user namespaces) serve to name the remedy that fits.

Source: the settings of Docker and Kubernetes that gVisor needs are those measured in `docs/setup.md`.
"""

import math
import os
import platform
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

from policy.effective import fixed_limits
from policy.limits import LIMITS
from policy.values import UNLIMITED
from sandbox.cgroups import LIMIT_OF_CONTROLLER, CgroupController, CgroupParent, CgroupsUnavailable, MissingController
from sandbox.equipment import Equipment
from sandbox.errors import SandboxError
from sandbox.outcome import Outcome, RunResult
from sandbox.request import RunRequest
from sandbox.runner import Runner

PROBE_PLACE = "probe of sandbox doctor"
MACHINES = ("x86_64", "aarch64")
OLD_GVISOR_DAYS = 180


class Verdict(Enum):
    """What a check found."""

    GOOD = "ok"
    """As it should be."""
    WARNING = "warning"
    """It works, and should be looked at."""
    BAD = "failed"
    """A limit cannot be enforced, or nothing can run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    """What, for people."""
    verdict: Verdict
    """What was found."""
    detail: str
    """In what state it is, or why it failed."""
    remedy: str = ""
    """What to do, where something is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Code that tries to break one limit, and how one sees that it could not."""

    limit: str
    """Name of the limit that it proves."""
    language: str
    """`python` or `bash`."""
    code: str
    """What it tries."""
    values: Mapping[str, Any]
    """Values of limits that differ from the built-ins."""
    held: Callable[[RunResult], bool]
    """Whether the limit held."""
    shows: str
    """What it showed if it held, for people."""


_CPU_SHARE_AT_A_FIFTH = 0.3
_PROCESSES_AT_EIGHT = 8
_PROBE_VALUES = {"require_resource_limiting": False, "debug": True, "max_instance_runs": UNLIMITED}
_CALM = {"networking_allowed": False, "max_runtime_seconds": 10}

PROBES = (
    Probe(
        limit="languages",
        language="python",
        code="print(6 * 7)",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output == "42\n",
        shows="Python runs",
    ),
    Probe(
        limit="languages",
        language="bash",
        code="echo $((6 * 7))",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output == "42\n",
        shows="Bash runs",
    ),
    Probe(
        limit="networking_allowed",
        language="python",
        code="import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
        "\ntry: s.connect(('192.0.2.1', 9)); print('reached')"
        "\nexcept OSError: print('closed')",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output.endswith("closed\n"),
        shows="no route leads out",
    ),
    Probe(
        limit="max_runtime_seconds",
        language="python",
        code="import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
        values={**_CALM, "max_runtime_seconds": 1},
        held=lambda result: result.outcome is Outcome.TIMED_OUT,
        shows="endless code was stopped after 1 second",
    ),
    Probe(
        limit="max_ram_megabytes",
        language="python",
        code="b = bytearray(256 << 20)\nprint(len(b))",
        values={**_CALM, "max_ram_megabytes": 64},
        held=lambda result: result.outcome is Outcome.OUT_OF_MEMORY,
        shows="256 megabytes were not to be had at a limit of 64",
    ),
    Probe(
        limit="max_cpus",
        language="python",
        code="import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass",
        values={**_CALM, "max_cpus": Decimal("0.2")},
        held=lambda result: _cpu_share(result) < _CPU_SHARE_AT_A_FIFTH,
        shows="a busy loop got about a fifth of a CPU",
    ),
    Probe(
        limit="max_processes",
        language="python",
        code="import os\nmade = 0\ntry:\n    while made < 40:\n        if os.fork() == 0: os.read(0, 1); os._exit(0)"
        "\n        made += 1\nexcept OSError: pass\nprint(made)",
        values={**_CALM, "max_processes": 8},
        held=lambda result: result.output.strip().isdecimal() and int(result.output) < _PROCESSES_AT_EIGHT,
        shows="no more than 8 processes were to be had",
    ),
    Probe(
        limit="max_disk_megabytes",
        language="bash",
        code="head -c 16M /dev/zero > /tmp/a; head -c 16M /dev/zero > /dev/shm/b; wc -c < /tmp/a; wc -c < /dev/shm/b",
        values={**_CALM, "max_disk_megabytes": 4},
        held=lambda result: sum(int(word) for word in result.stream("stdout").split()) <= 4 << 20,
        shows="32 megabytes did not fit into 4",
    ),
    Probe(
        limit="max_output_kilobytes",
        language="bash",
        code="head -c 1M /dev/zero",
        values={**_CALM, "max_output_kilobytes": 8},
        held=lambda result: result.truncated and len(result.stream("stdout")) == 8 << 10,
        shows="of 1 megabyte, 8 kilobytes were kept",
    ),
)


def host_checks() -> tuple[Check, ...]:
    """What can be said of this host before anything runs."""
    machine = platform.machine()
    known = platform.system() == "Linux" and machine in MACHINES
    return (
        Check(
            name="machine",
            verdict=Verdict.GOOD if known else Verdict.BAD,
            detail=f"{platform.system()} {platform.release()}, {machine}, {container_words()}",
            remedy="" if known else "Run on Linux, x86_64 or aarch64; Docker Desktop's own Linux will do",
        ),
    )


def gvisor_check(equipment: Equipment) -> Check:
    """Which gVisor runs the boxes, and whether it is old."""
    age = equipment.runsc.age_days(datetime.now(UTC).date())
    old = age is None or age > OLD_GVISOR_DAYS
    return Check(
        name="gVisor",
        verdict=Verdict.WARNING if old else Verdict.GOOD,
        detail=f"{equipment.gvisor_words} at {equipment.runsc.path}",
        remedy="Use a newer release: `sandbox install`, or SANDBOX_GVISOR_MIN_VERSION to require one" if old else "",
    )


def cgroup_checks(cgroups: CgroupParent | CgroupsUnavailable) -> tuple[Check, ...]:
    """Whether this process can make the cgroups that RAM, CPU and process limits need."""
    return tuple(_controller_check(controller, cgroups) for controller in CgroupController)


def _controller_check(controller: CgroupController, cgroups: CgroupParent | CgroupsUnavailable) -> Check:
    name = f"cgroup {controller.value}"
    lack = _lack(controller, cgroups)
    if lack is not None:
        return Check(name=name, verdict=Verdict.BAD, detail=lack.reason, remedy=lack.remedy)
    places = cgroups.places if isinstance(cgroups, CgroupParent) else ()
    where = next(place.folder for place in places if controller.value in place.controllers)
    return Check(name=name, verdict=Verdict.GOOD, detail=f"for {LIMIT_OF_CONTROLLER[controller]}, below {where}")


def _lack(
    controller: CgroupController, cgroups: CgroupParent | CgroupsUnavailable
) -> CgroupsUnavailable | MissingController | None:
    if isinstance(cgroups, CgroupsUnavailable):
        return cgroups
    return next((missing for missing in cgroups.missing if missing.controller is controller), None)


async def probe_checks(equipment: Equipment) -> AsyncIterator[Check]:
    """Hold each limit against code that tries to break it; the slowest takes two seconds."""
    runner = Runner(equipment)
    for probe in PROBES:
        limits = fixed_limits({**probe.values, **_PROBE_VALUES}, PROBE_PLACE)
        request = RunRequest(language=probe.language, code=probe.code, limits=limits, person=PROBE_PLACE)
        try:
            yield _judged(probe, await runner.run(request))
        except SandboxError as error:
            yield Check(
                name=probe.limit,
                verdict=Verdict.BAD,
                detail=f"{error.reason} ({error.origin})",
                remedy=start_remedy(),
            )
            return


def _cpu_share(result: RunResult) -> float:
    """CPU time for each second of the box's life, by the kernel's count; endless where nothing counted it."""
    if result.cpu_seconds is None:
        return math.inf
    return result.cpu_seconds / (result.startup_seconds + result.wall_seconds)


async def commands_check(equipment: Equipment) -> Check:
    """Whether this gVisor knows the system calls of this host's everyday commands; Debian's of 2022 does not."""
    limits = fixed_limits({**_CALM, **_PROBE_VALUES}, PROBE_PLACE)
    request = RunRequest(language="bash", code="ls -l / && stat /", limits=limits, person=PROBE_PLACE)
    result = await Runner(equipment).run(request)
    if result.outcome is Outcome.OK:
        return Check(name="commands", verdict=Verdict.GOOD, detail="ls and stat work in a box")
    return Check(
        name="commands",
        verdict=Verdict.WARNING,
        detail="`ls PATH` and `stat` fail in a box: this gVisor is too old for this host's commands; Python is fine",
        remedy="Use a newer gVisor: `sandbox install` where the official release is in reach, or Debian 13's package",
    )


def enforced_otherwise() -> tuple[Check, ...]:
    """The limits that need no proof on the host: they are this program's own doing."""
    proved = {probe.limit for probe in PROBES}
    own = {
        "network_allowlist": "boxes get no network unless it is public and private destinations are allowed too",
        "network_private_allowed": "as network_allowlist",
        "auto_install": "decided before anything is downloaded",
        "max_file_megabytes": "this version hands no files in or out",
        "max_concurrent_runs": "counted with locked files in the private folder",
        "max_instance_runs": "counted with locked files in the private folder",
        "require_resource_limiting": "decided before each run",
        "debug": "decided before anything is shown",
    }
    return tuple(
        Check(name=limit.name, verdict=Verdict.GOOD, detail=own[limit.name])
        for limit in LIMITS
        if limit.name not in proved
    )


def start_remedy() -> str:
    """What to change where boxes do not start at all, by what kind of place this is; docs/setup.md has the proofs."""
    if _inside_gvisor():
        return "This process runs inside gVisor, which cannot run gVisor: run it on another node, without that runtime"
    if os.geteuid() != 0:
        return "Run as root: this version starts boxes only as root; see docs/setup.md"
    kind = container_words()
    if kind == "in a Kubernetes pod":
        return (
            "In the container's securityContext: `privileged: true` (the easy way, and the only one with RAM, CPU and "
            "process limits), or `capabilities: {add: [SYS_ADMIN]}`, `seccompProfile: {type: Unconfined}` and "
            "`appArmorProfile: {type: Unconfined}`; on SELinux `seLinuxOptions: {type: container_engine_t}`; "
            "see docs/setup.md"
        )
    if kind == "in a container":
        return (
            "Docker: `--privileged --cgroupns=host` (the easy way), or `--cap-add SYS_ADMIN --security-opt "
            "seccomp=unconfined --security-opt apparmor=unconfined --cgroupns=host "
            "-v /sys/fs/cgroup:/sys/fs/cgroup:rw`; on SELinux also `--security-opt label=type:container_engine_t`; "
            "see docs/setup.md"
        )
    return "Use a kernel that permits namespaces: `sysctl user.max_user_namespaces` must not be 0; see docs/setup.md"


def container_words() -> str:
    """What kind of place this is."""
    if Path("/var/run/secrets/kubernetes.io").exists():
        return "in a Kubernetes pod"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "in a container"
    return "not in a container"


def _judged(probe: Probe, result: RunResult) -> Check:
    unenforced = probe.limit in result.unenforced
    if not unenforced and probe.held(result):
        return Check(name=probe.limit, verdict=Verdict.GOOD, detail=f"proved: {probe.shows}")
    reason = "this host lacks its cgroup (see above)" if unenforced else f"it did not hold: {result.sentence}"
    return Check(
        name=probe.limit,
        verdict=Verdict.BAD,
        detail=reason,
        remedy="Mend the cgroup checks above" if unenforced else "Report this with the output of `runsc --version`",
    )


def _inside_gvisor() -> bool:
    try:
        return "gVisor" in Path("/proc/version").read_text()
    except OSError:
        return False
