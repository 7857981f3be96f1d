import pytest

from tests.policy.lint.linting import places, written

LINES = [
    "SANDBOX_NETWORK_PRIVATE_ALLOWED=true",
    "SANDBOX_NETWORK_PRIVATE_ALLOWED__CEILING=true",
    "SANDBOX_NETWORK_PRIVATE_ALLOWED__DEFAULT=true",
    "SANDBOX_REQUIRE_RESOURCE_LIMITING=false",
    "SANDBOX_REQUIRE_RESOURCE_LIMITING__CEILING=false",
    "SANDBOX_MAX_RAM_MEGABYTES=unlimited",
    "SANDBOX_MAX_CPUS__CEILING=unlimited",
    "SANDBOX_MAX_INSTANCE_RUNS__DEFAULT=unlimited",
]


@pytest.mark.parametrize("line", LINES)
def test_each_dangerous_opening_is_found_where_it_stands(line: str) -> None:
    assert places("SBP413", environment=f"# ours\n{line}\n") == [(2, 1, line.partition("=")[0])]


@pytest.mark.parametrize(
    "line",
    [
        "SANDBOX_NETWORK_PRIVATE_ALLOWED=false",
        "SANDBOX_REQUIRE_RESOURCE_LIMITING=true",
        "SANDBOX_MAX_RAM_MEGABYTES=1048576",
        "SANDBOX_DEBUG=true",
    ],
)
def test_what_is_strict_or_merely_lax_is_not_found(line: str) -> None:
    assert not places("SBP413", environment=f"{line}\n")


@pytest.mark.parametrize(
    "closing",
    [
        "SANDBOX_NETWORKING_ALLOWED=false",
        "SANDBOX_NETWORK_ALLOWLIST=10.1.2.3",
        "SANDBOX_NETWORK_ALLOWLIST__CEILING=none",
    ],
)
def test_private_destinations_behind_another_bound_are_not_found(closing: str) -> None:
    assert not places("SBP413", environment=f"SANDBOX_NETWORK_PRIVATE_ALLOWED=true\n{closing}\n")


def test_a_default_that_a_ceiling_closes_is_no_opening() -> None:
    environment = "SANDBOX_MAX_CPUS__DEFAULT=unlimited\n"

    assert not places("SBP413", written("[limits]\nmax_cpus.ceiling = 2\n"), environment=environment)


def test_a_lock_stands_above_a_policy_that_lets_it() -> None:
    environment = "SANDBOX_MAX_CPUS=unlimited\n"

    assert places("SBP413", written("[limits]\nmax_cpus.ceiling = 2\n"), environment=environment)
    firm = written("[limits]\nmax_cpus = { ceiling = 2, env_may_loosen = false }\n")
    assert not places("SBP413", firm, environment=environment)
