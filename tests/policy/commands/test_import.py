"""`policy import`: what it writes, what it lists, and the exit code of each outcome."""

import json
import re
from pathlib import Path

import pytest

from policy.environment import read_environment
from policy.starters import checked_starter
from policy.statements import Verb
from policy.values import UNLIMITED
from tests.policy.commands.conftest import GOLDENS, Command

GOOD = """\
# The older plugin's lockdown.
CODE_EVAL_VALVE_OVERRIDE_NETWORKING_ALLOWED=False
CODE_EVAL_VALVE_OVERRIDE_MAX_RUNTIME_SECONDS=30
CODE_EVAL_VALVE_OVERRIDE_CHECK_FOR_UPDATES=false
WEBUI_NAME="My UI"
"""
MIXED = f"""{GOOD}
CODE_EVAL_VALVE_OVERRIDE_MAX_RAM_MEGABYTES=0
CODE_EVAL_VALVE_OVERRIDE_DEBUG="false"
CODE_EVAL_VALVE_OVERRIDE_AUTO_INSTALL=no
CODE_EVAL_VALVE_OVERRIDE_WEB_ACCESSIBLE_DIRECTORY_PATH=$DATA_DIR/cache/functions/run_code
"""


@pytest.fixture
def files(policy: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    assert policy
    for name in ("DEBUG", "MAX_RAM_MEGABYTES"):
        monkeypatch.delenv(f"CODE_EVAL_VALVE_OVERRIDE_{name}", raising=False)
    Path("good.env").write_text(GOOD)
    Path("mixed.env").write_text(MIXED)
    return policy


def test_help_of_import_is_golden(policy: Command) -> None:
    assert policy.good("import", "--help") == (GOLDENS / "help-import.txt").read_text()


def test_all_is_carried_over_into_lines_for_an_env_file(files: Command) -> None:
    ended = files("import", "--env-file", "good.env")

    assert ended.code == 0
    assert ended.out == "SANDBOX_NETWORKING_ALLOWED=false\nSANDBOX_MAX_RUNTIME_SECONDS=30\n"
    assert ended.err == (
        "warning: CODE_EVAL_VALVE_OVERRIDE_CHECK_FOR_UPDATES=false needs no counterpart: "
        "nothing here looks for updates by itself.\n"
        "2 carried over, 0 not.\n"
    )


def test_what_is_written_is_read_by_explain_and_locks(files: Command) -> None:
    lines = files("import", "--env-file", "good.env").out.splitlines()

    layer = read_environment(dict(line.split("=") for line in lines))

    assert {stated.verb for stated in layer.statements} == {Verb.LOCK}


def test_rest_is_printed_and_what_is_left_is_listed_with_place_and_remedy(files: Command) -> None:
    ended = files("import", "--env-file", "mixed.env")

    assert ended.code == 1
    assert ended.out == (
        "SANDBOX_NETWORKING_ALLOWED=false\nSANDBOX_MAX_RUNTIME_SECONDS=30\nSANDBOX_MAX_RAM_MEGABYTES=unlimited\n"
    )
    left = re.findall(r"^not carried over: (mixed\.env:\d+): (\w+): (.+)\. ([A-Z].+)\.$", ended.err, re.MULTILINE)
    assert [(place, name.removeprefix("CODE_EVAL_VALVE_OVERRIDE_")) for place, name, _, _ in left] == [
        ("mixed.env:8", "DEBUG"),
        ("mixed.env:9", "AUTO_INSTALL"),
        ("mixed.env:10", "WEB_ACCESSIBLE_DIRECTORY_PATH"),
    ]
    assert "warning: SANDBOX_MAX_RAM_MEGABYTES=unlimited is what" in ended.err
    assert ended.err.endswith("\n3 carried over, 3 not.\n")


def test_environment_is_read_where_no_file_is_named(files: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_EVAL_VALVE_OVERRIDE_MAX_RAM_MEGABYTES", "64")
    monkeypatch.setenv("CODE_EVAL_VALVE_OVERRIDE_DEBUG", "maybe")

    ended = files("import")

    assert (ended.code, ended.out) == (1, "SANDBOX_MAX_RAM_MEGABYTES=64\n")
    assert "not carried over: environment: CODE_EVAL_VALVE_OVERRIDE_DEBUG: 'maybe' is neither" in ended.err


def test_file_takes_the_place_of_the_environment(files: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_EVAL_VALVE_OVERRIDE_MAX_RAM_MEGABYTES", "64")

    assert "RAM" not in files("import", "--env-file", "good.env").out


def test_policy_file_locks_the_same(files: Command) -> None:
    ended = files("import", "--env-file", "mixed.env", "--to", "policy")

    document = checked_starter(ended.out)
    assert ended.code == 1
    assert [(stated.limit.name, stated.verb, stated.value) for stated in document.statements] == [
        ("networking_allowed", Verb.LOCK, False),
        ("max_runtime_seconds", Verb.LOCK, 30),
        ("max_ram_megabytes", Verb.LOCK, UNLIMITED),
    ]
    dates = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    assert dates.sub("DATE", ended.out) == dates.sub("DATE", (GOLDENS / "imported.toml").read_text())


def test_policy_file_can_be_signed(files: Command, keys: tuple[str, str]) -> None:
    Path("imported.toml").write_text(files("import", "--env-file", "good.env", "--to", "policy").out)

    shown = files.good("sign", "--key", "ops.key", "imported.toml")

    assert shown == f"Signed imported.toml (imported, serial 1) with {keys[0]}.\n"


@pytest.mark.parametrize("target", ["env", "policy"])
def test_programs_are_told_what_was_imported(files: Command, target: str) -> None:
    ended = files("import", "--env-file", "mixed.env", "--to", target, "--json")

    told = json.loads(ended.out)
    assert (ended.code, ended.err) == (1, "")
    assert told["variables"] == {
        "SANDBOX_NETWORKING_ALLOWED": "false",
        "SANDBOX_MAX_RUNTIME_SECONDS": "30",
        "SANDBOX_MAX_RAM_MEGABYTES": "unlimited",
    }
    assert len(told["left"]) == 3
    assert set(told["left"][0]) == {"key", "origin", "reason", "remedy"}
    assert len(told["warnings"]) == 2
    assert (told["policy"] is None) is (target == "env")
    if target == "policy":
        assert checked_starter(told["policy"]).policy_id == "imported"


@pytest.mark.parametrize("target", ["env", "policy"])
def test_nothing_is_written_where_nothing_can_be_carried_over(files: Command, target: str) -> None:
    Path("left.env").write_text("CODE_EVAL_VALVE_OVERRIDE_MAX_FILES_PER_USER=5\n")

    ended = files("import", "--env-file", "left.env", "--to", target)

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.endswith("0 carried over, 1 not.\n")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "environment: CODE_EVAL_VALVE_OVERRIDE_*: no such variable is set. Name the file that holds them"),
        (("--env-file", "none.env"), "none.env: CODE_EVAL_VALVE_OVERRIDE_*: no such variable is set. Name another"),
    ],
    ids=["environment", "file"],
)
def test_nothing_to_import_is_a_no(files: Command, arguments: tuple[str, ...], error: str) -> None:
    Path("none.env").write_text("WEBUI_NAME=x\n")

    ended = files("import", *arguments)

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"error: {error}")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\n", "bad.env:1: the file: it is not UTF-8"),
        (b"A=1\r\n", "bad.env:1: the file: it holds a carriage return"),
        (b"export A=1\nB =1\n", "bad.env:2: the line"),
        (b"A=1\nA=2\n", "bad.env:2: A: it stands in line 1 already"),
        (b"#" * 70_000, "bad.env: env file: it is larger than 65536 bytes"),
    ],
    ids=["not UTF-8", "carriage return", "two lines", "twice", "too large"],
)
def test_unreadable_file_is_wrong_usage(files: Command, data: bytes, words: str) -> None:
    Path("bad.env").write_bytes(data)

    ended = files("import", "--env-file", "bad.env")

    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


@pytest.mark.parametrize(
    "arguments",
    [("--env-file", "missing.env"), ("--env-file", "."), ("--to", "nonsense"), ("extra",)],
    ids=" ".join,
)
def test_wrong_usage_of_import_is_told(files: Command, arguments: tuple[str, ...]) -> None:
    ended = files("import", *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert "Error: " in ended.err


def test_hostile_value_does_not_reach_the_terminal(files: Command) -> None:
    Path("evil.env").write_text("CODE_EVAL_VALVE_OVERRIDE_DEBUG=\x1b[2J\u202e\n")

    ended = files("import", "--env-file", "evil.env")

    assert ended.code == 1
    assert "\x1b" not in ended.err
    assert "\u202e" not in ended.err
