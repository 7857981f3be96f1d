from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places


def test_true_is_found_where_it_stands() -> None:
    environment = "SANDBOX_POLICY_PATH=/etc/policies\nSANDBOX_POLICY_UNSIGNED_ALLOWED=TRUE\n"

    assert places("SBP409", environment=environment) == [(2, 1, "SANDBOX_POLICY_UNSIGNED_ALLOWED")]


def test_false_and_silence_are_not_found() -> None:
    assert not places("SBP409", environment="SANDBOX_POLICY_UNSIGNED_ALLOWED=false\n")
    assert not places("SBP409", environment="SANDBOX_DEBUG=false\n")


def test_it_is_an_error_in_production() -> None:
    found = of_rule("SBP409", findings(environment="SANDBOX_POLICY_UNSIGNED_ALLOWED=true\n", production=True))

    assert [each.severity for each in found] == [Severity.ERROR]
