import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

LIMIT = "limits.max_cpus.ceiling = 0.5\n"


@pytest.mark.parametrize(
    ("condition", "key", "escape"),
    [
        ('match.models = ["small"]', "scope[0].match.models", "picks another model"),
        ('except.models = ["small"]', "scope[0].except.models", "picks one of these models"),
        ('match.surface = "tool"', "scope[0].match.surface", "goes through the button"),
        ('match.surface = "function"', "scope[0].match.surface", "goes through the tool"),
        ('except.surface = "tool"', "scope[0].except.surface", "goes through the tool"),
    ],
)
def test_each_way_out_of_a_scope_is_found_and_told(condition: str, key: str, escape: str) -> None:
    text = written(f"[[scope]]\n{condition}\n{LIMIT}")

    column = condition.index(".") + 2
    assert places("SBP209", text) == [(10, column, key)]
    assert escape in of_rule("SBP209", findings(text))[0].message


@pytest.mark.parametrize("attribute", ["roles", "groups", "users"])
def test_what_people_cannot_choose_is_not_found(attribute: str) -> None:
    text = written(f'[[scope]]\nmatch.{attribute} = ["a"]\nexcept.{attribute} = ["b"]\n{LIMIT}')

    assert not places("SBP209", text)


def test_every_scope_is_looked_at_on_both_sides() -> None:
    text = written(
        f'[[scope]]\nmatch.roles = ["user"]\n{LIMIT}'
        f'[[scope]]\nmatch = {{ models = ["small"] }}\nexcept = {{ roles = ["admin"], surface = "tool" }}\n{LIMIT}'
    )

    assert places("SBP209", text) == [
        (13, 11, "scope[1].match.models"),
        (14, 31, "scope[1].except.surface"),
    ]
