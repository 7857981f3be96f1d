import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cgroups import CgroupParent, CgroupsUnavailable, RunCgroup, make_cgroup
from sandbox.noted_cgroups import every_cgroup, noted_cgroup
from tests.sandbox.conftest import NO_LIMITS
from tests.sandbox.noted_runs import OTHER_RUN, RUN, note_of, own_cgroup_parent

NO_CGROUPS = CgroupsUnavailable(reason="none in this test", remedy="none")


@pytest.fixture
def parent() -> Iterator[CgroupParent]:
    with own_cgroup_parent() as found:
        yield found


@pytest.fixture
def cgroup(parent: CgroupParent) -> RunCgroup:
    return make_cgroup(parent, RUN, NO_LIMITS)


def folders_of(cgroup: RunCgroup) -> tuple[str, ...]:
    return tuple(str(place.folder) for place in cgroup.places)


def test_own_cgroups_are_found_again_with_what_they_count(cgroup: RunCgroup) -> None:
    found = noted_cgroup(note_of(cgroup_folders=folders_of(cgroup)), RUN)

    assert [place.folder for place in found.places] == [place.folder for place in cgroup.places]
    assert [place.version for place in found.places] == [place.version for place in cgroup.places]
    assert all(known.controllers <= place.controllers for known, place in zip(cgroup.places, found.places, strict=True))
    assert found.counters().oom_kills == 0


def test_cgroup_of_another_run_is_not_believed(cgroup: RunCgroup) -> None:
    assert noted_cgroup(note_of(cgroup_folders=folders_of(cgroup)), OTHER_RUN).places == ()


def test_cgroup_outside_our_folder_is_not_believed(cgroup: RunCgroup) -> None:
    inner = cgroup.places[0].folder / RUN
    inner.mkdir()
    try:
        assert noted_cgroup(note_of(cgroup_folders=(str(inner),)), RUN).places == ()
    finally:
        inner.rmdir()


def test_cgroup_of_another_user_is_not_believed(cgroup: RunCgroup) -> None:
    for place in cgroup.places:
        os.chown(place.folder, 65534, 65534)

    assert noted_cgroup(note_of(cgroup_folders=folders_of(cgroup)), RUN).places == ()


def test_way_through_a_link_is_not_believed(cgroup: RunCgroup, tmp_path: Path) -> None:
    real = cgroup.places[0].folder
    (tmp_path / "sandbox-lockdown").symlink_to(real.parent)
    detour = f"{real.parent.parent}/../{real.parent.parent.name}/{real.parent.name}/{RUN}"

    for path in (f"{tmp_path}/sandbox-lockdown/{RUN}", detour):
        assert noted_cgroup(note_of(cgroup_folders=(path,)), RUN).places == ()


def test_folder_that_only_looks_like_a_cgroup_is_not_believed(tmp_path: Path) -> None:
    lookalike = tmp_path / "sandbox-lockdown" / RUN
    lookalike.mkdir(parents=True)
    (lookalike / "cgroup.procs").write_text("1\n")

    assert noted_cgroup(note_of(cgroup_folders=(str(lookalike),)), RUN).places == ()


@pytest.mark.parametrize("path", [f"/\0/sandbox-lockdown/{RUN}", f"/\ud800/sandbox-lockdown/{RUN}", "/", "/gone"])
def test_what_is_no_path_of_a_folder_is_passed_over(path: str) -> None:
    assert noted_cgroup(note_of(cgroup_folders=(path,)), RUN).places == ()


def test_no_note_names_no_cgroup() -> None:
    assert noted_cgroup(None, RUN).places == ()
    assert every_cgroup(None, RUN, NO_CGROUPS).places == ()


def test_every_cgroup_is_named_once(parent: CgroupParent, cgroup: RunCgroup) -> None:
    note = note_of(cgroup_folders=folders_of(cgroup) * 2)

    assert every_cgroup(note, RUN, parent) == cgroup
    assert folders_of(every_cgroup(note, RUN, NO_CGROUPS)) == folders_of(cgroup)
