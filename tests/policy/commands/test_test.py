"""`policy test`: cases pass and fail for the reasons they should, and a broken file of cases never passes."""

import json
from pathlib import Path

import pytest

from tests.policy.commands.conftest import POLICY, Command

SCOPED = (
    POLICY
    + """
[[scope]]
match.groups = ["students"]
limits.max_runtime_seconds.ceiling = 10
"""
)
CASES = """policies = ["acme.toml"]

[[case]]
name = "students get ten seconds, whatever they ask for"
who = { groups = ["students"], surface = "tool" }
valves = { max_runtime_seconds = 600 }
expect = { max_runtime_seconds = 10, networking_allowed = false }

[[case]]
name = "others get sixty"
who.groups = []
valves.max_runtime_seconds = 600
expect.max_runtime_seconds = 60
"""


@pytest.fixture
def cases(policy: Command) -> Path:
    """Write the policy and its cases where the command runs; `policy` has made that the current folder."""
    assert policy is not None
    Path("acme.toml").write_text(SCOPED)
    file = Path("acme.test.toml")
    file.write_text(CASES)
    return file


def test_cases_that_hold_pass(policy: Command, cases: Path) -> None:
    assert policy.good("test", str(cases)).splitlines()[-1] == "2 passed, 0 failed"


def test_a_case_that_does_not_hold_fails_with_the_value_and_who_decided_it(policy: Command, cases: Path) -> None:
    cases.write_text(CASES.replace("seconds = 10,", "seconds = 12,"))

    ended = policy("test", str(cases))

    assert ended.code == 1
    assert "FAILED  students get ten seconds, whatever they ask for  acme.test.toml:4" in ended.out
    reason = "max_runtime_seconds is 10 seconds, by acme-prod serial 7 (acme.toml:21, for groups students, unverified)"
    assert f"{reason}; expected 12 seconds" in ended.out


def test_json_has_every_case_with_its_failures(policy: Command, cases: Path) -> None:
    cases.write_text(CASES.replace("expect.max_runtime_seconds = 60", "expect.max_runtime_seconds = 61"))

    ended = policy("test", "--json", str(cases))

    told = json.loads(ended.out)["cases"]
    assert ended.code == 1
    assert [case["passed"] for case in told] == [True, False]
    assert told[1]["place"] == "acme.test.toml:10"


def test_an_attribute_left_out_cannot_be_determined_and_meets_the_scope(policy: Command, cases: Path) -> None:
    cases.write_text(CASES.replace("who.groups = []\n", ""))

    ended = policy("test", str(cases))

    assert (ended.code, ended.out.splitlines()[-1]) == (1, "1 passed, 1 failed")


def test_a_case_has_its_own_environment_and_never_that_of_the_process(
    policy: Command, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_MAX_CPUS", "3")
    cases.write_text(
        f"""{CASES}environment = {{ SANDBOX_MAX_RUNTIME_SECONDS = "7" }}
[[case]]
name = "not of this process"
expect.max_cpus = 0.5
""".replace("expect.max_runtime_seconds = 60", "expect.max_runtime_seconds = 7")
    )

    assert policy.good("test", str(cases)).splitlines()[-1] == "3 passed, 0 failed"


def test_an_environment_that_would_be_refused_fails_its_case(policy: Command, cases: Path) -> None:
    cases.write_text(f'{CASES}environment = {{ SANDBOX_MAX_RUNTIME_SECONDS = "soon" }}\n')

    ended = policy("test", str(cases))

    assert ended.code == 1
    assert "its environment is refused: environment: SANDBOX_MAX_RUNTIME_SECONDS: 'soon' is not a whole" in ended.out


def test_another_policy_takes_the_place_of_the_named_one(policy: Command, cases: Path) -> None:
    Path("proposed.toml").write_text(SCOPED.replace("ceiling = 10", "ceiling = 20"))

    ended = policy("test", "--policy", "proposed.toml", str(cases))

    assert (ended.code, ended.out.splitlines()[-1]) == (1, "1 passed, 1 failed")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("valves = ", "valvez = ", "case[0].valvez: there is no such key. You may have meant valves"),
        ("max_runtime_seconds = 600", "max_runtime = 600", "You may have meant max_runtime_seconds"),
        (
            "expect.max_runtime_seconds = 60",
            "expect.max_runtime_seconds = 0",
            "0 is below the least permitted value, 1",
        ),
        ("expect.max_runtime_seconds = 60", "expect = {}", "case[1].expect"),
        ("expect.max_runtime_seconds = 60\n", "", "it lacks expect"),
        ('surface = "tool"', 'surface = "button"', "is not one of tool, function"),
        ("[[case]]", "[[case", "it is not TOML"),
        ('policies = ["acme.toml"]', 'policies = ["missing.toml"]', "it does not exist"),
        ('policies = ["acme.toml"]\n', "", "names no policies"),
        (CASES, 'policies = ["acme.toml"]\n', "it lacks case"),
    ],
)
def test_a_file_of_cases_that_cannot_be_read_is_never_a_pass(
    policy: Command, cases: Path, old: str, new: str, told: str
) -> None:
    assert old in CASES
    cases.write_text(CASES.replace(old, new, 1))

    ended = policy("test", str(cases))

    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err


def test_policies_that_contradict_each_other_are_no_set_to_test(policy: Command, cases: Path) -> None:
    other = POLICY.replace("acme-prod", "other").replace("networking_allowed = false", "networking_allowed = true")
    Path("other.toml").write_text(other)
    cases.write_text(CASES.replace('["acme.toml"]', '["acme.toml", "other.toml"]'))

    ended = policy("test", str(cases))

    assert ended.code == 2
    assert "locks another value" in ended.err
