import pytest

from tests.policy.lint.linting import findings, fixed, of_rule, places, written


def with_audience(value: str) -> str:
    return written("limits.debug = false\n", audience=value)


def test_every_item_that_stood_before_is_found() -> None:
    text = with_audience('["a", "b", "a", "b", "a"]')

    assert [key for _, _, key in places("SBP015", text)] == ["audience[2]", "audience[3]", "audience[4]"]
    assert of_rule("SBP015", findings(text))[0].message == "audience[2]: 'a' stands in the list already"


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ('["a", "a"]', '["a"]'),
        ('["a", "b", "a"]', '["a", "b"]'),
        ('["a", "a", "b"]', '["a", "b"]'),
        ('["a", "a", "a"]', '["a"]'),
        ("""["a", 'a', "b"]""", '["a", "b"]'),
        ('[\n  "a", # first\n  "a", # second\n  "b",\n]', '[\n  "a", # first\n  "b",\n]'),
    ],
)
def test_second_item_is_removed_with_its_comma(bad: str, good: str) -> None:
    assert fixed(with_audience(bad)) == with_audience(good)


def test_items_of_scopes_are_removed_too() -> None:
    bad = written("[[scope]]\nmatch.roles = ['user', 'user']\nlimits.debug = false\n")

    assert fixed(bad) == bad.replace(", 'user'", "")


def test_items_that_differ_in_case_are_two() -> None:
    assert not places("SBP015", with_audience('["a", "A"]'))
