import asyncio
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.cgroups import CgroupsUnavailable
from sandbox.leases import leased_folder, remove_leftovers

NO_CGROUPS = CgroupsUnavailable(reason="none in this test", remedy="none")
RUN = "0123456789abcdef" * 2
OTHER_RUN = "fedcba9876543210" * 2


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
