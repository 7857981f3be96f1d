import pytest

from tests.policy.lint.linting import findings, of_rule, places


@pytest.mark.parametrize(
    "line",
    [
        "SANDBOX_MAX_RAM_MEGABYTES=1GB",
        "SANDBOX_MAX_RAM_MEGABYTES=31",
        "SANDBOX_MAX_RAM_MEGABYTES=+64",
        "SANDBOX_MAX_RUNTIME_SECONDS=0",
        "SANDBOX_MAX_OUTPUT_KILOBYTES=unlimited",
        "SANDBOX_DEBUG=yes",
        "SANDBOX_DEBUG=",
        "SANDBOX_NETWORK_ALLOWLIST=Example.com",
        "SANDBOX_POLICY_PATH=policies",
        "SANDBOX_POLICY_MAX_STALE=24",
    ],
)
def test_each_kind_of_bad_value_is_found_where_it_stands(line: str) -> None:
    assert places("SBP402", environment=f"SANDBOX_MAX_CPUS=1\n{line}\n") == [(2, 1, line.partition("=")[0])]


@pytest.mark.parametrize(
    "line", ["SANDBOX_MAX_RAM_MEGABYTES=32", "SANDBOX_DEBUG=FALSE", "SANDBOX_NETWORK_ALLOWLIST=none", "DEBUG="]
)
def test_good_values_and_variables_of_others_are_not_found(line: str) -> None:
    assert not places("SBP402", environment=f"{line}\n")


def test_all_of_them_are_found_at_once_each_with_its_grammar() -> None:
    found = of_rule("SBP402", findings(environment="SANDBOX_DEBUG=yes\nSANDBOX_MAX_CPUS=many\n"))

    assert [each.location.key for each in found] == ["SANDBOX_DEBUG", "SANDBOX_MAX_CPUS"]
    assert found[0].remedy == "Expected true or false"
    assert found[0].excerpt == "SANDBOX_DEBUG=yes"


def test_a_key_that_was_pasted_into_it_is_not_shown() -> None:
    found = findings(environment="SANDBOX_POLICY_KEYS=\tMC4CAQAwBQYDK2VwBCIEIHunter2\n")

    assert found
    assert "Hunter2" not in "".join(each.excerpt for each in found)
