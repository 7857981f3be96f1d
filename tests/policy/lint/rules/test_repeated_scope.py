from tests.policy.lint.linting import findings, of_rule, places, written

LIMITS = "limits.max_runtime_seconds.ceiling = 10\n"


def test_conditions_that_say_the_same_in_other_words_are_found_at_the_later_scope() -> None:
    text = written(
        f'[[scope]]\nmatch.groups = ["a", "caf\\u00e9"]\nexcept.roles = ["admin"]\n{LIMITS}'
        f'[[scope]]\nexcept = {{ roles = ["admin"] }}\nmatch = {{ groups = ["cafe\\u0301", "a"] }}\n{LIMITS}'
    )

    (found,) = of_rule("SBP112", findings(text))
    assert found.message == "it is for the same people as the scope in line 9"
    assert (found.location.line, found.location.column, found.location.key) == (13, 3, "scope[1]")
    assert [(place.line, place.key) for place in found.related] == [(9, "scope[0]")]


def test_conditions_that_differ_in_one_value_or_side_are_not_found() -> None:
    conditions = ('match.groups = ["a"]', 'match.groups = ["a", "b"]', 'except.groups = ["a"]', 'match.users = ["a"]')

    assert not places("SBP112", written("".join(f"[[scope]]\n{each}\n{LIMITS}" for each in conditions)))
