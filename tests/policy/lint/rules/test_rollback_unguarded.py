import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

LOADING = "SANDBOX_POLICY_KEYS=/etc/keys\nSANDBOX_POLICY_PATH=/etc/policies\n"


def test_a_path_without_memory_is_found_at_the_path() -> None:
    assert places("SBP411", environment=LOADING) == [(2, 1, "SANDBOX_POLICY_PATH")]


@pytest.mark.parametrize("guard", ["SANDBOX_POLICY_STATE=/var/lib/policy", "SANDBOX_POLICY_MIN_SERIAL=acme-prod=1"])
def test_memory_or_a_lowest_serial_is_enough(guard: str) -> None:
    assert not places("SBP411", written(""), environment=f"{LOADING}{guard}\n")


def test_a_policy_that_the_lowest_serials_leave_out_is_found_by_its_id() -> None:
    (found,) = of_rule("SBP411", findings(written(""), environment=f"{LOADING}SANDBOX_POLICY_MIN_SERIAL=other=3\n"))

    assert found.location.key == "SANDBOX_POLICY_MIN_SERIAL"
    assert "of acme-prod is not told" in found.message


@pytest.mark.parametrize(
    "environment",
    [
        "SANDBOX_POLICY_KEYS=/etc/keys\n",
        "SANDBOX_POLICY_PATH=/etc/policies\nSANDBOX_POLICY_UNSIGNED_ALLOWED=true\n",
        "SANDBOX_DEBUG=false\n",
    ],
)
def test_where_no_signed_policy_is_loaded_there_is_nothing_to_guard(environment: str) -> None:
    assert not places("SBP411", environment=environment)
