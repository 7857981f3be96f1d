import unicodedata

import pytest

from policy.document import parse_document
from policy.requester import Requester
from tests.policy.factories import source_of
from tests.policy.lint.linting import findings, of_rule, places, written

APART = "cafe\u0301"  # the accent is a character of its own


def with_group(name: str, side: str = "match") -> str:
    return written(f'[[scope]]\n{side}.groups = ["ops", "{name}"]\nlimits.debug = false\n')


@pytest.mark.parametrize("side", ["match", "except"])
@pytest.mark.parametrize("name", ["students ", " students", "\u00a0students"])
def test_space_around_a_name_of_a_scope_is_found_where_it_stands(name: str, side: str) -> None:
    assert places("SBP020", with_group(name, side)) == [(10, 24 + len(side) - 5, f"scope[0].{side}.groups[1]")]


def test_space_around_an_audience_is_found() -> None:
    (found,) = of_rule("SBP020", findings(written("limits.debug = false\n", audience='["prod-eu "]')))

    assert found.location.key == "audience[0]"
    assert found.remedy == "Write 'prod-eu'"


def test_form_of_an_audience_is_found_since_it_is_compared_as_it_is() -> None:
    assert places("SBP020", written("limits.debug = false\n", audience=f'["{APART}"]')) == [(6, 13, "audience[0]")]
    composed = unicodedata.normalize("NFC", APART)
    assert not places("SBP020", written("limits.debug = false\n", audience=f'["{composed}"]'))


def test_form_of_a_name_in_a_scope_makes_no_difference_and_is_not_found() -> None:
    text = with_group(APART)

    assert not places("SBP020", text)
    (scope,) = parse_document(source_of(text)).scopes
    assert scope.conditions.hold_for(Requester(groups=frozenset({unicodedata.normalize("NFC", APART)})))


def test_space_makes_a_difference() -> None:
    (scope,) = parse_document(source_of(with_group("students "))).scopes

    assert not scope.conditions.hold_for(Requester(groups=frozenset({"students"})))


def test_space_within_a_name_is_part_of_it() -> None:
    assert not places("SBP020", with_group("first year"))
