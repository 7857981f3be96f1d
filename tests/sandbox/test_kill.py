"""`sandbox kill`: whom it ends, and whom it does not, whatever a note or a command line says."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.cgroups import CgroupParent, CgroupsUnavailable, RunCgroup
from sandbox.leases import LeasedRun, leased_folder
from sandbox.main import main
from sandbox.outcome import Outcome, RunResult
from sandbox.run_ending import Ending, box_processes, end_runs
from sandbox.run_notes import RunState, ended_by_administrator, read_run_note, write_run_note
from sandbox.seen_runs import SeenRun, seen_runs
from tests.sandbox.conftest import Place, eventually, ran, request_of
from tests.sandbox.noted_runs import (
    OTHER_RUN,
    RUN,
    THIRD_RUN,
    abandoned_run,
    note_of,
    noted_run,
    own_cgroup_parent,
    run_in_cgroup,
    stand_in,
)

NO_CGROUPS = CgroupsUnavailable(reason="none in this test", remedy="none")
SANDBOX = (sys.executable, "-c", "from sandbox.main import main; main()")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the command ended."""

    code: int
    out: str
    err: str

    @property
    def endings(self) -> dict[str, str]:
        return {row["name"]: row["ending"] for row in json.loads(self.out)["runs"]}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs in which the command kills."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "sandbox-lockdown" / "runs"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    return folder


@pytest.fixture
def parent() -> Iterator[CgroupParent]:
    with own_cgroup_parent() as found:
        yield found


@pytest.fixture
def end(capsys: pytest.CaptureFixture[str]) -> "Command":
    return Command(capsys)


