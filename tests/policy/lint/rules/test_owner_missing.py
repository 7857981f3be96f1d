from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written

OWNERLESS = written("").replace('owner = "ops@acme.example"\n', "")


def test_a_file_without_owner_is_found_as_a_whole() -> None:
    assert places("SBP501", OWNERLESS) == [(1, 1, "")]


def test_any_owner_is_enough_wherever_it_stands() -> None:
    assert not places("SBP501", written('owner = "x"\n'))
    assert not places("SBP501", f'"owner" = "x"\n{OWNERLESS}')


def test_a_comment_or_a_text_that_holds_the_word_is_no_owner() -> None:
    assert places("SBP501", f'# owner = "ops"\n{OWNERLESS.replace("Production", "owner: ops")}')


def test_a_comment_above_the_first_key_takes_it_out() -> None:
    assert not places("SBP501", f'# policy: ignore[owner-missing] reason="a lab" until=2027-01-31\n{OWNERLESS}')


def test_it_weighs_more_in_production() -> None:
    assert of_rule("SBP501", findings(OWNERLESS))[0].severity is Severity.NOTE
    assert of_rule("SBP501", findings(OWNERLESS, production=True))[0].severity is Severity.WARNING
