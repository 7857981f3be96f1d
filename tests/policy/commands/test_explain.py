"""`policy explain`: what holds, who decided it and who did not, for people and for programs."""

import json
import os
import re
from pathlib import Path

import pytest

from policy.limits import LIMITS
from tests.policy.commands.conftest import GOLDENS, POLICY, Command
from tests.policy.factories import text_of


def test_explain_table_is_golden(policy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_RAM_MEGABYTES", "64")
    monkeypatch.setenv("SANDBOX_NETWORK_ALLOWLIST", "[fe80::1]:80,example.com")

    ended = policy("explain", "--policy", "acme.toml", "--valve", "MAX_RUNTIME_SECONDS=600", "--candidates")

    assert (ended.code, ended.err) == (0, "")
    golden = GOLDENS / "explain.txt"
    if os.environ.get("WRITE_GOLDENS"):
        golden.write_text(ended.out)
    assert ended.out == golden.read_text()


def test_explain_without_policy_shows_the_built_in_values(policy: Command) -> None:
    told = policy.told()

    assert {name: entry["decided_by"] for name, entry in told["limits"].items()} == {
        limit.name: "built-in" for limit in LIMITS
    }
    assert (told["policies"], told["warnings"], told["notices"]) == ([], [], [])


def test_explain_tells_programs_all_of_it(policy: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_RAM_MEGABYTES", "64")

    told = policy.told("--policy", "acme.toml", "--valve", "MAX_RUNTIME_SECONDS=600")

    assert set(told) == {"limits", "digest", "notices", "policies", "requester", "warnings", "destinations"}
    assert re.fullmatch("[0-9a-f]{64}", told["digest"])
    assert list(told["limits"]) == [limit.name for limit in LIMITS]
    assert told["limits"]["max_ram_megabytes"]["value"] == 64
    assert told["limits"]["max_ram_megabytes"]["decided_by"] == "environment"
    runtime = told["limits"]["max_runtime_seconds"]
    assert (runtime["value"], runtime["decided_by"], runtime["statement"]) == (60, "policy", "ceiling")
    assert runtime["origin"] == "acme-prod serial 7 (acme.toml:13, unverified)"
    assert [(each["layer"], each["value"], each["fate"]) for each in runtime["candidates"]] == [
        ("policy", "60", "won"),
        ("policy", "20", "shadowed"),
        ("valve", "600", "clamped"),
        ("built-in", "30", "shadowed"),
    ]
    assert told["policies"][0]["id"] == "acme-prod"
    assert told["policies"][0]["signed_by"] == []


@pytest.mark.parametrize(
    ("destination", "variables", "answer"),
    [
        ("pypi.org", {}, (True, "if it leads to a public address", "")),
        ("pypi.org:443", {"NETWORK_ALLOWLIST": "pypi.org:443"}, (True, "if it leads to a public address", "")),
        ("pypi.org:80", {"NETWORK_ALLOWLIST": "pypi.org:443"}, (False, "not in the allow-list", "NETWORK_ALLOWLIST")),
        ("pypi.org", {"NETWORKING_ALLOWED": "false"}, (False, "networking_allowed is false", "NETWORKING_ALLOWED")),
        ("93.184.216.34", {}, (True, "unless it is the server's own address", "")),
        ("[2606:2800::1]:80", {}, (True, "unless it is the server's own address", "")),
        ("2606:2800::1", {}, (True, "unless it is the server's own address", "")),
        (
            "169.254.169.254:80",
            {"NETWORK_ALLOWLIST": "169.254.169.254"},
            (
                False,
                "169.254.169.254 is link-local, where clouds keep their metadata, and private destinations are closed",
                "built-in",
            ),
        ),
        ("10.0.0.5:22", {"NETWORK_PRIVATE_ALLOWED": "true"}, (True, "", "")),
        (
            "0x7f000001",
            {"NETWORK_PRIVATE_ALLOWED": "true"},
            (False, "it is an address in an unusual spelling; write it as four decimal numbers", ""),
        ),
    ],
)
def test_explain_foretells_what_becomes_of_a_destination(
    policy: Command,
    monkeypatch: pytest.MonkeyPatch,
    destination: str,
    variables: dict[str, str],
    answer: tuple[bool, str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"SANDBOX_{name}", value)
    permitted, reason, origin = answer

    ended = policy("explain", "--json", "--destination", destination)

    (told,) = json.loads(ended.out)["destinations"]
    assert (told["permitted"], told["reason"]) == (permitted, reason)
    assert told["origin"] == (f"SANDBOX_{origin}" if origin.isupper() else origin)
    assert ended.code == (0 if permitted else 1)


@pytest.mark.parametrize("destination", ["", "10.0.0.0/8", "https://web.example:443/y"])
def test_explain_takes_no_network_and_no_page_for_a_destination(policy: Command, destination: str) -> None:
    ended = policy("explain", "--destination", destination)

    assert (ended.code, ended.out) == (2, "")
    assert "it is a host, or a host and a port" in ended.err


def test_explain_names_the_line_that_closes_a_destination(policy: Command) -> None:
    ended = policy("explain", "--policy", "acme.toml", "--destination", "pypi.org")

    answer = ended.out.splitlines()[-1].split()
    assert answer[:2] == ["pypi.org:443", "refused"], ended.out
    assert "acme-prod serial 7 (acme.toml:" in ended.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("destination", "groups", "origin"),
    [
        ("web.example:443", ("--group", "students"), "(lists.toml:"),
        ("web.example:25", ("--no-group",), "SANDBOX_NETWORK_ALLOWLIST__CEILING"),
        ("other.example", ("--no-group",), "(lists.toml:"),
    ],
    ids=["scope", "environment", "file"],
)
def test_explain_blames_the_list_that_lacks_the_destination_and_no_other(
    policy: Command, monkeypatch: pytest.MonkeyPatch, destination: str, groups: tuple[str, ...], origin: str
) -> None:
    students = {"match": {"groups": ["students"]}, "limits": {"network_allowlist": {"ceiling": ["web.example:80"]}}}
    Path("lists.toml").write_text(text_of({"network_allowlist": {"ceiling": ["web.example"]}}, scope=[students]))
    monkeypatch.setenv("SANDBOX_NETWORK_ALLOWLIST__CEILING", "web.example:80,web.example:443,other.example")

    told = json.loads(policy("explain", "--policy", "lists.toml", "--json", "--destination", destination, *groups).out)

    (answer,) = told["destinations"]
    assert (answer["permitted"], answer["reason"]) == (False, "not in the allow-list")
    assert origin in answer["origin"], answer
    assert ("scope" in answer["origin"] or "for groups" in answer["origin"]) is bool(groups[1:])


@pytest.mark.parametrize("destination", ["pypi.org:0", "pypi.org:65536", "pypi.org:https", "[::1]:-1", "pypi.org:"])
def test_explain_takes_no_port_that_there_is_not(policy: Command, destination: str) -> None:
    ended = policy("explain", "--destination", destination)

    assert (ended.code, ended.out) == (2, "")
    assert "the port is a number from 1 to 65535" in ended.err


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

    told = json.loads(ended.out)["refused"]
    named = ["SANDBOX_MAX_CPUS", "SANDBOX_MAX_RUNTIME_SECOND"]
    assert ended.code == 1
    assert (told["code"], [problem["key"] for problem in told["problems"]]) == (None, named)
    assert [line.split(": ")[2] for line in ended.err.splitlines()] == named
    assert "Did you mean SANDBOX_MAX_RUNTIME_SECONDS?" in ended.err
    assert "\x1b" not in ended.err + ended.out


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
    reason = "[red]x[/red] \\[/b] :warning:"
    limits = {"max_cpus": {"ceiling": 0.5, "reason": reason}}
    Path("acme.toml").write_text(text_of(limits, audience=["*"]))

    ended = policy(
        "explain",
        "--policy",
        "acme.toml",
        "--candidates",
        "--valve",
        "LANGUAGES=[/bold] :smile: \x1b]0;title\x07 \u202e",
    )

    shown = re.sub(r"\s+", " ", ended.out)
    assert ended.code == 0
    assert r"[red]x[/red] \[/b] :warning:" in shown
    assert "[/bold] :smile:" in shown
    assert not re.search("[\x1b\x07\u202e]", ended.out + ended.err)


# Who asks

SCOPES = """
[[scope]]
match.groups = ["students"]
match.surface = "tool"
limits.max_runtime_seconds.ceiling = 5

[[scope]]
except.roles = ["admin"]
limits.max_cpus = 0.25
"""


@pytest.fixture
def scoped(policy: Command) -> Command:
    Path("acme.toml").write_text(POLICY + SCOPES)
    return policy


@pytest.mark.parametrize(
    ("who", "runtime", "cpus"),
    [
        ([], 5, 0.25),
        (["--group", "students", "--surface", "tool", "--role", "user"], 5, 0.25),
        (["--group", "staff", "--group", "students", "--surface", "tool", "--role", "admin"], 5, 0.5),
        (["--group", "students", "--surface", "function", "--role", "admin"], 20, 0.5),
        (["--no-group", "--role", "admin"], 20, 0.5),
        (["--surface", "tool"], 5, 0.25),
        (["--role", ""], 5, 0.25),
    ],
    ids=lambda who: " ".join(who) or "nobody in particular" if isinstance(who, list) else "",
)
def test_scopes_hold_for_whom_one_says(scoped: Command, who: list[str], runtime: int, cpus: float) -> None:
    limits = scoped.told("--policy", "acme.toml", *who)["limits"]

    assert (limits["max_runtime_seconds"]["value"], limits["max_cpus"]["value"]) == (runtime, cpus)


def test_who_was_asked_about_is_told_to_programs(scoped: Command) -> None:
    told = scoped.told("--role", "user", "--group", "b", "--group", "a", "--user", "u-1", "--model", "llama")

    assert told["requester"] == {"role": "user", "groups": ["a", "b"], "user": "u-1", "model": "llama", "surface": None}
    assert scoped.told("--no-group")["requester"]["groups"] == []


def test_scope_of_others_is_shown_as_ignored(scoped: Command) -> None:
    runtime = scoped.told("--policy", "acme.toml", "--no-group")["limits"]["max_runtime_seconds"]

    ignored = [each for each in runtime["candidates"] if each["fate"] == "ignored"]
    assert [(each["value"], each["note"]) for each in ignored] == [("5", "its scope is not for this request")]
    assert ignored[0]["origin"] == "acme-prod serial 7 (acme.toml:22, for groups students and surface tool, unverified)"


def test_attributes_left_out_are_named_where_a_scope_asks_for_them(scoped: Command) -> None:
    some = scoped.good("explain", "--policy", "acme.toml", "--role", "user", "--surface", "tool")
    every = scoped.good("explain", "--policy", "acme.toml", "--role", "user", "--surface", "tool", "--no-group")

    assert (
        "note: you did not say the person's groups; a scope that asks for them may hold for that reason alone.\n"
        in some
    )
    assert "you did not say" not in every
    assert "you did not say" not in scoped.good("explain")


@pytest.mark.parametrize("who", [["--group", "a", "--no-group"], ["--surface", "tools"]], ids=" ".join)
def test_what_nobody_can_be_is_wrong_usage(scoped: Command, who: list[str]) -> None:
    ended = scoped("explain", *who)

    assert (ended.code, ended.out) == (2, "")


def test_every_problem_of_a_file_of_variables_has_a_line_of_its_own(policy: Command) -> None:
    Path("bad.env").write_text("SANDBOX_MAX_CPUS=1\nSANDBOX_MAX_CPUS=2\nSANDBOX_DEBUG=true\nSANDBOX_DEBUG=false\n")

    ended = policy("explain", "--env-file", "bad.env")

    assert ended.code == 2
    assert [line.partition("bad.env:")[2][:1] for line in ended.err.splitlines() if "bad.env:" in line] == ["2", "4"]
