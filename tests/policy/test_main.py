"""The command `policy`: what it prints, what it writes, and the exit code of every outcome, with no traceback ever."""

import json
import os
import pty
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policy.limits import LIMITS
from policy.main import main
from tests.policy.factories import text_of

GOLDENS = Path(__file__).parent / "goldens"
PROGRAM = str(Path(sys.executable).with_name("policy"))
POLICY = """schema = 1
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
reason = "shared host [bold]with[/bold] :warning: \\\\[/x]"

[limits.max_cpus]
ceiling = 0.5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Command:
    """Calls the command in this process, in a folder of the test's own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        code = 0
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ended(code=code, out=captured.out, err=captured.err)

    def good(self, *arguments: str) -> str:
        """Call it where it must succeed, and give its output."""
        ended = self(*arguments)
        assert (ended.code, ended.err) == (0, "")
        return ended.out

    def told(self, *arguments: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.good("explain", "--json", *arguments))
        return told


@pytest.fixture
def policy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    for name in [name for name in os.environ if name.startswith("SANDBOX_")]:
        monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    Path("acme.toml").write_text(POLICY)
    return Command(capsys)


@pytest.fixture
def keys(policy: Command) -> tuple[str, str]:
    """Two key pairs, ops and sec; the ids of their keys."""
    found = [re.search(r"sha256:[0-9a-f]{64}", policy.good("keygen", name)) for name in ("ops", "sec")]
    ops, sec = (match[0] for match in found if match)
    return ops, sec


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 -- of subprocess
    return subprocess.run(
        [PROGRAM, *arguments], text=True, timeout=60, check=False, **({"capture_output": True} | options)
    )


def on_terminal(*arguments: str, **variables: str) -> str:
    """What the program writes where its output is a terminal."""
    here, there = pty.openpty()
    try:
        environ = {**os.environ, "TERM": "xterm-256color", **variables}
        subprocess.run([PROGRAM, *arguments], stdout=there, env=environ, timeout=60, check=True)
        return os.read(here, 1 << 20).decode()
    finally:
        os.close(here)
        os.close(there)


def signature_lines(path: str = "acme.toml") -> list[str]:
    return [line for line in Path(path).read_text().splitlines() if line.startswith("# ed25519 ")]


# Help


@pytest.mark.parametrize("command", ["", "keygen", "sign", "verify", "explain", "schema"])
def test_help_is_golden(policy: Command, command: str) -> None:
    shown = policy.good(*command.split(), "--help")

    assert shown == (GOLDENS / f"help{command and '-'}{command}.txt").read_text()


def test_every_command_shows_an_example(policy: Command) -> None:
    for command in ("keygen", "sign", "verify", "explain", "schema"):
        assert re.search(rf"Examples?:\n( .*\n)*  +.*policy {command}", policy.good(command, "--help"))


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


def test_unknown_valve_is_answered_with_all_there_are(policy: Command) -> None:
    ended = policy("explain", "--valve", "MAX_CPU=1")

    assert "'MAX_CPU=1'" in ended.err
    assert all(limit.valve in ended.err for limit in LIMITS)


# Keys and signatures


