"""The command `policy lint`: what it is given, what it writes where, how it ends."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.policy.commands.conftest import PROGRAM, Command, on_terminal, program
from tests.policy.lint.linting import written

CLEAN = written('[limits.max_cpus]\nceiling = 1\nreason = "shared host"\n')
OPEN = written('[limits]\nmax_cpus = "unlimited"\n')


def ids(out: str) -> list[str]:
    return [
        finding["rule"]["id"] if "rule" in finding else finding["ruleId"] for finding in json.loads(out)["findings"]
    ]


@pytest.fixture(autouse=True)
def _files(policy: Command) -> Command:
    Path("clean.toml").write_text(CLEAN)
    Path("open.toml").write_text(OPEN)
    return policy


def test_a_file_with_nothing_wrong_ends_with_0(policy: Command) -> None:
    ended = policy("lint", "clean.toml")

    assert (ended.code, ended.err) == (0, "")
    assert "error" not in ended.out


def test_an_error_ends_with_1_and_shows_the_line(policy: Command) -> None:
    ended = policy("lint", "open.toml")

    assert ended.code == 1
    assert "open.toml:10:1: error[SBP201 unlimited-value]" in ended.out
    assert 'max_cpus = "unlimited"' in ended.out


@pytest.mark.parametrize("name", ["text", "json", "sarif", "junit", "github", "gitlab"])
def test_the_exit_code_is_the_same_in_every_format(policy: Command, name: str) -> None:
    assert policy("lint", "--format", name, "open.toml").code == 1
    assert policy("lint", "--format", name, "clean.toml").code == 0


@pytest.mark.parametrize(("level", "code"), [("error", 0), ("warning", 0), ("note", 1)])
def test_the_fail_level_decides_what_counts(policy: Command, level: str, code: int) -> None:
    Path("anonymous.toml").write_text(CLEAN.replace('owner = "ops@acme.example"\n', ""))

    assert policy("lint", "--fail-level", level, "anonymous.toml").code == code


def test_text_that_is_no_toml_is_a_finding(policy: Command) -> None:
    Path("bad.toml").write_text("schema = \n")

    ended = policy("lint", "bad.toml")

    assert (ended.code, ended.err) == (1, "")
    assert "SBP001 not-toml" in ended.out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("none.toml",),
        ("--env", "--env-file", "clean.toml"),
        ("--env-file", "none.env"),
        ("--format", "xml", "clean.toml"),
        ("--base", "nothing-of-that-name", "clean.toml"),
        ("--explain", "SBP999"),
    ],
    ids=[
        "nothing",
        "no such file",
        "two environments",
        "no such env file",
        "no such format",
        "no base",
        "no such rule",
    ],
)
def test_wrong_usage_ends_with_2_and_says_what(policy: Command, arguments: tuple[str, ...]) -> None:
    ended = policy("lint", *arguments)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err


def test_what_cannot_be_read_ends_with_2_after_all_else_was_told(policy: Command) -> None:
    Path("loop.toml").symlink_to("loop.toml")

    ended = policy("lint", "loop.toml", "open.toml")

    assert ended.code == 2
    assert "SBP201" in ended.out
    assert "loop.toml" in ended.err


def test_the_standard_input_is_read_as_a_policy() -> None:
    ended = subprocess.run([PROGRAM, "lint", "-"], input=OPEN, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 1
    assert "<stdin>:10:1: error[SBP201" in ended.stdout


def test_the_standard_input_is_held_against_its_base() -> None:
    loose = CLEAN.replace("ceiling = 1", "ceiling = 4").replace("serial = 7", "serial = 8")
    arguments = [PROGRAM, "lint", "--base", "clean.toml", "--fail-level", "warning", "-"]

    ended = subprocess.run(arguments, input=loose, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 1
    assert "SBP322 loosened]: max_cpus is looser than in clean.toml" in ended.stdout


def test_the_standard_input_has_no_past_in_a_revision() -> None:
    arguments = [PROGRAM, "lint", "--base", "HEAD", "-"]

    ended = subprocess.run(arguments, input=CLEAN, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "the standard input has no place there" in ended.stderr


def test_a_file_that_is_named_in_two_ways_is_one(policy: Command) -> None:
    ended = policy("lint", "clean.toml", "./clean.toml", str(Path("clean.toml").absolute()))

    assert ended.code == 0
    assert "1 file" in ended.out


@pytest.mark.parametrize("name", ["text", "json", "sarif", "junit", "gitlab"])
def test_no_text_of_a_file_is_a_command_to_the_runner_whose_log_it_stands_in(policy: Command, name: str) -> None:
    command = "##[stop-commands]x ##VSO[task.setvariable variable=y]z"
    text = f'"{command}" = 1 # {command}\n{OPEN.replace("= 7", f"= 7 # {command}")}'
    for name_of_file in ("##[group]a.toml", "plain.toml"):
        Path(name_of_file).write_text(text)

    ended = policy("lint", "--format", name, "##[group]a.toml", "plain.toml")

    assert ended.code == 1
    assert "stop-commands" in ended.out
    assert "##[" not in ended.out
    assert "##vso[" not in ended.out.lower()


def test_the_name_of_a_file_that_cannot_be_read_is_no_command_to_a_runner(policy: Command) -> None:
    Path("##[group]loop.toml").symlink_to("##[group]loop.toml")

    ended = policy("lint", "##[group]loop.toml")

    assert ended.code == 2
    assert "loop.toml" in ended.err
    assert "##[" not in ended.err


@pytest.mark.parametrize("target", ["clean.toml", "nowhere"])
def test_a_report_is_not_led_elsewhere_by_a_link(policy: Command, target: str) -> None:
    Path("lint.sarif").symlink_to(target)

    ended = policy("lint", "--output", "lint.sarif", "open.toml")

    assert ended.code == 2
    assert "lint.sarif" in ended.err
    assert (Path("clean.toml").read_text(), Path("nowhere").exists()) == (CLEAN, False)


def test_a_report_goes_to_a_file_whole_and_over_an_old_one(policy: Command) -> None:
    for _ in range(2):
        ended = policy("lint", "--format", "sarif", "--output", "lint.sarif", "open.toml")

        assert (ended.code, ended.out) == (1, "")
        assert json.loads(Path("lint.sarif").read_text())["version"] == "2.1.0"
    assert sorted(path.name for path in Path().iterdir()) == ["acme.toml", "clean.toml", "lint.sarif", "open.toml"]


def test_a_report_that_cannot_be_written_ends_with_2(policy: Command) -> None:
    ended = policy("lint", "--output", "no/such/folder/lint.txt", "clean.toml")

    assert ended.code == 2
    assert "folder" in ended.err


def test_variables_are_reviewed_beside_policies(policy: Command) -> None:
    Path("prod.env").write_text("SANDBOX_NETWORKING_ALOWED=false\n")

    ended = policy("lint", "--env-file", "prod.env", "clean.toml")

    assert ended.code == 1
    assert "prod.env:1:1: error[SBP401 misspelt-variable]" in ended.out


def test_the_variables_of_the_process_are_reviewed_alone(policy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_CPUS", "many")

    ended = policy("lint", "--env")

    assert ended.code == 1
    assert "SBP402" in ended.out


def test_a_fix_keeps_comments_layout_and_mode(policy: Command) -> None:
    text = '# ours\naudience = ["a",   "b", "a"] # three\n'
    path = Path("twice.toml")
    path.write_text(written(text))
    path.chmod(0o640)

    ended = policy("lint", "--fix", "twice.toml")

    assert ended.code == 0
    assert '# ours\naudience = ["a",   "b"] # three\n' in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "1 fixed" in ended.out or "fixed 1" in ended.out.lower()


@pytest.mark.usefixtures("keys")
def test_a_fix_refuses_a_signed_file_and_leaves_it_as_it_is(policy: Command) -> None:
    path = Path("signed.toml")
    path.write_text(CLEAN)
    policy.good("sign", "--key", "ops.key", "signed.toml")
    signed = path.read_text().replace('["prod-eu"]', '["prod-eu", "prod-eu"]')
    path.write_text(signed)

    ended = policy("lint", "--fix", "signed.toml")

    assert ended.code == 2
    assert "signed" in ended.err
    assert path.read_text() == signed


@pytest.mark.usefixtures("keys")
def test_a_signed_file_keeps_the_others_from_being_half_mended(policy: Command) -> None:
    twice = CLEAN.replace('["prod-eu"]', '["prod-eu", "prod-eu"]')
    Path("a.toml").write_text(twice)
    Path("signed.toml").write_text(CLEAN)
    policy.good("sign", "--key", "ops.key", "signed.toml")
    Path("signed.toml").write_text(Path("signed.toml").read_text().replace('["prod-eu"]', '["prod-eu", "prod-eu"]'))

    assert policy("lint", "--fix", "a.toml", "signed.toml").code == 2
    assert Path("a.toml").read_text() == twice


@pytest.mark.usefixtures("keys")
def test_a_file_with_an_error_is_not_signed(policy: Command) -> None:
    ended = policy("sign", "--key", "ops.key", "open.toml")

    assert ended.code == 1
    assert "open.toml:10: SBP201 unlimited-value" in ended.err
    assert Path("open.toml").read_text() == OPEN


@pytest.mark.usefixtures("keys")
def test_a_file_whose_error_a_comment_takes_out_is_signed(policy: Command) -> None:
    why = '# policy: ignore[SBP201] reason="GPU tests" until=2027-01-31'
    Path("open.toml").write_text(OPEN.replace('"unlimited"', f'"unlimited" {why}'))

    policy.good("sign", "--key", "ops.key", "open.toml")


def test_many_files_are_judged_by_several_processes_as_by_one(policy: Command) -> None:
    Path("many").mkdir()
    for number in range(260):
        text = written('[limits]\nmax_cpus = "unlimited"\n' if number % 13 == 0 else "", id=f'"team-{number}"')
        Path(f"many/{number:03}.toml").write_text(text)

    several = json.loads(policy("lint", "--json", "many").out)
    singly = [json.loads(policy("lint", "--json", f"many/{number:03}.toml").out) for number in (0, 13, 247)]

    assert len(several["files"]) == 260
    found = [each for each in several["findings"] if "SBP201" in json.dumps(each)]
    assert len(found) == 20
    assert all(one["findings"][0] in found for one in singly)


def test_a_rule_is_explained_by_id_and_by_name(policy: Command) -> None:
    by_id = policy.good("lint", "--explain", "sbp201")

    assert by_id == policy.good("lint", "--explain", "unlimited-value")
    assert 'max_ram_megabytes = "unlimited"' in by_id


def test_every_rule_is_listed(policy: Command) -> None:
    listed = policy.good("lint", "--rules")

    assert "SBP201  error    unlimited-value" in listed


def test_colour_is_for_terminals_and_respects_no_color() -> None:
    Path("anonymous.toml").write_text(CLEAN.replace('owner = "ops@acme.example"\n', ""))
    assert "\x1b[" in on_terminal("lint", "anonymous.toml", FORCE_COLOR="")
    assert "\x1b[" not in on_terminal("lint", "anonymous.toml", NO_COLOR="1")
    assert "\x1b[" not in program("lint", "open.toml").stdout
    assert "\x1b[" in program("lint", "open.toml", env={**os.environ, "FORCE_COLOR": "1"}).stdout
    assert "\x1b[" not in program("lint", "open.toml", env={**os.environ, "FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout


@pytest.mark.parametrize(
    ("words", "offered"), [("policy lint --format s", "sarif"), ("policy lint --explain SBP20", "SBP201")]
)
def test_the_shell_completes_formats_and_rules(words: str, offered: str) -> None:
    variables = {"_POLICY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "3"}

    assert offered in program(env={**os.environ, **variables}).stdout


def test_nothing_of_a_file_of_variables_is_called_fixable(policy: Command) -> None:
    unused = '# policy: ignore[SBP413] reason="GPU tests" until=2099-01-31'
    Path("prod.env").write_text(f"{unused}\nSANDBOX_MAX_CPUS=1\n")

    ended = policy("lint", "--fix", "--env-file", "prod.env", "clean.toml")

    assert "SBP902" in ended.out
    assert "can be fixed" not in ended.out
    assert Path("prod.env").read_text().startswith(unused)


def test_of_one_rule_in_one_file_a_report_has_a_hundred_findings_and_how_many_more(policy: Command) -> None:
    Path("many.toml").write_text(CLEAN + "# policy: ignore[]\n" * 150)

    ended = policy("lint", "--json", "many.toml")

    messages = [finding["message"] for finding in json.loads(ended.out)["findings"]]
    malformed = [message for message in messages if "lacks" in message]
    assert (ended.code, len(malformed)) == (1, 100)
    assert "50 more of these begin here" in messages
