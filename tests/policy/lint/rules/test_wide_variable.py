import pytest

from tests.policy.lint.linting import findings, of_rule, places


@pytest.mark.parametrize(
    "line",
    [
        "SANDBOX_MAX_RUNTIME_SECONDS=86400",
        "SANDBOX_MAX_RAM_MEGABYTES__CEILING=1048576",
        "SANDBOX_MAX_CPUS__CEILING=1024.0",
        "SANDBOX_NETWORK_ALLOWLIST=pypi.org,*.com",
        "SANDBOX_NETWORK_ALLOWLIST__CEILING=0.0.0.0/0",
        "SANDBOX_NETWORK_ALLOWLIST__DEFAULT=*.github.io",
    ],
)
def test_what_bounds_nothing_is_found_where_it_stands(line: str) -> None:
    assert places("SBP417", environment=f"# ours\n{line}\n") == [(2, 1, line.partition("=")[0])]


@pytest.mark.parametrize(
    "line",
    [
        "SANDBOX_MAX_RUNTIME_SECONDS=86399",
        "SANDBOX_MAX_RUNTIME_SECONDS__DEFAULT=86400",
        "SANDBOX_MAX_RAM_MEGABYTES=unlimited",
        "SANDBOX_NETWORK_ALLOWLIST=public",
        "SANDBOX_NETWORK_ALLOWLIST=*.acme.com,10.0.0.0/8",
        "SANDBOX_LANGUAGES=python,bash",
    ],
)
def test_what_bounds_something_or_is_another_rules_business_is_not_found(line: str) -> None:
    assert not places("SBP417", environment=f"{line}\n")


def test_each_wide_item_is_named() -> None:
    found = of_rule("SBP417", findings(environment="SANDBOX_NETWORK_ALLOWLIST=*.com,pypi.org,*.net\n"))

    assert [each.message.partition(" in ")[0] for each in found] == ["*.com", "*.net"]
