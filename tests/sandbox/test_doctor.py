"""The doctor proves each limit in a real box, and names for each failure what to change."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policy.limits import LIMITS
from sandbox.cgroups import (
    CgroupController,
    CgroupParent,
    CgroupPlace,
    CgroupsUnavailable,
    CgroupVersion,
    MissingController,
)
from sandbox.doctor import (
    OLD_GVISOR_DAYS,
    PROBES,
    Check,
    Verdict,
    cgroup_checks,
    container_words,
    enforced_otherwise,
    gvisor_check,
    host_checks,
    probe_checks,
    start_remedy,
)
from sandbox.equipment import Equipment
from sandbox.gvisor import Runsc, RunscOrigin
from sandbox.tree import FileTree
from tests.sandbox.conftest import Place

NO_CGROUPS = CgroupsUnavailable(reason="there are none in this test", remedy="Mount them")


def equipment_with(*, days_old: int | None, cgroups: CgroupParent | CgroupsUnavailable = NO_CGROUPS) -> Equipment:
    released = None if days_old is None else datetime.now(UTC).date() - timedelta(days=days_old)
    runsc = Runsc(path=Path("/x/runsc"), version="20260810", origin=RunscOrigin.RELEASE, released=released)
    tree = FileTree(root=Path("/x"), digest="d", python="p", bash="b", file_count=1, size_bytes=1, omitted=())
    return Equipment(runsc=runsc, tree=tree, cgroups=cgroups, folder=Path("/x"))


@pytest.mark.gvisor
async def test_without_cgroups_the_three_limits_fail_and_the_others_are_still_proved(place: Place) -> None:
    equipment = replace(place.equipment, cgroups=NO_CGROUPS)

    bad = {check.name: check async for check in probe_checks(equipment) if check.verdict is Verdict.BAD}

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

    checks = [check async for check in probe_checks(equipment)]

    assert [check.verdict for check in checks] == [Verdict.BAD]
    assert "cannot read client sync file" in checks[0].detail
    assert checks[0].remedy == start_remedy()


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
    check = gvisor_check(equipment_with(days_old=days_old))

    assert check.verdict is verdict
    assert bool(check.remedy) is (verdict is Verdict.WARNING)
    assert "20260810 (release" in check.detail


def test_without_cgroups_each_controller_fails_with_its_remedy() -> None:
    checks = cgroup_checks(NO_CGROUPS)

    assert [check.name for check in checks] == [f"cgroup {controller}" for controller in CgroupController]
    assert {(check.verdict, check.detail, check.remedy) for check in checks} == {
        (Verdict.BAD, NO_CGROUPS.reason, NO_CGROUPS.remedy)
    }


def test_one_missing_controller_fails_alone() -> None:
    place = CgroupPlace(
        folder=Path("/sys/fs/cgroup"), version=CgroupVersion.V2, controllers=frozenset({"memory", "cpu"})
    )
    lack = MissingController(controller=CgroupController.PIDS, reason="not here", remedy="Mount it")

    checks = {check.name: check for check in cgroup_checks(CgroupParent(places=(place,), missing=(lack,)))}

    assert checks["cgroup pids"] == Check(name="cgroup pids", verdict=Verdict.BAD, detail="not here", remedy="Mount it")
    assert checks["cgroup memory"].detail == "for max_ram_megabytes, below /sys/fs/cgroup"
    assert checks["cgroup cpu"].verdict is Verdict.GOOD


def test_the_host_is_named_with_kernel_machine_and_kind_of_place() -> None:
    (check,) = host_checks()

    assert re.fullmatch(r"\w+ \S+, \w+, (not in a container|in a container|in a Kubernetes pod)", check.detail)
    assert check.detail.endswith(container_words())


def test_the_remedy_for_boxes_that_do_not_start_names_settings() -> None:
    assert re.search(r"securityContext|--privileged|root|another node|sysctl", start_remedy())