def test_keygen_writes_a_secret_and_a_public_key(policy: Command) -> None:
    shown = policy.good("keygen", "ops")

    assert shown.startswith(
        "Wrote ops.key (secret; sign with it) and ops.pub (public; verify with it).\nKey id: sha256:"
    )
    assert stat.S_IMODE(Path("ops.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(Path("ops.pub").stat().st_mode) == 0o644
    assert Path("ops.key").read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert Path("ops.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----\n")
    assert Path("ops.key").read_text().splitlines()[1] not in shown


def test_keygen_keeps_dots_of_a_name(policy: Command) -> None:
    policy.good("keygen", "./ops.eu")

    assert Path("ops.eu.key").exists()
    assert Path("ops.eu.pub").exists()


@pytest.mark.parametrize("existing", ["ops.key", "ops.pub"])
def test_keygen_never_overwrites_a_key(policy: Command, existing: str) -> None:
    Path(existing).write_text("precious")

    ended = policy("keygen", "ops")

    assert ended.code == 1
    reason = "it exists already, and is not overwritten. Choose another name, or move it away."
    assert ended.err == f"error: {existing}: new file: {reason}\n"
    assert [path.name for path in Path().glob("ops.*")] == [existing]
    assert Path(existing).read_text() == "precious"


def test_keygen_into_a_folder_that_is_not_there_is_refused(policy: Command) -> None:
    ended = policy("keygen", "nowhere/ops")

    assert ended.code == 1
    assert "nowhere/ops.key" in ended.err


def test_sign_adds_one_line_and_leaves_the_text_as_it_is(policy: Command, keys: tuple[str, str]) -> None:
    shown = policy.good("sign", "--key", "ops.key", "acme.toml")

    assert shown == f"Signed acme.toml (acme-prod, serial 7) with {keys[0]}.\n"
    text, _, block = Path("acme.toml").read_text().partition("# -----BEGIN POLICY SIGNATURES-----\n")
    assert text == POLICY
    assert re.fullmatch(rf"# ed25519 {keys[0]} \S{{88}}\n# -----END POLICY SIGNATURES-----\n", block)


def test_signing_twice_with_one_key_changes_nothing(policy: Command, keys: tuple[str, str]) -> None:
    policy.good("sign", "--key", "ops.key", "acme.toml")
    once = Path("acme.toml").read_bytes()
    policy.good("sign", "--key", "ops.key", "acme.toml")

    assert Path("acme.toml").read_bytes() == once
    assert [line.split()[2] for line in signature_lines()] == [keys[0]]


def test_two_keys_stand_sorted_whatever_their_order(policy: Command, keys: tuple[str, str]) -> None:
    Path("other.toml").write_text(POLICY)
    for path, names in (("acme.toml", ("ops", "sec")), ("other.toml", ("sec", "ops"))):
        for name in names:
            policy.good("sign", "--key", f"{name}.key", path)

    assert Path("acme.toml").read_bytes() == Path("other.toml").read_bytes()
    assert [line.split()[2] for line in signature_lines()] == sorted(keys)


def test_sign_keeps_the_mode_of_the_file(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    Path("acme.toml").chmod(0o640)
    policy.good("sign", "--key", "ops.key", "acme.toml")

    assert stat.S_IMODE(Path("acme.toml").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (POLICY.replace("max_cpus", "max_cpu"), "acme.toml:16: limits.max_cpu: there is no such key"),
        (POLICY.replace("serial = 7", 'serial = "7"'), "acme.toml:3: serial:"),
        (POLICY.replace("[limits]", "[limits"), "acme.toml:8: the file: it is not TOML"),
        (POLICY.replace("\n", "\r\n"), "acme.toml:1: policy file: it holds a carriage return"),
        (POLICY.rstrip("\n"), "acme.toml: policy file: it does not end in a line feed"),
        (POLICY + "# -----BEGIN POLICY SIGNATURES-----\n", "acme.toml: signatures: the marker"),
        ("", "acme.toml:1: the file: it lacks schema"),
        (f"{POLICY}#{'x' * 70_000}\n", "acme.toml: policy file: it is larger than 65536 bytes"),
    ],
    ids=[
        "unknown key",
        "wrong type",
        "no TOML",
        "carriage returns",
        "no last line feed",
        "marker",
        "empty",
        "too large",
    ],
)
def test_file_that_is_no_policy_is_not_signed(policy: Command, keys: tuple[str, str], text: str, words: str) -> None:
    assert keys
    Path("acme.toml").write_bytes(text.encode())

    ended = policy("sign", "--key", "ops.key", "acme.toml")

    assert (ended.code, ended.out) == (1, "")
    assert words in ended.err
    assert Path("acme.toml").read_bytes() == text.encode()


def test_all_problems_of_a_file_are_told_each_in_its_line(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    Path("acme.toml").write_text(POLICY.replace("ceiling = 0.5", 'ceiling = "half"\ncieling = 1').replace("7", "0"))

    ended = policy("sign", "--key", "ops.key", "acme.toml")

    lines = sorted(ended.err.splitlines())
    assert [line.split(": ")[1] for line in lines] == ["acme.toml:17", "acme.toml:18", "acme.toml:3"]
    assert lines[1].endswith("there is no such key. You may have meant ceiling.")


def test_key_that_others_can_read_signs_nothing(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    Path("ops.key").chmod(0o644)

    ended = policy("sign", "--key", "ops.key", "acme.toml")

    assert ended.code == 1
    assert "others than its owner may use it (mode 0644). Take that away: chmod 600 " in ended.err
    assert signature_lines() == []


def test_public_key_cannot_sign(policy: Command, keys: tuple[str, str]) -> None:
    assert keys

    ended = policy("sign", "--key", "ops.pub", "acme.toml")

    assert ended.code == 2
    assert "ops.pub is a public key; sign with the private one, NAME.key" in ended.err
    assert signature_lines() == []


def test_private_key_cannot_verify_and_is_not_shown(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    policy.good("sign", "--key", "ops.key", "acme.toml")

    ended = policy("verify", "--key", "ops.key", "acme.toml")

    assert ended.code == 1
    assert "it is a private key. Name the public key (NAME.pub) here" in ended.err
    assert Path("ops.key").read_text().splitlines()[1] not in ended.err


@pytest.mark.parametrize(
    "content", ["", "nonsense\n", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_file_that_is_no_key_is_refused(policy: Command, content: str) -> None:
    Path("ops.key").write_text(content)
    Path("ops.key").chmod(0o600)

    assert policy("sign", "--key", "ops.key", "acme.toml").code == 1
    assert policy("verify", "--key", "ops.key", "acme.toml").code == 1


def test_verify_shows_who_signed(policy: Command, keys: tuple[str, str]) -> None:
    policy.good("sign", "--key", "ops.key", "acme.toml")

    assert policy.good("verify", "--key", "ops.pub", "acme.toml") == (
        f"acme.toml: acme-prod, serial 7: signed (1 of 1 keys given, 1 needed).\n  {keys[0]}\n"
    )


def test_verify_names_keys_that_were_not_given(policy: Command, keys: tuple[str, str]) -> None:
    for name in ("ops", "sec"):
        policy.good("sign", "--key", f"{name}.key", "acme.toml")

    shown = policy.good("verify", "--key", "ops.pub", "acme.toml")

    assert f"  {keys[1]}: not among the keys given; not checked and not counted\n" in shown


def test_verify_tells_programs_all_of_it(policy: Command, keys: tuple[str, str]) -> None:
    policy.good("sign", "--key", "ops.key", "acme.toml")

    told = json.loads(policy.good("verify", "--json", "--key", "ops.pub", "acme.toml"))

    assert re.fullmatch("[0-9a-f]{64}", told.pop("payload_sha256"))
    assert told == {
        "file": "acme.toml",
        "id": "acme-prod",
        "serial": 7,
        "trusted": [keys[0]],
        "unknown": [],
        "threshold": 1,
    }


def test_threshold_of_two_takes_two_keys(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    both = ("verify", "--key", "ops.pub", "--key", "sec.pub", "--threshold", "2", "acme.toml")
    policy.good("sign", "--key", "ops.key", "acme.toml")
    one = policy(*both)
    policy.good("sign", "--key", "sec.key", "acme.toml")
    two = policy(*both)

    assert (one.code, two.code) == (1, 0)
    assert "acme.toml: signatures: 1 of the trusted keys signed it, and 2 must" in one.err


def test_one_key_given_twice_counts_once(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    policy.good("sign", "--key", "ops.key", "acme.toml")

    ended = policy("verify", "--key", "ops.pub", "--key", "ops.pub", "--threshold", "2", "acme.toml")

    assert ended.code == 1
    assert "2 signatures are required, and there are 1 distinct trusted keys" in ended.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("serial = 7", "serial = 8"), "the signature does not verify"),
        (lambda text: text.replace("# ed25519", "#  ed25519"), "acme.toml:19: signatures: the line is not"),
        (lambda text: text.partition("# -----BEGIN")[0], "it has no signature"),
        (lambda text: f"{text}max_cpus = 4\n", "the file does not end with END"),
    ],
    ids=["edited", "block respelt", "signatures cut off", "text after the block"],
)
def test_changed_file_is_not_verified(policy: Command, keys: tuple[str, str], change: Any, words: str) -> None:  # noqa: ANN401 -- a function
    assert keys
    policy.good("sign", "--key", "ops.key", "acme.toml")
    path = Path("acme.toml")
    path.write_text(change(path.read_text()))

    ended = policy("verify", "--key", "ops.pub", "acme.toml")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: acme.toml")
    assert words in ended.err


# Explain


def test_explain_table_is_golden(policy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_RAM_MEGABYTES", "64")
    monkeypatch.setenv("SANDBOX_NETWORK_ALLOWLIST", "[fe80::1]:80,example.com")

    ended = policy("explain", "--policy", "acme.toml", "--valve", "MAX_RUNTIME_SECONDS=600", "--candidates")

    assert ended.code == 0
    assert ended.out == (GOLDENS / "explain.txt").read_text()
    assert ended.err == ("warning: would be refused here [signature-invalid]: "[:0])


def test_explain_without_policy_shows_the_built_in_values(policy: Command) -> None:
    told = policy.told()

    assert {name: entry["decided_by"] for name, entry in told["limits"].items()} == {
        limit.name: "built-in" for limit in LIMITS
    }
    assert (told["policies"], told["warnings"], told["notices"]) == ([], [], [])


def test_explain_tells_programs_all_of_it(policy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_RAM_MEGABYTES", "64")

    told = policy.told("--policy", "acme.toml", "--valve", "MAX_RUNTIME_SECONDS=600")

    assert set(told) == {"limits", "digest", "notices", "policies", "warnings"}
    assert re.fullmatch("[0-9a-f]{64}", told["digest"])
    assert list(told["limits"]) == [limit.name for limit in LIMITS]
    assert told["limits"]["max_ram_megabytes"]["value"] == 64
    assert told["limits"]["max_ram_megabytes"]["decided_by"] == "environment"
    runtime = told["limits"]["max_runtime_seconds"]
    assert (runtime["value"], runtime["decided_by"], runtime["statement"]) == (60, "policy", "ceiling")
    assert runtime["origin"] == "acme-prod serial 7 (acme.toml:13, unsigned)"
    assert [(each["layer"], each["value"], each["fate"]) for each in runtime["candidates"]] == [
        ("policy", "60", "won"),
        ("policy", "20", "shadowed"),
        ("valve", "600", "clamped"),
        ("built-in", "30", "shadowed"),
    ]
    assert told["policies"][0]["id"] == "acme-prod"
    assert told["policies"][0]["signed_by"] == []


def test_explain_marks_files_that_would_be_refused_here(policy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("acme.toml").write_text(POLICY.replace('"*"', '"prod-us"').replace("9999-", "2021-"))
    monkeypatch.setenv("SANDBOX_POLICY_MIN_SERIAL", "acme-prod=8")

    warnings = policy.told("--policy", "acme.toml")["warnings"]

    assert [re.search(r"\[(.*?)\]", warning)[1] for warning in warnings] == [  # type: ignore[index]  # all match
        "wrong-audience",
        "expired",
        "serial-too-low",
    ]
    assert all(warning.startswith("would be refused here [") for warning in warnings)


def test_explain_says_of_an_unsigned_file_that_trusted_keys_would_refuse_it(
    policy: Command, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_POLICY_KEYS", str(Path("ops.pub").resolve()))
    before = policy.told("--policy", "acme.toml")
    policy.good("sign", "--key", "ops.key", "acme.toml")
    after = policy.told("--policy", "acme.toml")

    assert ["[signature-invalid]" in warning for warning in before["warnings"]] == [True]
    assert after["warnings"] == []
    assert after["policies"][0]["signed_by"] == [keys[0]]
    assert after["digest"] == before["digest"]


def test_explain_reads_what_the_environment_names(
    policy: Command, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.good("sign", "--key", "ops.key", "acme.toml")
    monkeypatch.setenv("SANDBOX_POLICY_KEYS", str(Path("ops.pub").resolve()))
    monkeypatch.setenv("SANDBOX_POLICY_PATH", str(Path("acme.toml").resolve()))

    told = policy.told()

    assert told["policies"][0]["signed_by"] == [keys[0]]
    assert told["limits"]["networking_allowed"]["value"] is False


def test_explain_refuses_a_set_that_the_environment_names_with_its_code(
    policy: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_POLICY_PATH", str(Path("acme.toml").resolve()))

    ended = policy("explain")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error [keys-invalid]: environment: SANDBOX_POLICY_KEYS: ")


def test_malformed_environment_is_told_variable_by_variable(policy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_CPUS", "\x1b[31mmany")
    monkeypatch.setenv("SANDBOX_MAX_RUNTIME_SECOND", "5")

    ended = policy("explain", "--json")

    assert (ended.code, ended.out) == (1, "")
    assert [line.split(": ")[2] for line in ended.err.splitlines()] == [
        "SANDBOX_MAX_CPUS",
        "SANDBOX_MAX_RUNTIME_SECOND",
    ]
    assert "Did you mean SANDBOX_MAX_RUNTIME_SECONDS?" in ended.err
    assert "\x1b" not in ended.err


def test_foreign_variable_is_warned_of_beside_the_table(policy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_WHATEVER", "1")

    ended = policy("explain")

    assert ended.code == 0
    assert ended.err == "warning: SANDBOX_WHATEVER is not a variable of sandbox-lockdown; it has no effect here.\n"


def test_problems_of_all_files_named_are_told_together(policy: Command) -> None:
    Path("other.toml").write_text(POLICY.replace("max_cpus", "max_cpu"))
    Path("acme.toml").write_text(POLICY.replace("serial", "seriel"))
    Path("third.toml").write_bytes(b"\r\n")

    ended = policy("explain", "--policy", "acme.toml", "--policy", "other.toml", "--policy", "third.toml")

    assert ended.code == 1
    places = {line.split(": ")[1].split(":")[0] for line in ended.err.splitlines()}
    assert places == {"acme.toml", "other.toml", "third.toml"}


def test_person_cannot_choose_what_only_administrators_do(policy: Command) -> None:
    told = policy.told("--valve", "NETWORK_PRIVATE_ALLOWED=true")

    entry = told["limits"]["network_private_allowed"]
    assert entry["value"] is False
    assert [each["fate"] for each in entry["candidates"] if each["layer"] == "valve"] == ["ignored"]
    assert (
        "The valve NETWORK_PRIVATE_ALLOWED is ignored (only an administrator chooses this limit)" in told["notices"][0]
    )
    assert policy.told("--admin-valve", "NETWORK_PRIVATE_ALLOWED=true")["limits"]["network_private_allowed"]["value"]


def test_unreadable_valves_are_told_and_resolved_to_the_safe_side(policy: Command) -> None:
    told = policy.told("--valve", "MAX_CPUS=[red]many", "--admin-valve", "MAX_RUNTIME_SECONDS=")

    assert told["limits"]["max_cpus"]["value"] == 1
    assert told["limits"]["max_runtime_seconds"]["value"] == 1
    assert len(told["notices"]) == 2


def test_table_shows_text_as_it_is_and_never_obeys_it(policy: Command) -> None:
    reason = "\x1b]0;title\x07 \u202e [red]x[/red] \\[/b] :warning:"
    limits = {"max_cpus": {"ceiling": 0.5, "reason": reason}}
    Path("acme.toml").write_text(text_of(limits, audience=["*"]))

    ended = policy("explain", "--policy", "acme.toml", "--candidates", "--valve", "LANGUAGES=[/bold] :smile:")

    shown = re.sub(r"\s+", " ", ended.out)
    assert ended.code == 0
    assert r"\x1b]0;title\x07 \u202e [red]x[/red] \[/b] :warning:" in shown
    assert "[/bold] :smile:" in shown
    assert not re.search("[\x1b\x07\u202e]", ended.out + ended.err)


def test_schema_is_the_published_one(policy: Command) -> None:
    assert policy.good("schema") == (Path(__file__).parents[2] / "policy/policy.schema.json").read_text()


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
