import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written

CEILING = written("[limits.max_runtime_seconds]\nceiling = 60\n")


@pytest.mark.parametrize(
    ("policy", "variable"),
    [
        ("max_runtime_seconds = 60", "SANDBOX_MAX_RUNTIME_SECONDS=61"),
        ("max_runtime_seconds.ceiling = 60", "SANDBOX_MAX_RUNTIME_SECONDS=unlimited"),
        ("networking_allowed = false", "SANDBOX_NETWORKING_ALLOWED=true"),
        ("require_resource_limiting = true", "SANDBOX_REQUIRE_RESOURCE_LIMITING=false"),
        ('network_allowlist = ["a.example"]', "SANDBOX_NETWORK_ALLOWLIST=a.example,b.example"),
        ('languages.ceiling = ["python"]', "SANDBOX_LANGUAGES=bash"),
    ],
)
def test_a_lock_past_a_lock_or_ceiling_is_found_at_the_variable(policy: str, variable: str) -> None:
    name = variable.partition("=")[0]

    found = places("SBP408", written(f"[limits]\n{policy}\n"), environment=f"# ours\n{variable}\n")

    assert found == [(2, 1, name)]


@pytest.mark.parametrize(
    "variable",
    [
        "SANDBOX_MAX_RUNTIME_SECONDS=60",
        "SANDBOX_MAX_RUNTIME_SECONDS=1",
        "SANDBOX_MAX_RUNTIME_SECONDS__CEILING=600",
        "SANDBOX_MAX_RUNTIME_SECONDS__DEFAULT=600",
        "SANDBOX_MAX_RAM_MEGABYTES=unlimited",
    ],
)
def test_what_stays_within_the_policy_is_not_found(variable: str) -> None:
    assert not places("SBP408", CEILING, environment=f"{variable}\n")


def test_a_default_of_a_policy_is_no_bound() -> None:
    policy = written("[limits.max_runtime_seconds]\ndefault = 10\n")

    assert not places("SBP408", policy, environment="SANDBOX_MAX_RUNTIME_SECONDS=600\n")


def test_a_policy_that_forbids_it_brings_the_variable_in() -> None:
    policy = written("[limits.max_runtime_seconds]\nceiling = 60\nenv_may_loosen = false\n")

    assert not places("SBP408", policy, environment="SANDBOX_MAX_RUNTIME_SECONDS=600\n")


def test_what_one_policy_brings_in_may_still_be_past_another() -> None:
    firm = written("[limits.max_runtime_seconds]\nceiling = 60\nenv_may_loosen = false\n")
    other = written("[limits.max_runtime_seconds]\nceiling = 30\n", id='"other"')

    (found,) = of_rule("SBP408", findings(firm, other=other, environment="SANDBOX_MAX_RUNTIME_SECONDS=600\n"))

    assert [(place.file, place.line, place.key) for place in found.related] == [
        ("other.toml", 10, "limits.max_runtime_seconds.ceiling")
    ]
    assert "makes it 60 seconds, past the ceiling of 30 seconds in other.toml, line 10" in found.message


def test_what_scopes_say_is_left_aside() -> None:
    policy = written('[[scope]]\nmatch.roles = ["user"]\nlimits.max_runtime_seconds.ceiling = 5\n')

    assert not places("SBP408", policy, environment="SANDBOX_MAX_RUNTIME_SECONDS=600\n")


def test_in_production_it_is_an_error_that_no_comment_takes_out() -> None:
    environment = '# policy: ignore[SBP408] reason="GPU tests" until=2027-01-31\nSANDBOX_MAX_RUNTIME_SECONDS=600\n'

    assert not of_rule("SBP408", findings(CEILING, environment=environment))
    (found,) = of_rule("SBP408", findings(CEILING, environment=environment, production=True))
    assert found.severity is Severity.ERROR
