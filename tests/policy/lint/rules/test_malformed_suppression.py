from time import process_time

import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

GOOD = 'ignore[unlimited-value] reason="tests" until=2027-01-31'


def text(comment: str) -> str:
    return written(f'[limits]\nmax_cpus = "unlimited" # policy: {comment}\n')


@pytest.mark.parametrize(
    ("comment", "why"),
    [
        ("ignore", "it cannot be read"),
        ("ignore unlimited-value", "it cannot be read"),
        ("ignore[unlimited-value]", "it lacks a reason and a date"),
        ('ignore[unlimited-value] reason=" " until=2027-01-31', "it lacks a reason"),
        ('ignore[unlimited-value] reason="tests"', "it lacks a date"),
        ('ignore[unlimited-value] reason="tests" until=2027-02-30', "it lacks a date"),
        ('ignore[] reason="tests" until=2027-01-31', "it lacks the rules"),
        (f"{GOOD} and more", "it cannot be read"),
    ],
)
def test_what_cannot_be_read_takes_nothing_out_and_says_why(comment: str, why: str) -> None:
    found = findings(text(comment))

    (bad,) = of_rule("SBP901", found)
    assert why in bad.message
    assert 'reason="why" until=YYYY-MM-DD' in bad.remedy
    assert of_rule("SBP201", found)


def test_it_is_found_at_the_comment() -> None:
    assert [(line, column) for line, column, _ in places("SBP901", text("ignore"))] == [(10, 24)]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("unlimited-values", "unlimited-value"),
        ("sbp201", "SBP201"),
        ("SBP-201", "SBP201"),
        ("everything", "policy lint --rules"),
    ],
)
def test_a_rule_that_does_not_exist_is_named_with_the_one_that_was_meant(word: str, meant: str) -> None:
    (bad,) = of_rule("SBP901", findings(text(f'ignore[SBP201, {word}] reason="tests" until=2027-01-31')))

    assert word in bad.message
    assert meant in bad.remedy


def test_a_good_comment_and_talk_about_policies_are_not_found() -> None:
    assert not places("SBP901", text(GOOD))
    assert not places("SBP901", written("# policy: networks stay closed\n[limits]\nmax_cpus = 1\n"))


def test_thousands_of_words_that_no_rule_is_called_hold_nobody_up() -> None:
    words = ",".join(f"unlimited-valu{number}" for number in range(3000))
    begun = process_time()

    found = of_rule("SBP901", findings(text(f'ignore[{words}] reason="tests" until=2027-01-31')))

    assert process_time() - begun < 1
    remedies = {each.message.split("'")[1]: each.remedy for each in found if "'" in each.message}
    assert remedies["unlimited-valu0"] == "Did you mean unlimited-value?"
    assert "policy lint --rules" in remedies["unlimited-valu10"]
