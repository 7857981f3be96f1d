import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written


def test_the_star_is_found_where_it_stands_among_others() -> None:
    text = written('audience = ["prod-eu", "*"]\n')

    ((line, column, key),) = places("SBP312", text)

    assert key == "audience[1]"
    assert text.splitlines()[line - 1][column - 1 :].startswith('"*"')
    assert "no difference" in of_rule("SBP312", findings(text))[0].message


@pytest.mark.parametrize("audience", ['["prod-eu"]', '["prod-eu", "prod-us"]'])
def test_instances_by_name_are_not_found(audience: str) -> None:
    assert not places("SBP312", written(f"audience = {audience}\n"))


@pytest.mark.parametrize(("production", "severity"), [(False, Severity.NOTE), (True, Severity.ERROR)])
def test_it_weighs_more_in_production(production: bool, severity: Severity) -> None:  # noqa: FBT001
    (found,) = of_rule("SBP312", findings(written('audience = ["*"]\n'), production=production))

    assert found.severity is severity
