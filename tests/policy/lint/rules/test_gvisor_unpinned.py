import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written

SHA512 = "ab" * 64


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ("SANDBOX_DEBUG=false\nSANDBOX_AUTO_INSTALL=true\n", (2, 1, "SANDBOX_AUTO_INSTALL")),
        ("SANDBOX_DEBUG=false\nSANDBOX_AUTO_INSTALL__DEFAULT=true\n", (2, 1, "SANDBOX_AUTO_INSTALL__DEFAULT")),
        ("SANDBOX_DEBUG=false\n", (1, 1, "SANDBOX_GVISOR_MIN_VERSION")),
        ("SANDBOX_AUTO_INSTALL__DEFAULT=false\n", (1, 1, "SANDBOX_AUTO_INSTALL__DEFAULT")),
    ],
)
def test_an_installation_of_any_age_is_found_at_the_nearest_variable(
    environment: str, place: tuple[int, int, str]
) -> None:
    assert places("SBP206", environment=environment) == [place]


def test_a_pinned_release_does_not_keep_debians_package_away() -> None:
    environment = f"SANDBOX_GVISOR_VERSION=20260810\nSANDBOX_GVISOR_SHA512={SHA512}\n"

    assert places("SBP206", environment=environment) == [(1, 1, "SANDBOX_GVISOR_VERSION")]
    assert not places("SBP206", environment=f"{environment}SANDBOX_GVISOR_MIN_VERSION=20260810\n")


@pytest.mark.parametrize("variable", ["SANDBOX_AUTO_INSTALL=false", "SANDBOX_AUTO_INSTALL__CEILING=false"])
def test_a_variable_that_locks_it_off_is_enough(variable: str) -> None:
    assert not places("SBP206", environment=f"{variable}\n")


def test_a_policy_that_locks_it_off_is_enough_unless_a_variable_goes_past_it() -> None:
    policy = written("[limits]\nauto_install = false\n")

    assert not places("SBP206", policy, environment="SANDBOX_DEBUG=false\n")
    assert places("SBP206", policy, environment="SANDBOX_AUTO_INSTALL=true\n")


def test_a_policy_that_no_variable_goes_past_is_enough() -> None:
    policy = written("[limits]\nauto_install = { lock = false, env_may_loosen = false }\n")

    assert not places("SBP206", policy, environment="SANDBOX_AUTO_INSTALL=true\n")


def test_policies_that_were_not_given_may_lock_it_off() -> None:
    assert not places("SBP206", environment="SANDBOX_POLICY_PATH=/etc/policies\nSANDBOX_POLICY_KEYS=/etc/keys\n")


def test_variables_that_cannot_be_read_say_nothing_of_it() -> None:
    assert not places("SBP206", environment="SANDBOX_AUTO_INSTALL=true\nSANDBOX_MAX_CPUS=many\n")


def test_it_is_an_error_in_production() -> None:
    found = of_rule("SBP206", findings(environment="SANDBOX_AUTO_INSTALL=true\n", production=True))

    assert [each.severity for each in found] == [Severity.ERROR]
