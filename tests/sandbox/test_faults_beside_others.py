"""Several processes on one host: what a dead one left is removed, and nothing that anybody else made or uses."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from sandbox.cgroups import CgroupsUnavailable, make_cgroup
from sandbox.leases import leased_runs, remove_leftovers
from sandbox.outcome import Outcome
from sandbox.run_notes import RunState
from sandbox.slots import remove_free_slots
from tests.sandbox.caller import CallerOrders, called
from tests.sandbox.conftest import NO_LIMITS, PATIENCE, Place, eventually, request_of
from tests.sandbox.noted_runs import OTHER_RUN, RUN, THIRD_RUN, abandoned_run, noted_run, stand_in
from tests.sandbox.pooled import pooled_runner, states_of_runs
from tests.sandbox.traces import nothing_more_is_left, traces_of

NO_CGROUPS = CgroupsUnavailable(reason="none in this test", remedy="none")
NOBODY = 65534


# Live neighbours


def names_of_runs(place: Place) -> set[str]:
    return {run.folder.name for run in leased_runs(place.runs)}


@pytest.mark.gvisor
async def test_only_what_the_dead_of_two_processes_left_is_removed(place: Place) -> None:
    before = traces_of(place)
    orders = CallerOrders(equipment=place.equipment, codes=("pass", "import time; time.sleep(60)"), pool_size=4)
    async with pooled_runner(place, size=2) as runner:
        run = asyncio.create_task(runner.run(request_of("import time; time.sleep(60)", max_runtime_seconds=60)))
        full = [RunState.RUNNING, RunState.WAITING, RunState.WAITING]
        await eventually(lambda: sorted(states_of_runs(place), key=str) == full, 20 * PATIENCE)
        alive, processes = names_of_runs(place), place.processes()
        async with called(orders) as dead:
            await eventually(lambda: states_of_runs(place).count(RunState.RUNNING) == 2, 20 * PATIENCE)
            await eventually(lambda: states_of_runs(place).count(RunState.WAITING) > 2, 20 * PATIENCE)
            dead.kill()
        await eventually(lambda: place.processes().keys() <= processes.keys(), 5 * PATIENCE)
        left = names_of_runs(place) - alive

        removed = await remove_leftovers(place.runs, place.cgroups)

        assert set(removed) == left
        assert len(left) >= 2
        assert names_of_runs(place) == alive
        assert place.processes().keys() == processes.keys()
        assert not run.done()
        assert (await runner.run(request_of("print('still')"))).pooled
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    remove_free_slots(place.equipment.folder / "slots")
    await nothing_more_is_left(place, before)


@pytest.mark.gvisor
async def test_reaper_that_never_rests_harms_no_run(place: Place) -> None:
    async def reap_without_rest() -> list[str]:
        reaped: list[str] = []
        while True:
            reaped += await remove_leftovers(place.runs, place.cgroups)
            if done.is_set():
                return reaped
            await asyncio.sleep(0)

    done = asyncio.Event()
    reaping = asyncio.create_task(reap_without_rest())
    results = [await place.run(f"print({n})") for n in range(4)]
    done.set()

    assert await reaping == []
    assert [result.outcome for result in results] == [Outcome.OK] * 4


async def test_two_reapers_at_once_remove_everything_and_fail_at_nothing(tmp_path: Path) -> None:
    for name in (RUN, OTHER_RUN, THIRD_RUN):
        (abandoned_run(tmp_path, name) / "bundle").mkdir()

    removed = await asyncio.gather(*(remove_leftovers(tmp_path, NO_CGROUPS) for _ in range(4)))

    assert set().union(*removed) == {RUN, OTHER_RUN, THIRD_RUN}
    assert leased_runs(tmp_path) == ()


# Numbers of processes that mean others by now


async def test_process_that_got_the_number_of_a_dead_caller_is_left_alone(tmp_path: Path) -> None:
    with stand_in("somebody-else") as other:
        abandoned_run(tmp_path, caller_pid=other.pid)

        assert await remove_leftovers(tmp_path, NO_CGROUPS) == (RUN,)
        assert other.poll() is None


async def test_run_whose_note_names_a_dead_caller_is_left_alone_while_its_lease_is_held(tmp_path: Path) -> None:
    with stand_in("caller") as caller:
        pass
    with noted_run(tmp_path, caller_pid=caller.pid) as folder:
        assert await remove_leftovers(tmp_path, NO_CGROUPS) == ()
        assert folder.is_dir()


@pytest.mark.gvisor
async def test_process_in_the_cgroup_above_a_leftover_is_left_alone(place: Place) -> None:
    cgroup = make_cgroup(place.cgroups, RUN, NO_LIMITS)
    abandoned_run(place.runs, cgroup_folders=tuple(str(one.folder) for one in cgroup.places))
    above = make_cgroup(place.cgroups, OTHER_RUN, NO_LIMITS)
    with stand_in("leftover", cgroup=cgroup) as leftover, stand_in("neighbour", cgroup=above) as neighbour:
        assert await remove_leftovers(place.runs, place.cgroups) == (RUN,)

        assert leftover.wait(5) == -signal.SIGKILL
        assert neighbour.poll() is None
    await above.kill()
    await above.remove()


# What only looks like ours


async def test_folder_named_as_a_run_that_another_user_made_is_left_alone(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make folders of another user")
    theirs = tmp_path / RUN
    theirs.mkdir()
    (theirs / "data").write_text("keep")
    os.chown(theirs, NOBODY, NOBODY)

    assert await remove_leftovers(tmp_path, NO_CGROUPS) == ()
    assert (theirs / "data").read_text() == "keep"


@pytest.mark.gvisor
async def test_cgroup_named_as_a_run_of_which_there_is_no_folder_is_left_alone(place: Place) -> None:
    cgroup = make_cgroup(place.cgroups, RUN, NO_LIMITS)
    place.runs.mkdir(parents=True)
    with stand_in("neighbour", cgroup=cgroup) as neighbour:
        assert await remove_leftovers(place.runs, place.cgroups) == ()
        assert neighbour.poll() is None
    await cgroup.kill()
    await cgroup.remove()


async def test_links_in_what_a_dead_caller_left_lead_the_reaper_nowhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("data", "config.json", "note-running.json", f"runsc-{RUN}.sock"):
        (precious / name).write_text("keep")
    runs = tmp_path / "runs"
    folder = abandoned_run(runs)
    (folder / "state").symlink_to(precious)
    (folder / "bundle").symlink_to(precious)
    (folder / "note-waiting.json").symlink_to(precious / "data")
    (runs / OTHER_RUN).symlink_to(precious)

    assert await remove_leftovers(runs, NO_CGROUPS) == (RUN,)
    assert {path.name for path in precious.iterdir()} == {
        "data",
        "config.json",
        "note-running.json",
        f"runsc-{RUN}.sock",
    }
    assert (runs / OTHER_RUN).is_symlink()
