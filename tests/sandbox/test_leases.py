import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cgroups import CgroupParent, CgroupsUnavailable, make_cgroup
from sandbox.leases import LeasedRun, lease_held, leased_folder, leased_runs, remove_leftover, remove_leftovers
from tests.sandbox.conftest import NO_LIMITS
from tests.sandbox.noted_runs import OTHER_RUN, RUN, abandoned_run, own_cgroup_parent

NO_CGROUPS = CgroupsUnavailable(reason="none in this test", remedy="none")


async def test_run_of_a_live_runner_is_left_alone(tmp_path: Path) -> None:
    with leased_folder(tmp_path / "runs", RUN) as folder:
        assert await remove_leftovers(tmp_path / "runs", NO_CGROUPS) == ()
        assert folder.is_dir()


def test_run_of_a_killed_runner_is_removed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from sandbox.leases import leased_folder\n"
        "with leased_folder(Path(sys.argv[1]), sys.argv[2]) as folder:\n"
        "    (folder / 'config.json').write_text('{}'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    runs = tmp_path / "runs"
    killed = subprocess.run([sys.executable, "-c", script, runs, RUN], check=False)
    assert killed.returncode == -9
    assert (runs / RUN / "config.json").exists()

    assert asyncio.run(remove_leftovers(runs, NO_CGROUPS)) == (RUN,)
    assert not (runs / RUN).exists()


async def test_what_is_not_named_as_a_run_is_left_alone(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("notes", RUN.upper(), f"{RUN}0"):
        (runs / name).mkdir(parents=True)

    assert await remove_leftovers(runs, NO_CGROUPS) == ()
    assert len(list(runs.iterdir())) == 3


async def test_link_named_as_a_run_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "data").write_text("keep")
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / RUN).symlink_to(target)

    assert await remove_leftovers(runs, NO_CGROUPS) == ()
    assert (target / "data").read_text() == "keep"


async def test_no_folder_is_no_leftover(tmp_path: Path) -> None:
    assert await remove_leftovers(tmp_path / "absent", NO_CGROUPS) == ()


def test_run_name_in_use_is_refused(tmp_path: Path) -> None:
    with leased_folder(tmp_path, RUN), pytest.raises(FileExistsError), leased_folder(tmp_path, RUN):
        pytest.fail("the same folder was leased twice")


def test_making_a_folder_waits_for_a_removal_under_way(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    script = (
        "import sys; from pathlib import Path; from sandbox.leases import leased_folder\n"
        "with leased_folder(Path(sys.argv[1]), sys.argv[2]): pass\n"
    )
    waiting = subprocess.Popen([sys.executable, "-c", script, tmp_path, OTHER_RUN])
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=1)
    assert not (tmp_path / OTHER_RUN).exists()

    os.close(descriptor)
    assert waiting.wait(timeout=20) == 0
    assert (tmp_path / OTHER_RUN).is_dir()


def test_runs_are_listed_with_who_is_held_and_who_is_not(tmp_path: Path) -> None:
    abandoned = abandoned_run(tmp_path, OTHER_RUN)
    (tmp_path / "notes").mkdir()
    (tmp_path / f"{RUN[:-1]}0").symlink_to(abandoned)
    (tmp_path / f"{RUN[:-1]}1").write_text("no folder")

    with leased_folder(tmp_path, RUN) as folder:
        assert leased_runs(tmp_path) == (
            LeasedRun(folder=folder, held=True),
            LeasedRun(folder=abandoned, held=False),
        )
        assert (lease_held(folder), lease_held(abandoned), lease_held(tmp_path / "gone")) == (True, False, False)


def test_two_who_ask_at_once_do_not_take_each_other_for_the_caller(tmp_path: Path) -> None:
    folder = abandoned_run(tmp_path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)

        assert leased_runs(tmp_path) == (LeasedRun(folder=folder, held=False),)
    finally:
        os.close(descriptor)


def test_held_run_is_no_leftover(tmp_path: Path) -> None:
    with leased_folder(tmp_path, RUN) as folder, pytest.raises(ValueError, match="lives"):
        remove_leftover(LeasedRun(folder=folder, held=True), NO_CGROUPS)


@pytest.fixture
def parent() -> Iterator[CgroupParent]:
    with own_cgroup_parent() as found:
        yield found


def test_cgroups_that_the_note_names_are_removed_where_others_would_be_made_now(
    parent: CgroupParent, tmp_path: Path
) -> None:
    cgroup = make_cgroup(parent, RUN, NO_LIMITS)
    folders = [place.folder for place in cgroup.places]
    abandoned_run(tmp_path, cgroup_folders=tuple(map(str, folders)))

    assert asyncio.run(remove_leftovers(tmp_path, NO_CGROUPS)) == (RUN,)
    assert not any(folder.exists() for folder in folders)


@pytest.mark.parametrize("place", ["sandbox-lockdown", "elsewhere"])
def test_folder_in_a_note_that_is_no_cgroup_of_the_run_is_left_alone(tmp_path: Path, place: str) -> None:
    precious = tmp_path / place / RUN
    precious.mkdir(parents=True)
    (precious / "cgroup.procs").write_text(f"{os.getpid()}\n")
    abandoned_run(tmp_path / "runs", cgroup_folders=(str(precious),))

    assert asyncio.run(remove_leftovers(tmp_path / "runs", NO_CGROUPS)) == (RUN,)
    assert (precious / "cgroup.procs").exists()


def test_cgroup_that_is_there_to_stay_keeps_the_folder_that_leads_to_it(parent: CgroupParent, tmp_path: Path) -> None:
    cgroup = make_cgroup(parent, RUN, NO_LIMITS)
    inner = cgroup.places[0].folder / "inner"
    inner.mkdir()
    folder = abandoned_run(tmp_path, cgroup_folders=tuple(str(place.folder) for place in cgroup.places))

    removed_at_first = remove_leftover(LeasedRun(folder=folder, held=False), NO_CGROUPS)
    inner.rmdir()

    assert not removed_at_first
    assert folder.is_dir()
    assert remove_leftover(LeasedRun(folder=folder, held=False), NO_CGROUPS)
    assert not folder.exists()
