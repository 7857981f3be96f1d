import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    "line",
    [
        "SANDBOX_POLICY_KEYS=/etc/keys",
        "SANDBOX_POLICY_STATE=/var/lib/policy",
        "SANDBOX_POLICY_MAX_STALE=1h",
        "SANDBOX_POLICY_UNSIGNED_ALLOWED=true",
    ],
)
def test_what_is_meant_for_policies_is_found_where_no_path_names_one(line: str) -> None:
    assert places("SBP410", environment=f"SANDBOX_DEBUG=false\n{line}\n") == [(2, 1, line.partition("=")[0])]


def test_a_policy_beside_variables_that_load_none_is_found() -> None:
    (found,) = of_rule("SBP410", findings(written(""), environment="SANDBOX_DEBUG=false\n"))

    assert (found.location.file, found.location.line) == ("prod.env", 1)
    assert [place.file for place in found.related] == ["acme.toml"]


@pytest.mark.parametrize(
    "line",
    [
        "SANDBOX_POLICY_PATH=/etc/policies",
        "SANDBOX_POLICY_REQUIRED=true",
        "SANDBOX_POLICY_IDS=acme-prod",
        "SANDBOX_POLICY_MIN_SERIAL=acme-prod=1",
    ],
)
def test_what_names_or_requires_a_policy_is_enough(line: str) -> None:
    assert not places("SBP410", written(""), environment=f"SANDBOX_POLICY_KEYS=/etc/keys\n{line}\n")


def test_variables_alone_need_no_policy() -> None:
    assert not places("SBP410", environment="SANDBOX_NETWORKING_ALLOWED=false\nSANDBOX_INSTANCE=prod-eu\n")
