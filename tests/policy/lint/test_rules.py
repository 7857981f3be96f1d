"""What holds for every rule: names, examples, documentation."""

import re
from pathlib import Path

import pytest

from policy.errors import Flaw
from policy.lint.registry import all_rules
from policy.lint.rule import FlawRule, Rule
from policy.lint.rule_texts import rules_page
from tests.policy.lint.linting import of_example, of_rule

RULES_FOLDER = Path(__file__).parents[3] / "policy" / "lint" / "rules"
EVERY_RULE = pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.name)


@EVERY_RULE
def test_every_rule_is_one_module_and_one_test_of_its_name(rule: Rule) -> None:
    module = rule.name.replace("-", "_")

    assert (RULES_FOLDER / f"{module}.py").is_file()
    assert (Path(__file__).parent / "rules" / f"test_{module}.py").is_file()
    assert re.fullmatch(r"SBP[0-9]{3}", rule.id)
    assert rule.summary.endswith(".")
    assert rule.rationale.endswith(".")


def test_no_rule_shares_an_id_or_name() -> None:
    words = [word for rule in all_rules() for word in (rule.id, rule.name)]

    assert len(words) == len(set(words))


def test_every_flaw_that_readers_report_has_a_rule_of_its_name() -> None:
    assert {rule.flaw: rule.name for rule in all_rules() if isinstance(rule, FlawRule)} == {
        flaw: flaw.value for flaw in Flaw
    }


@EVERY_RULE
def test_every_rule_finds_its_bad_example_and_not_its_good_one(rule: Rule) -> None:
    if rule.bad.shell:
        return  # its own test runs those commands

    assert of_rule(rule.id, of_example(rule.bad))
    assert not of_rule(rule.id, of_example(rule.good))


def test_the_page_of_rules_is_the_one_made_from_them() -> None:
    assert (RULES_FOLDER.parents[2] / "docs" / "lint-rules.md").read_text() == rules_page(), "run: make docs"
