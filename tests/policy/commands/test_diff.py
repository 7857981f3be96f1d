"""`policy diff`: what reviewers and their CI read, and the exit code of every outcome."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from policy.limits import LIMITS
from tests.policy.commands.conftest import GOLDENS, Command, Ended, on_terminal, program

OLD = """schema = 1
id = "acme-prod"
serial = 7
issued_at = 2020-01-01T00:00:00Z
expires_at = 9999-01-01T00:00:00Z
audience = ["*"]

[limits]
networking_allowed = false

[limits.max_runtime_seconds]
default = 20
ceiling = 60
env_may_loosen = false

[limits.max_cpus]
ceiling = 0.5

[[scope]]
match.groups = ["students"]
limits.max_runtime_seconds.ceiling = 10

[[scope]]
match.surface = "tool"
except.groups = ["staff"]
limits.max_ram_megabytes.ceiling = 64
limits.max_processes.ceiling = 10
"""
CHANGES = (
    ("ceiling = 60\nenv_may_loosen = false", "ceiling = 120"),
    ('"*"', '"prod-eu"'),
    ('match.groups = ["students"]', 'match.groups = ["students"]\nexcept.groups = ["tutors"]'),
    ("ceiling = 0.5", "ceiling = 0.25"),
    ("max_ram_megabytes.ceiling = 64", "max_ram_megabytes = 32"),
    ("max_processes.ceiling = 10", "max_processes = 10"),
)


@pytest.fixture
def files(policy: Command) -> Command:
    """Write an old file and a new one that is mixed beside it, in a folder of the test's own."""
    text = OLD
    for before, after in CHANGES:
        assert before in text
        text = text.replace(before, after)
    Path("old.toml").write_text(OLD)
    Path("new.toml").write_text(text)
    return policy


def told(ended: Ended) -> dict[str, Any]:
    assert ended.err == ""
    output: dict[str, Any] = json.loads(ended.out)
    return output


def changed(before: str, after: str) -> None:
    """Write a new file that differs from the old one in one place."""
    assert before in OLD
    Path("new.toml").write_text(OLD.replace(before, after).replace("serial = 7", "serial = 8"))


def test_table_is_golden(files: Command) -> None:
    ended = files("diff", "old.toml", "new.toml")

    assert (ended.code, ended.err) == (1, "")
    assert ended.out == (GOLDENS / "diff.txt").read_text()


@pytest.mark.usefixtures("files")
def test_table_on_a_narrow_terminal_is_golden() -> None:
    changed("ceiling = 60", "ceiling = 30")

    shown = re.sub("\x1b\\[[0-9;]*m", "", on_terminal("diff", "old.toml", "new.toml", COLUMNS="80"))

    assert shown.replace("\r\n", "\n") == (GOLDENS / "diff-narrow.txt").read_text()


def test_help_is_golden(policy: Command) -> None:
    assert policy.good("diff", "--help") == (GOLDENS / "help-diff.txt").read_text()


def test_programs_are_told_a_request_for_each_difference(files: Command) -> None:
    output = told(files("diff", "--json", "old.toml", "new.toml"))

    assert (output["verdict"], output["environment"]) == ("mixed", "any")
    assert list(output["limits"]) == [limit.name for limit in LIMITS]
    assert output["limits"]["debug"] == {"verdict": "equal", "witnesses": []}
    (ram,) = output["limits"]["max_ram_megabytes"]["witnesses"]
    assert (ram["verdict"], ram["who"], ram["valve"], ram["admin_valve"]) == (
        "tighter",
        "no group, surface tool",
        None,
        None,
    )
    assert ram["requester"] == {"role": None, "groups": [], "user": None, "model": None, "surface": "tool"}
    assert ram["new"] == {
        "value": 32,
        "decided_by": [
            {
                "layer": "policy",
                "statement": "lock",
                "place": "new.toml:26",
                "scope": "for surface tool except groups staff",
                "policy": "acme-prod",
            }
        ],
    }
    assert (ram["scopes"], ram["beyond_scopes"]) == (
        [{"scope": "for surface tool except groups staff", "place": "new.toml:26"}],
        False,
    )
    under_lock = output["limits"]["max_runtime_seconds"]["witnesses"][-1]
    assert under_lock["environment"] == {"SANDBOX_MAX_RUNTIME_SECONDS": "unlimited"}
    assert [(change["key"], change["new"]) for change in output["also_changed"]] == [
        ("serial", "7"),
        ("audience", "prod-eu"),
    ]


def test_a_request_that_is_told_can_be_explained(files: Command) -> None:
    for witness in told(files("diff", "--json", "old.toml", "new.toml"))["limits"]["max_processes"]["witnesses"]:
        requester, valve = witness["requester"], witness["valve"]
        who = [] if requester["groups"] else ["--no-group"]
        who += [] if valve is None else ["--valve", f"MAX_PROCESSES={valve}"]
        for side in ("old", "new"):
            explained = files("explain", "--json", "--policy", f"{side}.toml", "--surface", requester["surface"], *who)
            assert json.loads(explained.out)["limits"]["max_processes"]["value"] == witness[side]["value"]


