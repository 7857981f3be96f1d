import pytest

from tests.policy.lint.linting import places, written

LIMITS = "limits.max_runtime_seconds.ceiling = 10\n"


@pytest.mark.parametrize(
    ("match", "excepted"),
    [
        ('groups = ["a"]', 'groups = ["a"]'),
        ('groups = ["a", "b"]', 'groups = ["c", "b", "a"]'),
        ('surface = "tool"', 'surface = "tool"'),
        ('roles = ["caf\\u00e9"]', 'roles = ["cafe\\u0301"]'),
    ],
    ids=["the same", "more", "a word", "one name in two spellings"],
)
def test_a_scope_that_excepts_all_that_it_matches_is_found_at_the_exception(match: str, excepted: str) -> None:
    text = written(f"[[scope]]\nmatch.{match}\nexcept.{excepted}\n{LIMITS}")

    assert places("SBP110", text) == [(11, 8, f"scope[0].except.{excepted.partition(' ')[0]}")]


def test_one_attribute_is_enough_in_inline_tables_too() -> None:
    scope = '[[scope]]\nmatch = { roles = ["user"], users = ["u"] }\nexcept = { users = ["u"], groups = ["g"] }\n'

    assert places("SBP110", written(scope + LIMITS)) == [(11, 12, "scope[0].except.users")]


@pytest.mark.parametrize(
    ("match", "excepted"),
    [
        ('groups = ["a", "b"]', 'groups = ["a"]'),
        ('groups = ["a"]', 'users = ["a"]'),
        ('groups = ["A"]', 'groups = ["a"]'),
        ('surface = "tool"', 'surface = "function"'),
    ],
    ids=["fewer", "another attribute", "another case", "another word"],
)
def test_a_scope_that_leaves_somebody_is_not_found(match: str, excepted: str) -> None:
    assert not places("SBP110", written(f"[[scope]]\nmatch.{match}\nexcept.{excepted}\n{LIMITS}"))


def test_a_scope_that_only_excepts_is_not_found() -> None:
    assert not places("SBP110", written(f'[[scope]]\nexcept.groups = ["a"]\n{LIMITS}'))
