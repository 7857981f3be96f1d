import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

TWICE = {
    "key": ("max_cpus = 1\nmax_cpus = 2", (11, 1, "limits.max_cpus"), (10, 1)),
    "key spelled in two ways": ('max_cpus = 1\n"max_cpus" = 2', (11, 1, "limits.max_cpus"), (10, 1)),
    "key and dotted key": ("max_cpus = 1\nmax_cpus.ceiling = 2", (11, 1, "limits.max_cpus"), (10, 1)),
    "dotted key": (
        "max_cpus.ceiling = 1\nmax_cpus.ceiling = 2",
        (11, 10, "limits.max_cpus.ceiling"),
        (10, 10),
    ),
    "inline key": (
        "max_cpus = { ceiling = 1, ceiling = 2 }",
        (10, 27, "limits.max_cpus.ceiling"),
        (10, 14),
    ),
    "table": (
        "[limits.max_cpus]\nceiling = 1\n[limits.max_cpus]\ndefault = 1",
        (12, 9, "limits.max_cpus"),
        (10, 9),
    ),
    "key and table": ("max_cpus = 1\n[limits.max_cpus]\nceiling = 1", (11, 9, "limits.max_cpus"), (10, 1)),
    "first table again": ("debug = false\n[limits]\nmax_cpus = 1", (11, 2, "limits"), (9, 2)),
    "value of several lines": (
        'languages = ["bash"]\nlanguages = [\n  "python",\n]',
        (11, 1, "limits.languages"),
        (10, 1),
    ),
    "key of a scope": (
        "[[scope]]\nmatch.surface = 'tool'\n[[scope]]\nmatch.surface = 'tool'\nmatch.surface = 'function'",
        (14, 7, "scope[1].match.surface"),
        (13, 7),
    ),
}


@pytest.mark.parametrize(("lines", "second", "first"), TWICE.values(), ids=TWICE)
def test_second_place_is_found_and_the_first_is_named(
    lines: str, second: tuple[int, int, str], first: tuple[int, int]
) -> None:
    text = written(f"[limits]\n{lines}\n")

    assert places("SBP004", text) == [second]
    (found,) = of_rule("SBP004", findings(text))
    assert [(each.line, each.column, each.key) for each in found.related] == [(*first, second[2])]
    assert f"first in line {first[0]}" in found.message


def test_table_and_array_of_one_name_are_found_in_their_line_at_least() -> None:
    text = written("[limits]\ndebug = false\n[scope]\n[[scope]]\n")

    assert [line for line, _, _ in places("SBP004", text)] == [12]


def test_what_looks_like_the_key_within_a_text_is_not_taken_for_it() -> None:
    text = written("[limits]\nmax_cpus = 1\nmax_cpus = { reason = 'max_cpus = 3, serial = 1' }\n")

    assert places("SBP004", text) == [(11, 1, "limits.max_cpus")]


def test_table_that_was_only_implied_may_be_stated() -> None:
    assert not places("SBP004", written("[limits.max_cpus]\nceiling = 1\n[limits]\ndebug = false\n"))
