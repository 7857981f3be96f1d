"""`sandbox ps`: what it lists, and that nothing in a note can deceive whoever reads it."""

import json
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.cgroups import CgroupParent
from sandbox.commands.ps import run_json
from sandbox.errors import SandboxError
from sandbox.main import main
from sandbox.run_notes import RunState, run_note_path
from sandbox.run_owner import owned_runs
from sandbox.seen_runs import seen_runs
from tests.sandbox.noted_runs import (
    OTHER_RUN,
    RUN,
    THIRD_RUN,
    abandoned_run,
    noted_run,
    own_cgroup_parent,
    run_in_cgroup,
)

NOBODY = 65534
KEYS = [
    "name",
    "state",
    "state_seconds",
    "language",
    "person",
    "surface",
    "cpu_seconds",
    "memory_bytes",
    "caller_pid",
    "limits_digest",
    "box_digest",
    "since",
    "started",
    "cgroup_folders",
]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs that the command looks into."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "sandbox-lockdown" / "runs"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    return folder


@pytest.fixture
def parent() -> Iterator[CgroupParent]:
    with own_cgroup_parent() as found:
        yield found


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["ps", *arguments])
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(listed(capsys, "--json"))["runs"]
    return found


def test_no_runs_are_said_to_be_none(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == "No runs.\n"
    assert rows(capsys) == []

    runs.rmdir()
    assert listed(capsys) == "No runs.\n"


def test_looking_makes_no_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert listed(capsys) == "No runs.\n"
    assert list(tmp_path.iterdir()) == []


def test_table_shows_each_run_in_a_line_the_oldest_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    nobodys: dict[str, None] = {"person": None, "surface": None, "limits_digest": None}
    abandoned_run(runs, THIRD_RUN, since=now - 7200, started=now - 7200, language="bash")
    with (
        noted_run(runs, RUN, since=now - 180, started=now - 190),
        noted_run(runs, OTHER_RUN, state=RunState.WAITING, since=now - 10, started=now - 20, **nobodys),
    ):
        lines = [line.split() for line in listed(capsys).splitlines()]

    assert lines == [
        ["run", "state", "for", "language", "person", "surface", "CPU", "memory", "caller", "limits"],
        [THIRD_RUN[:8], "abandoned", "2", "h", "bash", "4f1c0d5e", "tool", "-", "-", "4242", "ab" * 4],
        [RUN[:8], "running", "3", "min", "python", "4f1c0d5e", "tool", "-", "-", "4242", "ab" * 4],
        [OTHER_RUN[:8], "waiting", "10", "s", "python", "-", "-", "-", "-", "4242", "-"],
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (121, "2 min"), (7201, "2 h"), (172801, "2 d"), (-60, "0 s")],
)
def test_age_is_told_in_the_largest_unit_that_counts_two(
    runs: Path, capsys: pytest.CaptureFixture[str], seconds: int, words: str
) -> None:
    with noted_run(runs, since=time.time() - seconds):
        assert f" {words} " in listed(capsys)


