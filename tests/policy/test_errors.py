"""Problems: one line each, of bounded length and number, in which nothing is forged."""

from policy.errors import MOST_LISTED, DocumentError, Problem, listed


def problem(reason: str = "it is wrong", origin: str = "a.toml") -> Problem:
    return Problem(key="limits", origin=origin, reason=reason, remedy="Mend it")


def test_a_problem_is_one_line_whatever_a_file_is_called() -> None:
    text = str(problem(origin="a.toml\nerror: forged\x1b[31m\u202e"))

    assert text == r"a.toml\nerror: forged\x1b[31m\u202e: limits: it is wrong. Mend it."


def test_a_problem_is_short_however_long_its_parts_are() -> None:
    assert len(str(problem("x" * 1_000_000))) < 1_000


def test_an_error_lists_the_first_problems_and_how_many_more_there_are() -> None:
    error = DocumentError(tuple(problem(str(number)) for number in range(MOST_LISTED + 7)))

    assert len(error.problems) == MOST_LISTED + 1
    assert error.problems[-1].reason == "7 more"


def test_few_problems_are_all_listed() -> None:
    problems = (problem(), problem("too"))

    assert listed(problems) == DocumentError(problems).problems == problems
