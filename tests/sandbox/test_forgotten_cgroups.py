"""Empty cgroups that no private folder knows of any more go once they are old; nobody's that might be in use do."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.cgroups import CGROUP_FOLDER, CgroupParent, RunCgroup, make_cgroup
from sandbox.forgotten_cgroups import FORGOTTEN_AFTER_SECONDS, forgotten_cgroups, remove_forgotten
from sandbox.leases import leased_folder, remove_leftovers
from tests.sandbox.conftest import NO_LIMITS
from tests.sandbox.noted_runs import OTHER_RUN, RUN, own_cgroup_parent, stand_in

NOBODY = 65_534


@pytest.fixture
def parent() -> Iterator[CgroupParent]:
    with own_cgroup_parent() as found:
        yield found


def folders_of(cgroup: RunCgroup) -> list[Path]:
    return [place.folder for place in cgroup.places]


def there(cgroup: RunCgroup) -> set[bool]:
    return {folder.is_dir() for folder in folders_of(cgroup)}


def later() -> float:
    """When a cgroup of now is old."""
    return time.time() + FORGOTTEN_AFTER_SECONDS + 60


async def test_old_empty_cgroup_without_a_folder_goes_with_the_folder_above(
    parent: CgroupParent, tmp_path: Path
) -> None:
    cgroup = make_cgroup(parent, RUN, NO_LIMITS)
    for folder in folders_of(cgroup):
        os.utime(folder, (0, time.time() - FORGOTTEN_AFTER_SECONDS - 60))

    assert await remove_leftovers(tmp_path / "runs", parent) == ()

    assert there(cgroup) == {False}
    assert not any((place.folder / CGROUP_FOLDER).exists() for place in parent.places)


async def test_young_cgroup_stays_for_whoever_is_about_to_use_it(parent: CgroupParent, tmp_path: Path) -> None:
    cgroup = make_cgroup(parent, RUN, NO_LIMITS)

    await remove_leftovers(tmp_path / "runs", parent, clock=lambda: time.time() + FORGOTTEN_AFTER_SECONDS - 60)

    assert there(cgroup) == {True}


async def test_old_cgroup_with_a_process_stays_and_so_does_the_process(parent: CgroupParent, tmp_path: Path) -> None:
    cgroup, empty = make_cgroup(parent, RUN, NO_LIMITS), make_cgroup(parent, OTHER_RUN, NO_LIMITS)
    with stand_in("neighbour", cgroup=cgroup) as neighbour:
        await remove_leftovers(tmp_path / "runs", parent, clock=later)

        assert there(cgroup) == {True}
        assert there(empty) == {False}
        assert neighbour.poll() is None


async def test_process_that_joins_between_the_two_looks_keeps_the_cgroup(parent: CgroupParent) -> None:
    cgroup = make_cgroup(parent, RUN, NO_LIMITS)
    found = forgotten_cgroups(parent, now=later())
    with stand_in("neighbour", cgroup=cgroup) as neighbour:
        await remove_forgotten(found)

        assert sorted(found) == sorted(folders_of(cgroup))
        assert there(cgroup) == {True}
        assert neighbour.poll() is None


async def test_old_cgroup_that_a_live_lease_names_stays(parent: CgroupParent, tmp_path: Path) -> None:
    cgroup = make_cgroup(parent, RUN, NO_LIMITS)
    with leased_folder(tmp_path / "runs", RUN):
        await remove_leftovers(tmp_path / "runs", parent, clock=later)

        assert there(cgroup) == {True}


async def test_old_cgroup_with_another_in_it_stays(parent: CgroupParent, tmp_path: Path) -> None:
    cgroup = make_cgroup(parent, RUN, NO_LIMITS)
    inner = [folder / "inner" for folder in folders_of(cgroup)]
    for folder in inner:
        folder.mkdir()

    await remove_leftovers(tmp_path / "runs", parent, clock=later)

    assert all(folder.is_dir() for folder in inner)
    for folder in inner:
        folder.rmdir()


@pytest.mark.parametrize("owner", [pytest.param(NOBODY, id="another-users"), pytest.param(0, id="not-named-as-a-run")])
async def test_old_empty_cgroup_that_is_not_ours_stays(parent: CgroupParent, tmp_path: Path, owner: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make cgroups of another user")
    shared = [place.folder / CGROUP_FOLDER for place in parent.places]
    theirs = [folder / (RUN if owner else "somebodys") for folder in shared]
    for folder in theirs:
        folder.mkdir(parents=True)
        os.chown(folder, owner, owner)

    await remove_leftovers(tmp_path / "runs", parent, clock=later)

    assert all(folder.is_dir() for folder in theirs)
    for folder in (*theirs, *shared):
        folder.rmdir()


def test_link_in_place_of_a_cgroup_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "cgroup.procs").write_text("")
    (tmp_path / CGROUP_FOLDER).mkdir()
    (tmp_path / CGROUP_FOLDER / RUN).symlink_to(tmp_path / "precious")
    with own_cgroup_parent() as real:
        place = real.places[0]
    fake = CgroupParent(places=(replace(place, folder=tmp_path),), missing=())

    assert forgotten_cgroups(fake, now=later()) == ()