def test_json_says_all_there_is(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with noted_run(runs, since=time.time() - 5):
        (row,) = rows(capsys)

    assert list(row) == KEYS
    assert (row["name"], row["state"], row["person"]) == (RUN, "running", "4f1c0d5e")
    assert row["state_seconds"] == pytest.approx(5, abs=4)
    assert (row["cpu_seconds"], row["memory_bytes"], row["cgroup_folders"]) == (None, None, [])


def test_cpu_and_memory_are_what_the_runs_own_cgroup_counts(
    runs: Path, parent: CgroupParent, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_in_cgroup(runs, parent):
        (row,) = rows(capsys)
        table = listed(capsys)

    assert 0 < row["cpu_seconds"] < 10
    assert 0 < row["memory_bytes"] < 1 << 28
    assert len(row["cgroup_folders"]) == len(parent.places)
    assert " MB " in table


def test_run_without_a_note_is_unknown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with noted_run(runs) as folder:
        run_note_path(folder, RunState.RUNNING).write_text("rubbish")

        (row,) = rows(capsys)
        assert (row["state"], row["person"], row["state_seconds"]) == ("unknown", None, None)
        assert listed(capsys).splitlines()[1].split() == [RUN[:8], "unknown", *["-"] * 8]


def test_person_with_a_hostile_name_forges_nothing(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = f"\x1b[2J\r\nroot\u202e [red]x[/red]\\[bold] {'y' * 5000}"
    with noted_run(runs, person=hostile, language="\x1b]0;t\x07", limits_digest="\x9b31m"):
        table, text = listed(capsys), listed(capsys, "--json")

    assert not any(character in table + text for character in "\x1b\x07\x9b\r\u202e")
    assert "\\x1b[2J\\r\\nroot" in table.replace("\n", "")
    assert len(table) < 2000
    assert json.loads(text)["runs"][0]["person"] == hostile


def test_what_is_no_folder_of_a_run_is_not_listed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "notes").mkdir()
    (runs / RUN).symlink_to("/")
    (runs / OTHER_RUN).write_text("")

    assert listed(capsys) == "No runs.\n"


def test_folder_that_cannot_be_read_is_told_with_exit_code_1(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.rmdir()
    runs.symlink_to("/")

    with pytest.raises(SystemExit) as ended:
        main(["ps"])

    assert ended.value.code == 1
    assert f"error: runs ({runs}): it cannot be read" in capsys.readouterr().err


# Another user's runs


def entry_of(home: Path, uid: int = NOBODY) -> pwd.struct_passwd:
    return pwd.struct_passwd(("somebody", "x", uid, uid, "", str(home), "/bin/sh"))


@pytest.fixture
def home() -> Iterator[Path]:
    """The home of another user, where they can reach it."""
    if os.geteuid() != 0:
        pytest.skip("looking at another user's runs needs root")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, ".cache", "sandbox-lockdown", "runs")
        place.mkdir(parents=True, mode=0o700)
        for each in (place, *place.parents[:3]):
            each.chmod(0o700)
            os.chown(each, NOBODY, NOBODY)
        yield Path(folder)


def test_root_sees_another_users_runs_as_that_user(home: Path) -> None:
    before = (os.getresuid(), os.getresgid(), os.getgroups())

    with owned_runs("somebody", {}, password_entry=lambda _: entry_of(home)) as folder:
        assert folder == home / ".cache" / "sandbox-lockdown" / "runs"
        assert (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) == (NOBODY,) * 4
        with noted_run(folder), pytest.raises(PermissionError):
            os.kill(os.getppid(), 0)
        assert [run_json(run)["state"] for run in seen_runs(folder)] == ["abandoned"]

    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_root_is_root_again_whatever_goes_wrong(home: Path) -> None:
    with pytest.raises(KeyboardInterrupt), owned_runs("somebody", {}, password_entry=lambda _: entry_of(home)):
        raise KeyboardInterrupt

    assert os.geteuid() == os.getuid() == 0


def test_link_of_another_user_leads_root_nowhere(home: Path, runs: Path) -> None:
    place = home / ".cache" / "sandbox-lockdown" / "runs"
    with noted_run(runs), owned_runs("somebody", {}, password_entry=lambda _: entry_of(home)):
        (place / RUN).symlink_to(runs / RUN)
        assert seen_runs(place) == ()

        (place / RUN).unlink()
        place.rmdir()
        place.symlink_to(runs)
        with pytest.raises(SandboxError):
            raise AssertionError(seen_runs(place))


def test_user_without_a_private_folder_has_no_runs_and_gets_none(home: Path) -> None:
    for folder in (home / ".cache" / "sandbox-lockdown" / "runs", home / ".cache" / "sandbox-lockdown"):
        folder.rmdir()

    with owned_runs("somebody", {}, password_entry=lambda _: entry_of(home)) as folder:
        assert seen_runs(folder) == ()
    assert list((home / ".cache").iterdir()) == []


def test_private_folder_that_others_can_change_is_not_looked_into(home: Path) -> None:
    (home / ".cache").chmod(0o777)

    with (
        pytest.raises(SandboxError, match="others can write it"),
        owned_runs("somebody", {}, password_entry=lambda _: entry_of(home)),
    ):
        pytest.fail("it was looked into")


def test_only_root_sees_another_users_runs() -> None:
    code = (
        "import os, pwd\n"
        "from sandbox.errors import SandboxError\n"
        "from sandbox.run_owner import owned_runs\n"
        "os.setuid(65534) if os.getuid() == 0 else None\n"
        "entry = pwd.struct_passwd(('root', 'x', 0, 0, '', '/root', '/bin/sh'))\n"
        "try:\n"
        "    with owned_runs('root', os.environ, password_entry=lambda _: entry): print('seen')\n"
        "except SandboxError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == (
        "root (--user): only root may look at another user's runs. Leave --user out, or run it as root.\n"
    )


def test_user_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ps", "--user", "no-such-user"])

    assert ended.value.code == 1
    assert "no-such-user (--user): there is no such user here" in capsys.readouterr().err


def test_the_running_user_may_name_themselves(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    with noted_run(runs):
        assert RUN[:8] in listed(capsys, "--user", name)
