"""The doctor proves each limit in a real box, and names for each failure what to change."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policy.limits import LIMITS
from sandbox.cgroup_places import CgroupController, CgroupPlace, CgroupVersion
from sandbox.cgroups import CgroupParent, CgroupsUnavailable, MissingController
from sandbox.doctor import (
    NOTHING_KNOWN_MISSING,
    OLD_GVISOR_DAYS,
    Check,
    Verdict,
    cgroup_checks,
    enforced_otherwise,
    gvisor_check,
    host_checks,
    imports_check,
    missing_gvisor_check,
    network_check,
    probe_checks,
    start_check,
    untried_checks,
)
from sandbox.gvisor import Runsc, RunscOrigin
from sandbox.launch import Launch, LaunchAttempt, LaunchError
from sandbox.preflight import CGROUP_MOUNT, PIECES, HostFacts, Surroundings
from sandbox.probes import PROBES
from sandbox.release import ReleaseSource
from sandbox.spec import NetworkMode
from tests.sandbox.conftest import Place
from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE, debians_runsc
from tests.sandbox.namespaces import needs_namespaces

NO_CGROUPS = CgroupsUnavailable(reason="there are none in this test", remedy="Mount them")


WORKS = {"clone": 0, "unshare": 0, "mount": 0, "pivot_root": 0}
FREE = HostFacts(
    surroundings=Surroundings.HOST,
    root=True,
    effective=frozenset({"SYS_ADMIN", "SETUID", "SETGID", "SYS_CHROOT", "SETFCAP"}),
    bounding=frozenset({"SYS_CHROOT"}),
    tried_as_root=WORKS,
    tried_rootless=WORKS,
)
CONTAINED = replace(FREE, surroundings=Surroundings.CONTAINER)
LAUNCH = Launch(arguments=("--rootless",), rootless=True, platform="systrap")


def runsc_of_age(days_old: int | None) -> Runsc:
    released = None if days_old is None else datetime.now(UTC).date() - timedelta(days=days_old)
    return Runsc(path=Path("/x/runsc"), version="20260810", origin=RunscOrigin.RELEASE, released=released)


@pytest.mark.gvisor
async def test_without_cgroups_the_three_limits_fail_and_the_others_are_still_proved(place: Place) -> None:
    equipment = replace(place.equipment, cgroups=NO_CGROUPS)

    bad = {check.name: check async for check in probe_checks(equipment, FREE) if check.verdict is Verdict.BAD}

    assert set(bad) == {"max_ram_megabytes", "max_cpus", "max_processes"}
    assert all(check.remedy for check in bad.values())


@pytest.mark.gvisor
async def test_where_no_box_starts_the_first_probe_says_what_to_change_and_the_rest_is_spared(
    place: Place, tmp_path: Path
) -> None:
    path = tmp_path / "runsc"
    path.write_text("#!/bin/sh\necho 'cannot read client sync file: EOF' >&2; exit 128\n")
    path.chmod(0o755)
    equipment = replace(place.equipment, runsc=replace(place.equipment.runsc, path=path))

    checks = [check async for check in probe_checks(equipment, replace(CONTAINED, effective=frozenset()))]

    assert [check.verdict for check in checks] == [Verdict.BAD]
    assert "cannot read client sync file" in checks[0].detail
    assert checks[0].remedy.startswith("Missing: the capability SETFCAP. Docker and Podman: `--cap-add SETFCAP`; ")


def test_every_limit_of_the_table_is_accounted_for() -> None:
    named = {probe.limit for probe in PROBES} | {check.name for check in enforced_otherwise()}

    assert named == {limit.name for limit in LIMITS}


@pytest.mark.parametrize(
    ("days_old", "verdict"),
    [
        (0, Verdict.GOOD),
        (OLD_GVISOR_DAYS, Verdict.GOOD),
        (OLD_GVISOR_DAYS + 1, Verdict.WARNING),
        (None, Verdict.WARNING),
    ],
)
def test_an_old_gvisor_or_one_of_unknown_age_is_a_warning_with_a_remedy(days_old: int | None, verdict: Verdict) -> None:
    check = gvisor_check(runsc_of_age(days_old), ReleaseSource(), LAUNCH)

    assert check.verdict is verdict
    assert bool(check.remedy) is (verdict is Verdict.WARNING)
    assert "20260810 (release" in check.detail
    assert check.detail.endswith("at /x/runsc, rootless on systrap")


@pytest.mark.gvisor
@pytest.mark.parametrize(("suite", "version"), GVISOR_OF_SUITE.items())
def test_what_debian_ships_is_said_to_be_old(suite: str, version: str) -> None:
    check = gvisor_check(debians_runsc(suite), ReleaseSource(), None)

    assert check.verdict is Verdict.WARNING
    assert re.match(rf"{version}\.0 \(preinstalled, \d{{3,4}} days old\) at /", check.detail)
    assert check.remedy.startswith("Use a newer release: `sandbox install` fetches 20260810; ")


def test_the_remedy_for_an_old_release_is_not_to_install_it_again() -> None:
    check = gvisor_check(runsc_of_age(OLD_GVISOR_DAYS + 1), ReleaseSource(version="20260810"), LAUNCH)

    assert check.remedy == (
        "Use a newer release: set SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512 to one, then `sandbox install`"
    )


def test_a_missing_gvisor_is_named_as_such_with_how_to_get_one() -> None:
    check = missing_gvisor_check(ReleaseSource(min_version="20240729"))

    assert (check.name, check.verdict) == ("gVisor", Verdict.BAD)
    assert "at least version 20240729" in check.detail
    assert check.remedy.startswith("Run `sandbox install` as the user that runs code")
    assert "run_code.py --use-sample-code" in check.remedy


def test_a_missing_gvisor_that_no_installation_could_replace_has_a_remedy_of_its_own() -> None:
    check = missing_gvisor_check(ReleaseSource(min_version="20991231"))

    assert "sandbox install" not in check.remedy
    assert "SANDBOX_GVISOR_VERSION and SANDBOX_GVISOR_SHA512 to a newer release" in check.remedy


def test_where_no_box_was_tried_the_missing_piece_is_named_all_the_same() -> None:
    refused = {"clone": 1, "unshare": 1}
    facts = replace(CONTAINED, filtered=True, tried_as_root=refused, tried_rootless=refused)

    (check,) = untried_checks(facts, "20260810")

    assert check.verdict is Verdict.BAD
    assert check.remedy.startswith("Missing: a system call filter that permits namespaces and mounts. ")
    assert untried_checks(FREE, "20260810") == ()


def test_where_no_box_starts_gvisor_is_quoted_and_the_one_missing_thing_named() -> None:
    error = LaunchError(
        [LaunchAttempt(launch=LAUNCH, said="permission denied"), LaunchAttempt(launch=LAUNCH, said="x")]
    )
    refused = {"clone": 1, "unshare": 1}
    facts = replace(CONTAINED, filtered=True, tried_as_root=refused, tried_rootless=refused)

    check = start_check(error, "20240729", facts)

    assert (check.name, check.verdict) == ("languages", Verdict.BAD)
    assert "tried rootless on systrap: permission denied; rootless on systrap: x (" in check.detail
    assert check.remedy == (
        "Missing: a system call filter that permits namespaces and mounts. Docker and Podman: "
        "`--security-opt seccomp=unconfined`; Kubernetes: `seccompProfile: {type: Unconfined}`. See docs/setup.md"
    )


def test_where_nothing_is_known_to_be_missing_that_is_said() -> None:
    error = LaunchError([LaunchAttempt(launch=LAUNCH, said="something new")])

    assert start_check(error, "20240729", FREE).remedy == NOTHING_KNOWN_MISSING


def test_in_a_container_the_missing_piece_of_cgroups_is_named_alone() -> None:
    (check, *_) = cgroup_checks(NO_CGROUPS, replace(CONTAINED, cgroups_read_only=True))

    assert check.remedy.startswith(f"Missing: {CGROUP_MOUNT.name}. Docker and Podman: `{CGROUP_MOUNT.docker}`; ")
    assert [piece.name for piece in PIECES if piece.name in check.remedy] == [CGROUP_MOUNT.name]


def test_without_cgroups_each_controller_fails_with_its_remedy() -> None:
    checks = cgroup_checks(NO_CGROUPS, FREE)

    assert [check.name for check in checks] == [f"cgroup {controller}" for controller in CgroupController]
    assert {(check.verdict, check.detail, check.remedy) for check in checks} == {
        (Verdict.BAD, NO_CGROUPS.reason, NO_CGROUPS.remedy)
    }


def test_one_missing_controller_fails_alone() -> None:
    place = CgroupPlace(
        folder=Path("/sys/fs/cgroup"), version=CgroupVersion.V2, controllers=frozenset({"memory", "cpu"})
    )
    lack = MissingController(controller=CgroupController.PIDS, reason="not here", remedy="Mount it")

    checks = {check.name: check for check in cgroup_checks(CgroupParent(places=(place,), missing=(lack,)), FREE)}

    assert checks["cgroup pids"] == Check(name="cgroup pids", verdict=Verdict.BAD, detail="not here", remedy="Mount it")
    assert checks["cgroup memory"].detail == "for max_ram_megabytes, below /sys/fs/cgroup"
    assert checks["cgroup cpu"].verdict is Verdict.GOOD


def test_the_host_is_named_with_kernel_machine_and_kind_of_place() -> None:
    (check,) = host_checks(Surroundings.KUBERNETES)

    assert re.fullmatch(r"\w+ \S+, \w+, in a Kubernetes pod", check.detail)


@pytest.mark.gvisor
@pytest.mark.parametrize("way", [NetworkMode.PROXY, pytest.param(NetworkMode.NAMESPACE, marks=needs_namespaces)])
async def test_the_way_out_of_boxes_is_tried(place: Place, way: NetworkMode) -> None:
    check = await network_check(replace(place.equipment, network_way=way), FREE)

    assert (check.name, check.verdict) == (f"SANDBOX_NETWORK_MODE={way.value}", Verdict.GOOD), check
    assert check.detail.startswith("proved: ")


@pytest.mark.gvisor
async def test_way_out_that_decides_nothing_fails(place: Place) -> None:
    check = await network_check(replace(place.equipment, network_way=NetworkMode.NONE), FREE)

    assert (check.verdict, check.detail.partition(":")[0]) == (Verdict.BAD, "it did not hold")


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        (replace(CONTAINED, effective=FREE.effective), "Missing: the capability NET_ADMIN. Docker and Podman: "),
        (replace(FREE, effective=FREE.effective | {"NET_ADMIN"}), "Run it as root with "),
    ],
    ids=["capability", "unknown"],
)
async def test_namespaces_that_cannot_be_had_are_refused_with_what_is_missing(
    place: Place, facts: HostFacts, remedy: str
) -> None:
    rootless = replace(place.equipment.runsc, arguments=("--rootless",))
    equipment = replace(place.equipment, runsc=rootless, network_way=NetworkMode.NAMESPACE)

    check = await network_check(equipment, facts)

    assert check.verdict is Verdict.BAD
    assert check.detail.startswith("no network namespace: gVisor starts boxes without privileges here")
    assert check.remedy.startswith(remedy)
    assert check.remedy.endswith("or set SANDBOX_NETWORK_MODE=proxy, which needs no such rights")


@pytest.mark.gvisor
async def test_modules_to_import_beforehand_are_tried(place: Place) -> None:
    good = await imports_check(place.equipment, ("json", "os.path"))
    bad = await imports_check(place.equipment, ("json", "no_such_module"))

    assert (good.verdict, good.detail) == (Verdict.GOOD, "json, os.path can be imported")
    assert (bad.verdict, bad.detail) == (Verdict.WARNING, "a box cannot import no_such_module")
    assert "SANDBOX_PACKAGES_PATH" in bad.remedy
