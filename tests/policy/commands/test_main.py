"""The command `policy` itself: its list, wrong usage, and how it behaves as a program, with no traceback ever."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from policy.limits import LIMITS
from policy.main import COMMANDS
from tests.policy.commands.conftest import GOLDENS, Command, on_terminal, program

# Help


def test_help_of_the_whole_is_golden_and_lists_every_command(policy: Command) -> None:
    shown, _, listed = policy.good("--help").partition("Commands:\n")

    assert shown == (GOLDENS / "help.txt").read_text()
    assert [line.split(maxsplit=1) for line in listed.splitlines()] == [
        [name, said] for name, (_, said) in COMMANDS.items()
    ]


@pytest.mark.parametrize("command", ["keygen", "lint", "sign", "verify", "explain", "schema"])
def test_help_is_golden(policy: Command, command: str) -> None:
    assert policy.good(command, "--help") == (GOLDENS / f"help-{command}.txt").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(policy: Command, command: str) -> None:
    assert re.search(rf"Examples?:\n( .*\n)*  +.*policy {command}", policy.good(command, "--help"))


@pytest.mark.parametrize("command", COMMANDS)
def test_line_in_the_list_has_a_full_stop_and_no_more_room_than_there_is(command: str) -> None:
    said = COMMANDS[command][1]

    assert re.fullmatch(r"[A-Z][^.]{,60}\.", said)


@pytest.mark.parametrize("command", ["keygen", "sign", "verify", "schema"])
def test_command_loads_nothing_that_it_does_not_use(policy: Command, command: str) -> None:
    assert policy
    heavy = ("pydantic_settings", "rich", "policy.environment", "policy.resolve")
    load = f"import sys, policy.main; policy.main.cli.get_command(None, {command!r})"
    code = f"{load}; print([name for name in {heavy} if name in sys.modules])"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout == "[]\n"


def test_command_without_arguments_shows_help_and_is_wrong_usage(policy: Command) -> None:
    ended = policy()

    assert ended.code == 2
    assert "Usage: policy" in ended.out + ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["keygen"],
        ["keygen", ""],
        ["keygen", ".."],
        ["keygen", "/"],
        ["sign", "acme.toml"],
        ["sign", "--key", "missing.key", "acme.toml"],
        ["sign", "--key", "acme.toml", "missing.toml"],
        ["sign", "--key", "acme.toml", "."],
        ["verify", "acme.toml"],
        ["verify", "--key", "missing.pub", "acme.toml"],
        ["verify", "--key", "acme.toml", "--threshold", "0", "acme.toml"],
        ["verify", "--key", "acme.toml", "--threshold", "two", "acme.toml"],
        ["explain", "--policy", "missing.toml"],
        ["explain", "--valve", "MAX_CPUS"],
        ["explain", "--valve", "MAX_CPU=1"],
        ["explain", "--valve", "max_cpus=1"],
        ["explain", "--admin-valve", "=1"],
        ["schema", "extra"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_with_exit_code_2(policy: Command, arguments: list[str]) -> None:
    before = sorted(Path().iterdir())

    ended = policy(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert "Error: " in ended.err
    assert sorted(Path().iterdir()) == before


def test_misspelt_command_is_answered_with_the_one_that_is_near(policy: Command) -> None:
    assert "No such command 'expain'. Did you mean 'explain'?" in policy("expain").err


def test_unknown_valve_is_answered_with_all_there_are(policy: Command) -> None:
    ended = policy("explain", "--valve", "MAX_CPU=1")

    assert "'MAX_CPU=1'" in ended.err
    assert all(limit.valve in ended.err for limit in LIMITS)


# As a program


@pytest.mark.parametrize("arguments", [["explain", "--candidates"], ["schema"], ["--help"]], ids=" ".join)
def test_program_without_a_terminal_writes_no_escape_codes(policy: Command, arguments: list[str]) -> None:
    assert policy
    ended = program(*arguments)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout


def test_terminal_gets_styles_unless_no_color_is_set(policy: Command) -> None:
    assert policy

    assert "\x1b[" in on_terminal("explain", "--candidates")
    assert "\x1b[" not in on_terminal("explain", "--candidates", NO_COLOR="1")


@pytest.mark.parametrize("arguments", [["explain"], ["explain", "--json"], ["schema"], ["--help"]], ids=" ".join)
def test_reader_that_goes_away_is_no_traceback(policy: Command, arguments: list[str]) -> None:
    assert policy
    here, there = os.pipe()
    os.close(here)
    try:
        ended = program(*arguments, capture_output=False, stdout=there, stderr=subprocess.PIPE)
    finally:
        os.close(there)

    assert (ended.returncode, ended.stderr) == (1, "")


def test_full_disk_is_an_internal_error_without_a_traceback(policy: Command) -> None:
    assert policy
    with Path("/dev/full").open("w") as full:
        ended = program("explain", "--json", capture_output=False, stdout=full, stderr=subprocess.PIPE)

    assert ended.returncode == 70
    assert ended.stderr == "internal error: OSError: [Errno 28] No space left on device. Please report this.\n"


def test_name_that_is_no_text_is_shown_and_breaks_nothing(policy: Command) -> None:
    assert policy
    name = os.fsdecode(b"\xff.toml")
    Path("acme.toml").rename(name)
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}

    for arguments in (["keygen", name], ["sign", "--key", f"{name}.key", name], ["explain", "--policy", name]):
        ended = program(*arguments, env=strict, encoding="utf-8")

        assert (ended.returncode, ended.stderr) == (0, "")
        assert ".toml" in ended.stdout


def test_version_is_told(policy: Command) -> None:
    assert re.fullmatch(r"policy, version \d+\.\d+\.\d+\n", policy.good("--version"))
