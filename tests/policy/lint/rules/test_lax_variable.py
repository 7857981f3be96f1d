import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize("name", ["SANDBOX_AUTO_INSTALL", "SANDBOX_DEBUG", "SANDBOX_NETWORKING_ALLOWED"])
@pytest.mark.parametrize("suffix", ["", "__CEILING", "__DEFAULT"])
def test_true_is_found_where_it_stands(name: str, suffix: str) -> None:
    assert places("SBP416", environment=f"# ours\n{name}{suffix}=true\n") == [(2, 1, f"{name}{suffix}")]
    assert not places("SBP416", environment=f"# ours\n{name}{suffix}=false\n")


@pytest.mark.parametrize("line", ["SANDBOX_REQUIRE_RESOURCE_LIMITING=true", "SANDBOX_POLICY_REQUIRED=true"])
def test_other_switches_that_are_true_are_not_found(line: str) -> None:
    assert not places("SBP416", environment=f"{line}\n")


@pytest.mark.parametrize("suffix", ["", "__CEILING"])
def test_a_network_that_is_narrowed_is_not_found(suffix: str) -> None:
    environment = f"SANDBOX_NETWORKING_ALLOWED=true\nSANDBOX_NETWORK_ALLOWLIST{suffix}=pypi.org\n"

    assert not places("SBP416", environment=environment)


def test_a_policy_may_narrow_the_network_too() -> None:
    policy = written('[limits]\nnetwork_allowlist = ["pypi.org"]\n')

    assert not places("SBP416", policy, environment="SANDBOX_NETWORKING_ALLOWED=true\n")


def test_a_default_that_a_policy_closes_is_not_found_and_a_lock_is() -> None:
    policy = written("[limits]\ndebug = false\n")

    assert not places("SBP416", policy, environment="SANDBOX_DEBUG__DEFAULT=true\n")
    assert places("SBP416", policy, environment="SANDBOX_DEBUG=true\n")


def test_it_is_an_error_in_production() -> None:
    found = of_rule("SBP416", findings(environment="SANDBOX_DEBUG=true\n", production=True))

    assert [each.severity for each in found] == [Severity.ERROR]
