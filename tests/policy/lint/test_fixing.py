from policy.lint.findings import Edit, Fix
from policy.lint.fixing import with_fixes


def fix(*edits: tuple[int, int, str]) -> Fix:
    return Fix(
        description="Change it", edits=tuple(Edit(start=start, end=end, text=text) for start, end, text in edits)
    )


def test_fixes_apart_from_each_other_are_all_applied() -> None:
    assert with_fixes("abcdef", [fix((4, 5, "")), fix((0, 1, "A"))]) == ("Abcdf", 2)


def test_a_fix_that_touches_another_waits_whole() -> None:
    first, second = fix((1, 3, "")), fix((2, 4, "X"), (5, 6, "Y"))

    assert with_fixes("abcdef", [first, second]) == ("adef", 1)


def test_two_insertions_in_one_place_are_not_mixed() -> None:
    assert with_fixes("ab", [fix((1, 1, "x")), fix((1, 1, "y"))]) == ("axb", 1)


def test_the_same_fix_of_two_findings_is_applied_once() -> None:
    assert with_fixes("abc", [fix((0, 1, "")), fix((0, 1, ""))]) == ("bc", 1)
