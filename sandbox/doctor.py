"""Says, check by check, whether this host can enforce each limit, and for each failure the exact remedy.

What can be proved is proved: each limit is held against code that tries to break it, in a real box. The facts of this
host (rights, filters, what a child is let do) serve to name the one remedy that fits; `preflight` knows it.
"""

import platform
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

from policy.limits import LIMITS
from sandbox.cgroup_places import LIMIT_OF_CONTROLLER, CgroupController
from sandbox.cgroups import CgroupParent, CgroupsUnavailable, MissingController
from sandbox.equipment import Equipment, runsc_words
from sandbox.errors import SandboxError, StartError, UnenforceableError
from sandbox.gvisor import Runsc
from sandbox.launch import Launch
from sandbox.network_namespace import OR_PROXY
from sandbox.outcome import Outcome, RunResult
from sandbox.preflight import (
    HostFacts,
    Surroundings,
    lacking,
    lacking_for_cgroups,
    lacking_for_namespaces,
    remedy_words,
)
from sandbox.probes import COMMANDS_PROBE, PROBES, Probe, import_probe, network_probe
from sandbox.release import ReleaseSource, release_below_minimum, version_reaches
from sandbox.runner import Runner
from sandbox.runsc_program import HOW_TO_PRE_INSTALL

MACHINES = ("x86_64", "aarch64")
OLD_GVISOR_DAYS = 180
NOTHING_KNOWN_MISSING = (
    "Nothing that is known to be needed is missing here. Compare with docs/setup.md, and report this with the output "
    "of `runsc --version`"
)


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


def host_checks(surroundings: Surroundings) -> tuple[Check, ...]:
    """What can be said of this host before anything runs."""
    machine = platform.machine()
    known = platform.system() == "Linux" and machine in MACHINES
    return (
        Check(
            name="machine",
            verdict=Verdict.GOOD if known else Verdict.BAD,
            detail=f"{platform.system()} {platform.release()}, {machine}, {surroundings}",
            remedy="" if known else "Run on Linux, x86_64 or aarch64; Docker Desktop's own Linux will do",
        ),
    )


def gvisor_check(runsc: Runsc, source: ReleaseSource, launch: Launch | None) -> Check:
    """Which gVisor runs the boxes and how it is started, and whether it is old."""
    age = runsc.age_days(datetime.now(UTC).date())
    old = age is None or age > OLD_GVISOR_DAYS
    return Check(
        name="gVisor",
        verdict=Verdict.WARNING if old else Verdict.GOOD,
        detail=f"{runsc_words(runsc)} at {runsc.path}{f', {launch.words}' if launch else ''}",
        remedy=f"Use a newer release: {_newer_words(runsc, source)}" if old else "",
    )


def _newer_words(runsc: Runsc, source: ReleaseSource) -> str:
    """What puts a newer gVisor in the place of this one: the release to install does, only where it is newer."""
    if version_reaches(runsc.version, source.version):
        return "set SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512 to one, then `sandbox install`"
    return (
        f"`sandbox install` fetches {source.version}; where that is out of reach, put a newer runsc into a folder of "
        "PATH, and SANDBOX_GVISOR_MIN_VERSION to its version"
    )


def missing_gvisor_check(source: ReleaseSource) -> Check:
    """That there is no gVisor to run anything, and how to get one."""
    least = f" of at least version {source.min_version}" if source.min_version else ""
    useless = release_below_minimum(source)
    return Check(
        name="gVisor",
        verdict=Verdict.BAD,
        detail=f"there is no usable one{least} on this host, and doctor installs nothing",
        remedy=useless.remedy if useless else HOW_TO_PRE_INSTALL,
    )


def error_check(error: SandboxError) -> Check:
    """What kept the doctor from going on."""
    return Check(name=error.key, verdict=Verdict.BAD, detail=f"{error.reason} ({error.origin})", remedy=error.remedy)


def untried_checks(facts: HostFacts, gvisor_version: str) -> tuple[Check, ...]:
    """What starting boxes would lack here, found where none could be tried; nothing where nothing is known to lack."""
    pieces = lacking(facts, gvisor_version, "")
    if not pieces:
        return ()
    detail = "no box was tried, and none would start here"
    return (_start_failure(detail, remedy_words(pieces, facts.surroundings)),)


def _start_failure(detail: str, remedy: str) -> Check:
    return Check(name=PROBES[0].limit, verdict=Verdict.BAD, detail=detail, remedy=remedy)


def cgroup_checks(cgroups: CgroupParent | CgroupsUnavailable, facts: HostFacts) -> tuple[Check, ...]:
    """Whether this process can make the cgroups that RAM, CPU and process limits need."""
    return tuple(_controller_check(controller, cgroups, facts) for controller in CgroupController)


