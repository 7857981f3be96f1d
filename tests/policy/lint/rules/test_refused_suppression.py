import pytest

from policy.lint.registry import all_rules
from policy.lint.rule import Suppressible
from tests.policy.lint.linting import findings, of_rule, written

UNTIL = 'reason="tests" until=2027-01-31'
NEVER = [rule.id for rule in all_rules() if rule.suppressible is Suppressible.NEVER]


@pytest.mark.parametrize("rule", NEVER)
def test_a_rule_that_no_comment_takes_out_is_found_and_not_told_of_as_unused(rule: str) -> None:
    found = findings(written(f"# policy: ignore[{rule}] {UNTIL}\n[limits]\nmax_cpus = 1\n"))

    assert [rule in each.message for each in of_rule("SBP904", found)] == [True]
    assert not of_rule("SBP902", found)


def test_its_finding_stays() -> None:
    text = written(f"expires_at = 2026-11-20T00:00:00Z # policy: ignore[expired] {UNTIL}\n")

    assert of_rule("SBP309", findings(text))
    assert of_rule("SBP904", findings(text))


def test_in_production_fewer_comments_count_and_the_finding_stays() -> None:
    text = written(f'[limits]\nmax_cpus = "unlimited" # policy: ignore[SBP201] {UNTIL}\n')

    assert not of_rule("SBP904", findings(text))
    (bad,) = of_rule("SBP904", findings(text, production=True))
    assert "--profile production" in bad.message
    assert (bad.location.line, bad.location.column) == (10, 24)
    assert of_rule("SBP201", findings(text, production=True))


def test_where_nothing_is_found_it_is_unused_and_not_refused() -> None:
    text = written(f"[limits]\nmax_cpus = 1 # policy: ignore[SBP201] {UNTIL}\n")

    assert not of_rule("SBP904", findings(text, production=True))
    assert of_rule("SBP902", findings(text, production=True))