@pytest.mark.parametrize(
    ("before", "after", "code", "verdict"),
    [
        ("ceiling = 60", "ceiling = 60 # as before", 0, "equal"),
        ("ceiling = 60", "ceiling = 50", 0, "tighter"),
        ("ceiling = 60", "ceiling = 61", 1, "looser"),
        ("env_may_loosen = false", "env_may_loosen = true", 1, "looser"),
        ("limits.max_runtime_seconds.ceiling = 10", "limits.max_runtime_seconds = 10", 1, "looser"),
        ('["students"]', '["guests"]', 1, "mixed"),
    ],
    ids=["equal", "tighter", "looser", "under a lock alone", "a lock in a scope", "mixed"],
)
def test_exit_code_is_1_if_anything_is_looser(files: Command, before: str, after: str, code: int, verdict: str) -> None:
    changed(before, after)

    ended = files("diff", "--json", "old.toml", "new.toml")

    assert (ended.code, told(ended)["verdict"]) == (code, verdict)
    assert told(ended)["also_changed"] == []


def test_variables_of_a_file_hold_beside_both(files: Command) -> None:
    changed("ceiling = 60", "ceiling = 120")
    Path("prod.env").write_text("SANDBOX_MAX_RUNTIME_SECONDS__CEILING=60\nOTHER=1\n")

    ended = files("diff", "--env-file", "prod.env", "old.toml", "new.toml")

    assert ended.code == 0
    assert "permit every request the same, with the variables of prod.env." in ended.out


def test_variables_of_this_process_count_for_nothing(files: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_RUNTIME_SECONDS", "not a number")
    assert files("diff", "old.toml", "old.toml").code == 0


def test_folders_are_one_set_each(files: Command) -> None:
    for folder in ("before", "after"):
        Path(folder).mkdir()
        Path(folder, "one.toml").write_text(OLD)
    Path("before", "two.toml").write_text(
        OLD.replace("acme-prod", "extra").replace("ceiling = 60", "ceiling = 40").replace("default = 20", "default = 5")
    )

    output = told(files("diff", "--json", "before", "after"))

    assert output["verdict"] == "looser"
    assert output["also_changed"] == [
        {"id": "extra", "key": "id", "old": str(Path("before", "two.toml")), "new": "", "note": "the file is gone"}
    ]


def test_every_problem_of_both_sides_is_told_and_nothing_else(files: Command) -> None:
    Path("old.toml").write_text(OLD.replace("ceiling = 60", "ceilling = 60").replace("0.5", '"x"'))
    Path("new.toml").write_text("not TOML")

    ended = files("diff", "old.toml", "new.toml")

    assert (ended.code, ended.out) == (2, "")
    assert [line.split(": ")[1] for line in ended.err.splitlines()] == ["old.toml:13", "old.toml:17", "new.toml:1"]


def test_set_whose_files_contradict_each_other_cannot_be_compared(files: Command) -> None:
    Path("twice").mkdir()
    for name in ("one", "two"):
        Path("twice", f"{name}.toml").write_text(OLD)

    ended = files("diff", "twice", "old.toml")

    assert (ended.code, ended.out) == (2, "")
    assert "has the id acme-prod too" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["old.toml"],
        ["old.toml", "missing.toml"],
        ["--env-file", "missing.env", "old.toml", "new.toml"],
        ["--env-file", "bad.env", "old.toml", "new.toml"],
        ["--env-file", "no.env", "old.toml", "new.toml"],
    ],
    ids=["one file", "no file", "no env file", "a variable that cannot be read", "no variables"],
)
def test_wrong_usage_and_unreadable_input_is_2(files: Command, arguments: list[str]) -> None:
    Path("bad.env").write_text("SANDBOX_MAX_RUNTIME_SECONDS=soon\n")
    Path("no.env").write_text("what is this\n")

    ended = files("diff", *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err


def test_names_that_look_like_markup_are_shown_as_they_are(files: Command) -> None:
    named = OLD.replace('"students"', '"[red]:warning:[/x]"')
    Path("old.toml").write_text(named)
    Path("new.toml").write_text(named.replace("ceiling = 10\n", "ceiling = 12\n", 1))

    assert files("diff", "old.toml", "new.toml").out.count("'[red]:warning:[/x]'") == 4


@pytest.mark.usefixtures("files")
def test_colour_and_progress_are_for_terminals_alone() -> None:
    piped = program("diff", "old.toml", "new.toml")

    assert (piped.returncode, piped.stderr) == (1, "")
    assert "\x1b" not in piped.stdout
    changed("ceiling = 0.5", "ceiling = 0.4")
    assert "\x1b[32mtighter" in on_terminal("diff", "old.toml", "new.toml")
