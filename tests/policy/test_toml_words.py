"""What readers of TOML say of a bad file, where it is not one rule of the linter alone that shows it."""

import pytest

from policy.cases import parse_cases
from policy.errors import DocumentError, Flaw, Problem
from policy.toml_words import character_name, syntax_words

CASES = '[[case]]\nname = "runs"\nexpect.debug = false\n'


def problems_of_cases(text: str) -> tuple[Problem, ...]:
    with pytest.raises(DocumentError) as refusal:
        parse_cases(text.encode(), "cases.toml")
    return refusal.value.problems


def test_case_that_expects_nothing_is_told_to_state_a_limit() -> None:
    (problem,) = problems_of_cases(CASES.replace("expect.debug = false", "expect = {}"))

    assert (problem.key, problem.flaw) == ("case[0].expect", Flaw.SAYS_NOTHING)
    assert problem.remedy == "State a limit, such as networking_allowed = false"


def test_case_is_known_in_a_file_of_cases() -> None:
    (problem,) = problems_of_cases(f"polices = []\n{CASES}")

    assert (problem.key, problem.remedy) == ("polices", "You may have meant policies")


def test_table_in_place_of_a_list_of_cases_is_told_its_type() -> None:
    (problem,) = problems_of_cases(CASES.replace("[[case]]", "[case]"))

    assert problem.reason == "it is a table, not a list"


def test_what_no_hint_fits_is_sent_to_the_specification() -> None:
    words = syntax_words("Invalid statement", "= 1", at_end=False)

    assert (words.flaw, words.remedy) == (Flaw.NOT_TOML, "Correct the syntax; https://toml.io shows it")


@pytest.mark.parametrize(
    "said",
    [
        "Cannot overwrite a value",
        "Cannot declare ('a',) twice",
        "Duplicate inline table key 'a'",
        "Cannot mutate immutable",
    ],
)
def test_repeated_key_is_told_from_other_errors(said: str) -> None:
    is_repeated = syntax_words(f"{said} namespace ('a',) (at line 1, column 1)", "a = 1", at_end=False)

    assert is_repeated.flaw is Flaw.DUPLICATE_KEY


@pytest.mark.parametrize("line", ["a" * 100_000, '"' * 100_000, "= " * 50_000, "[" * 100_000, "\u0430" * 100_000])
def test_long_line_takes_no_time(line: str) -> None:
    assert syntax_words("Invalid", line, at_end=False).flaw is Flaw.NOT_TOML


def test_character_without_a_name_has_its_code_point() -> None:
    assert character_name("\x80") == "U+0080"
    assert character_name("\U0010ffff") == "U+10FFFF"
    assert character_name("a") == "U+0061 LATIN SMALL LETTER A"