def _controller_check(
    controller: CgroupController, cgroups: CgroupParent | CgroupsUnavailable, facts: HostFacts
) -> Check:
    name = f"cgroup {controller.value}"
    lack = _lack(controller, cgroups)
    if lack is not None:
        pieces = () if facts.surroundings is Surroundings.HOST else lacking_for_cgroups(facts)
        remedy = remedy_words(pieces, facts.surroundings) if pieces else lack.remedy
        return Check(name=name, verdict=Verdict.BAD, detail=lack.reason, remedy=remedy)
    places = cgroups.places if isinstance(cgroups, CgroupParent) else ()
    where = next(place.folder for place in places if controller.value in place.controllers)
    return Check(name=name, verdict=Verdict.GOOD, detail=f"for {LIMIT_OF_CONTROLLER[controller]}, below {where}")


def _lack(
    controller: CgroupController, cgroups: CgroupParent | CgroupsUnavailable
) -> CgroupsUnavailable | MissingController | None:
    if isinstance(cgroups, CgroupsUnavailable):
        return cgroups
    return next((missing for missing in cgroups.missing if missing.controller is controller), None)


def start_check(error: SandboxError, gvisor_version: str, facts: HostFacts) -> Check:
    """Why no box starts: what gVisor said, and the one thing that is missing."""
    told = error.with_internals() if isinstance(error, StartError) else error
    pieces = lacking(facts, gvisor_version, told.reason)
    remedy = remedy_words(pieces, facts.surroundings) if pieces else NOTHING_KNOWN_MISSING
    return _start_failure(f"{told.reason} ({told.origin})", remedy)


async def probe_checks(equipment: Equipment, facts: HostFacts) -> AsyncIterator[Check]:
    """Hold each limit against code that tries to break it; the slowest takes two seconds."""
    async with Runner(equipment) as runner:
        for probe in PROBES:
            try:
                yield _judged(probe, await runner.run(probe.request()))
            except SandboxError as error:
                yield replace(start_check(error, equipment.runsc.version, facts), name=probe.limit)
                return


async def network_check(equipment: Equipment, facts: HostFacts) -> Check:
    """Whether the way out of boxes that was chosen is there, and decides."""
    name = f"SANDBOX_NETWORK_MODE={equipment.network_way.value}"
    probe = network_probe()
    try:
        async with Runner(equipment) as runner:
            result = await runner.run(probe.request())
    except UnenforceableError as error:
        pieces = lacking_for_namespaces(facts)
        remedy = f"{remedy_words(pieces, facts.surroundings)}; {OR_PROXY}" if pieces else error.remedy
        return Check(name=name, verdict=Verdict.BAD, detail=f"{error.reason} ({error.origin})", remedy=remedy)
    except SandboxError as error:
        return replace(start_check(error, equipment.runsc.version, facts), name=name)
    return replace(_judged(probe, result), name=name)


async def commands_check(equipment: Equipment, source: ReleaseSource) -> Check:
    """Whether this gVisor knows the system calls of this host's everyday commands; Debian's of 2022 does not."""
    async with Runner(equipment) as runner:
        result = await runner.run(COMMANDS_PROBE.request())
    if result.outcome is Outcome.OK:
        return Check(name="commands", verdict=Verdict.GOOD, detail="ls and stat work in a box")
    return Check(
        name="commands",
        verdict=Verdict.WARNING,
        detail="`ls PATH` and `stat` fail in a box: this gVisor is too old for this host's commands; Python is fine",
        remedy=f"Use a newer release: {_newer_words(equipment.runsc, source)}",
    )


async def imports_check(equipment: Equipment, modules: Sequence[str]) -> Check:
    """Whether a box can import what SANDBOX_POOL_IMPORTS lists; a waiting box silently leaves out what it cannot."""
    async with Runner(equipment) as runner:
        result = await runner.run(import_probe(modules).request())
    failed = result.output.split()
    if result.outcome is Outcome.OK and not failed:
        return Check(name="SANDBOX_POOL_IMPORTS", verdict=Verdict.GOOD, detail=f"{', '.join(modules)} can be imported")
    reason = f"a box cannot import {', '.join(failed)}" if result.outcome is Outcome.OK else result.sentence
    return Check(
        name="SANDBOX_POOL_IMPORTS",
        verdict=Verdict.WARNING,
        detail=reason.removesuffix("."),
        remedy="Install it into SANDBOX_PACKAGES_PATH, or take it off the list",
    )


def enforced_otherwise() -> tuple[Check, ...]:
    """The limits that need no proof on the host: they are this program's own doing."""
    proved = {probe.limit for probe in PROBES}
    own = {
        "network_allowlist": "decided outside the box about each connection, before a name is resolved",
        "network_private_allowed": "decided outside the box, after a name is resolved",
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