class Command:
    """Calls `sandbox kill` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(["kill", *arguments])
        captured = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(code=ended.value.code, out=captured.out, err=captured.err)


@contextmanager
def tidy_caller(runs: Path, name: str = RUN, **said: Any) -> Iterator["subprocess.Popen[bytes]"]:  # noqa: ANN401
    """A run without a cgroup whose caller, as callers do, removes its folder once its box is gone."""
    with ExitStack() as lease:
        folder = lease.enter_context(leased_folder(runs, name))
        write_run_note(folder, note_of(**said))
        with stand_in("runsc-sandbox", f"--root={folder}/state") as box:

            def tidy() -> None:
                box.wait()
                for entry in folder.iterdir():
                    entry.unlink()
                folder.rmdir()
                lease.close()

            caller = threading.Thread(target=tidy)
            caller.start()
            try:
                yield box
            finally:
                box.kill()
                caller.join()


# Whom it ends


def test_run_named_by_the_beginning_of_its_name_is_ended_and_others_go_on(runs: Path, end: Command) -> None:
    with tidy_caller(runs, RUN) as box, tidy_caller(runs, OTHER_RUN) as other:
        ended = end("0123")

        assert (ended.code, ended.err) == (0, "")
        assert ended.out == f"Ended {RUN[:8]} (running, python, 4f1c0d5e).\n"
        assert box.wait(5) == -signal.SIGKILL
        assert other.poll() is None
        assert [entry.name for entry in runs.iterdir()] == [OTHER_RUN]


def test_several_are_ended_in_one_stroke_each_once(runs: Path, end: Command) -> None:
    with tidy_caller(runs, RUN), tidy_caller(runs, OTHER_RUN), tidy_caller(runs, THIRD_RUN) as third:
        ended = end("--json", OTHER_RUN, RUN[:6].upper(), RUN)

        assert (ended.code, ended.endings) == (0, {OTHER_RUN: "ended", RUN: "ended"})
        assert third.poll() is None


def test_all_runs_of_a_person_are_ended_and_nobody_elses(runs: Path, end: Command) -> None:
    with (
        tidy_caller(runs, RUN, person="a"),
        tidy_caller(runs, OTHER_RUN, person="b") as other,
        tidy_caller(runs, THIRD_RUN, person="a"),
    ):
        ended = end("--json", "--person", "a")

        assert (ended.code, ended.endings) == (0, {RUN: "ended", THIRD_RUN: "ended"})
        assert other.poll() is None


def test_boxes_that_wait_are_ended_and_runs_go_on(runs: Path, end: Command) -> None:
    with (
        tidy_caller(runs, RUN) as running,
        tidy_caller(runs, OTHER_RUN, state=RunState.WAITING, person=None),
        tidy_caller(runs, THIRD_RUN, state=RunState.STARTING) as starting,
    ):
        ended = end("--json", "--waiting")

        assert (ended.code, ended.endings) == (0, {OTHER_RUN: "ended"})
        assert (running.poll(), starting.poll()) == (None, None)


def test_all_are_ended_those_of_dead_callers_removed(runs: Path, end: Command) -> None:
    abandoned_run(runs, OTHER_RUN)
    with tidy_caller(runs, RUN):
        ended = end("--json", "--all")

    assert (ended.code, ended.endings) == (0, {OTHER_RUN: "removed", RUN: "ended"})
    assert list(runs.iterdir()) == []


def test_abandoned_run_is_removed_with_its_box_and_its_cgroup(runs: Path, parent: CgroupParent, end: Command) -> None:
    with run_in_cgroup(runs, parent):
        pass
    folder = runs / RUN
    with stand_in("runsc-gofer", f"--root={folder}/state") as left:
        ended = end(RUN)

        assert ended.out == f"Removed what was left of {RUN[:8]} (abandoned, python, 4f1c0d5e).\n"
        assert left.wait(5) == -signal.SIGKILL
    assert not folder.exists()
    assert parent.existing_runs() == ()


def test_box_in_a_cgroup_of_another_parent_is_ended_by_what_the_note_says(
    runs: Path, parent: CgroupParent, end: Command
) -> None:
    with run_in_cgroup(runs, parent) as folder:
        ended = end(RUN)

        assert ended.code == 0
        assert "its caller has not tidied up after it yet" in ended.out
        assert ended_by_administrator(folder)
        assert parent.run_cgroup(RUN).processes() == frozenset()


def test_mark_is_made_before_the_box_is_ended(runs: Path, end: Command) -> None:
    with noted_run(runs) as folder, stand_in("runsc-sandbox", f"--root={folder}/state") as box:
        seen: list[bool] = []

        def caller() -> None:
            box.wait()
            seen.append(ended_by_administrator(folder))

        watching = threading.Thread(target=caller)
        watching.start()
        end(RUN)
        watching.join()

    assert seen == [True]


# Whom it does not end


def test_box_that_waits_no_longer_is_spared(runs: Path) -> None:
    with noted_run(runs, state=RunState.WAITING) as folder, stand_in("runsc", f"--root={folder}/state") as box:
        seen = seen_runs(runs)
        write_run_note(folder, note_of(state=RunState.RUNNING))

        (ended,) = end_runs(seen, NO_CGROUPS, only_waiting=True)

        assert ended.ending is Ending.SPARED
        assert not ended_by_administrator(folder)
        assert box.poll() is None


def test_run_that_ended_by_itself_meanwhile_is_gone(runs: Path) -> None:
    lease = LeasedRun(folder=runs / RUN, held=True)
    seen = SeenRun(lease=lease, note=note_of(), cgroup=RunCgroup(run_name=RUN, places=()))

    assert [each.ending for each in end_runs([seen], NO_CGROUPS)] == [Ending.GONE]


def test_run_whose_caller_died_meanwhile_is_removed(runs: Path) -> None:
    with noted_run(runs):
        seen = seen_runs(runs)

    assert [each.ending for each in end_runs(seen, NO_CGROUPS)] == [Ending.GONE]
    assert list(runs.iterdir()) == []


def test_run_of_which_nothing_is_found_stays_unmarked_and_is_told(runs: Path, end: Command) -> None:
    with noted_run(runs) as folder:
        ended = end(RUN)

        assert (ended.code, ended.out) == (1, "")
        assert ended.err == f"error: {RUN[:8]} (running, python, 4f1c0d5e): no process of it can be found here.\n"
        assert not ended_by_administrator(folder)
        assert read_run_note(folder) is not None


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("runsc-sandbox", "--root={runs}/" + OTHER_RUN + "/state"), id="another-run"),
        pytest.param(("runsc-sandbox", "--root={runs}/" + RUN + "0/state"), id="a-longer-name"),
        pytest.param(("runsc-sandbox", "--root=/elsewhere/runs/" + RUN + "/state"), id="another-folder"),
        pytest.param(("runsc-sandbox", RUN), id="the-name-alone"),
        pytest.param(("runsc-sandbox", "see {runs}/" + RUN + "/state"), id="in-the-middle"),
        pytest.param(("editor", "{runs}/" + RUN + "/bundle/config.json"), id="another-program"),
        pytest.param(("editor", "runsc", "--root={runs}/" + RUN + "/state"), id="runsc-as-argument"),
    ],
)
def test_process_that_is_not_proved_to_be_of_the_run_lives_on(runs: Path, end: Command, words: tuple[str, ...]) -> None:
    program, *arguments = (word.format(runs=runs) for word in words)
    with tidy_caller(runs), stand_in(program, *arguments) as bystander:
        assert end(RUN).code == 0

        assert bystander.poll() is None


@pytest.mark.parametrize(
    "words",
    [
        ("runsc-sandbox", "--root={folder}/state", "boot"),
        ("runsc-gofer", "gofer", "--bundle", "{folder}/bundle"),
        ("/opt/gvisor/runsc", "--network=none", "--root={folder}/state", "run"),
    ],
    ids=["sandbox", "gofer", "run"],
)
def test_each_process_of_a_box_is_proved(tmp_path: Path, words: tuple[str, ...]) -> None:
    program, *arguments = (word.format(folder=tmp_path) for word in words)
    with stand_in(program, *arguments) as box:
        assert box_processes(tmp_path) == {box.pid}


def test_pid_in_a_folder_that_only_looks_like_a_cgroup_lives_on(runs: Path, tmp_path: Path, end: Command) -> None:
    lookalike = tmp_path / "sandbox-lockdown" / RUN
    lookalike.mkdir()
    with stand_in("editor") as bystander:
        (lookalike / "cgroup.procs").write_text(f"{bystander.pid}\n")
        with noted_run(runs, cgroup_folders=(str(lookalike),), caller_pid=bystander.pid):
            assert end(RUN).code == 1

        assert bystander.poll() is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("9999",), "9999 (command line): no run's name begins so. `sandbox ps` lists"),
        (("",), "no run's name begins so"),
        (("0123",), f"0123 (command line): the names of 2 runs begin so: {RUN[:8]}, {THIRD_RUN[:8]}. Give more"),
        ((OTHER_RUN, "9999"), "9999 (command line): no run's name begins so"),
        (("--person", "\x1b[2J"), "\\x1b[2J (--person): no run of this person is under way"),
        (("--waiting",), "no box waits in a pool"),
    ],
    ids=["unknown", "empty", "ambiguous", "one-unknown", "person", "waiting"],
)
def test_choice_of_no_one_run_ends_nothing(runs: Path, end: Command, arguments: tuple[str, ...], words: str) -> None:
    with noted_run(runs, RUN), noted_run(runs, OTHER_RUN), noted_run(runs, THIRD_RUN):
        told, for_programs = end(*arguments), end("--json", *arguments)

        assert (told.code, told.out) == (1, "")
        assert words in told.err
        assert for_programs.code == 1
        assert json.loads(for_programs.out)["runs"] == []
        assert len(json.loads(for_programs.out)["problems"]) == 1
        assert not any(ended_by_administrator(folder) for folder in runs.iterdir())


def test_nothing_to_end_is_a_no(runs: Path, end: Command) -> None:
    assert list(runs.iterdir()) == []
    assert end("--all").code == 1


@pytest.mark.parametrize(
    ("answer", "options", "goes_on"), [("n\n", [], True), ("y\n", [], False), ("", ["--yes"], False)]
)
def test_all_is_asked_for_on_a_terminal(runs: Path, answer: str, options: list[str], *, goes_on: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        with tidy_caller(runs) as box:
            os.write(ours, answer.encode())
            done = subprocess.run(
                [*SANDBOX, "kill", "--all", *options], stdin=theirs, capture_output=True, timeout=60, check=False
            )

            assert done.returncode == (1 if goes_on else 0)
            assert (b"End the one run there is? [y/N]" in done.stderr) == (not options)
            assert (box.poll() is None) == goes_on
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.skipif(os.geteuid() != 0, reason="ending another user's runs needs root")
def test_root_ends_another_users_runs_with_what_that_user_may() -> None:
    """In a process of its own: nothing of ours may have to be loaded while it is another user, who cannot read it."""
    code = (
        "import pwd, sys\n"
        "from sandbox.cgroups import CgroupsUnavailable\n"
        "from sandbox.run_ending import end_runs\n"
        "from sandbox.run_owner import owned_runs\n"
        "from sandbox.seen_runs import seen_runs\n"
        "entry = pwd.struct_passwd(('somebody', 'x', 65534, 65534, '', sys.argv[1], '/bin/sh'))\n"
        "with owned_runs('somebody', {}, password_entry=lambda _: entry) as folder:\n"
        "    for each in end_runs(seen_runs(folder), CgroupsUnavailable(reason='', remedy='')):\n"
        "        print(each.run.name, each.ending.value)\n"
    )
    with (
        tempfile.TemporaryDirectory() as home,
        stand_in("runsc-x", f"{home}/.cache/sandbox-lockdown/runs/{RUN}/") as box,
    ):
        runs = Path(home, ".cache", "sandbox-lockdown", "runs")
        runs.mkdir(parents=True)
        folders = (abandoned_run(runs), abandoned_run(runs, OTHER_RUN), runs, *runs.parents[:3])
        for folder in (*runs.rglob("*"), *folders):
            folder.chmod(0o700)
            os.chown(folder, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", code, home], capture_output=True, text=True, timeout=60, check=True
        )

        assert done.stdout == f"{RUN} removed\n{OTHER_RUN} removed\n"
        assert box.poll() is None  # it is root's, whatever its command line says
        assert list(runs.iterdir()) == []


# Completion


def completed(*words: str) -> list[str]:
    variables = {"_SANDBOX_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        SANDBOX, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return [line.removeprefix("plain,") for line in done.stdout.split()]


def test_shell_completes_names_of_runs_that_were_not_given_yet(runs: Path) -> None:
    with noted_run(runs, RUN, person="$(reboot)"), noted_run(runs, OTHER_RUN), noted_run(runs, THIRD_RUN):
        assert sorted(completed("sandbox", "kill", "01")) == [RUN, THIRD_RUN]
        assert completed("sandbox", "kill", RUN, "01") == [THIRD_RUN]


def test_shell_completes_nothing_where_there_is_nothing_to_see(runs: Path) -> None:
    assert list(runs.iterdir()) == []
    assert completed("sandbox", "kill", "0") == []
    assert completed("sandbox", "kill", "--user", "no-such-user", "0") == []


# A real box


@pytest.fixture
def own_place(place: Place, runs: Path) -> Place:
    """A place whose private folder the command finds."""
    return replace(place, equipment=replace(place.equipment, folder=runs.parent))


@pytest.mark.gvisor
async def test_run_that_an_administrator_ends_says_so_and_leaves_nothing(own_place: Place, runs: Path) -> None:
    run = asyncio.create_task(own_place.run("print('begun', flush=True)\nwhile True: pass"))
    await eventually(lambda: any(seen.state == "running" for seen in seen_runs(runs)), within_seconds=30)
    await asyncio.sleep(0.2)
    begun = time.monotonic()

    done = await asyncio.to_thread(sandbox_kill, "--json", "--person", "somebody")

    result: RunResult = await asyncio.wait_for(run, 20)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)["runs"]
    assert (row["ending"], row["reason"]) == ("ended", None)
    assert time.monotonic() - begun < 10
    assert result.outcome is Outcome.KILLED
    assert "administrator" in result.sentence
    await eventually(lambda: own_place.leftovers() == [], within_seconds=10)


@pytest.mark.gvisor
async def test_real_box_is_ended_by_its_command_lines_alone(own_place: Place, runs: Path) -> None:
    """As where there is no cgroup: the note names none, and this process knows of none."""
    run = asyncio.create_task(ran(own_place.equipment, request_of("while True: pass")))
    await eventually(lambda: any(seen.state == "running" for seen in seen_runs(runs)), within_seconds=30)
    await asyncio.sleep(0.2)
    (seen,) = seen_runs(runs)
    assert seen.note is not None
    write_run_note(seen.lease.folder, replace(seen.note, cgroup_folders=()))

    (ended,) = await asyncio.to_thread(end_runs, seen_runs(runs), NO_CGROUPS)

    result = await asyncio.wait_for(run, 20)
    assert (ended.ending, ended.reason) == (Ending.ENDED, "")
    assert result.outcome is Outcome.KILLED
    await eventually(lambda: own_place.leftovers() == [], within_seconds=10)


def sandbox_kill(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*SANDBOX, "kill", *arguments], capture_output=True, text=True, timeout=60, check=False)
