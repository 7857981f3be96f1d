"""Comments that take findings out: where they may stand, what they must say, when they end."""

import pytest

from policy.lint.findings import Finding
from policy.lint.suppressions import suppressions
from tests.policy.lint.linting import findings, of_rule, written

OPEN = 'max_cpus = "unlimited"'
WHY = 'reason="GPU tests" until=2027-01-31'


def taken_out(text: str, *, production: bool = False) -> list[Finding]:
    return [each for each in findings(text, production=production) if each.rule_id == "SBP201" and each.suppressed]


@pytest.mark.parametrize(
    "lines",
    [
        f"{OPEN} # policy: ignore[SBP201] {WHY}",
        f"# policy: ignore[SBP201] {WHY}\n{OPEN}",
        f"# policy: ignore[SBP201] {WHY}\n# why we need it\n\n{OPEN}",
        f"{OPEN} # policy: ignore[unlimited-value] {WHY}",
        f"{OPEN} # policy: ignore[SBP501, SBP201] {WHY}",
        f'{OPEN} #policy: ignore[SBP201]  reason="GPU tests"   until=2027-01-31  ',
        f'{OPEN} # policy: ignore[SBP201] reason="last day" until=2026-11-23',
    ],
    ids=["at the end", "above", "above other comments", "by name", "one of several", "with blanks", "on its last day"],
)
def test_a_comment_takes_out_what_it_names_where_it_stands(lines: str) -> None:
    text = written(f"[limits]\n{lines}\n")

    (finding,) = taken_out(text)

    assert finding.suppressed
    assert finding.suppressed.reason in {"GPU tests", "last day"}
    assert not of_rule("SBP201", findings(text))


@pytest.mark.parametrize(
    "lines",
    [
        f"# policy: ignore[SBP201] {WHY}\nmax_processes = 4\n{OPEN}",
        f"max_processes = 4 # policy: ignore[SBP201] {WHY}\n{OPEN}",
        f"{OPEN}\n# policy: ignore[SBP201] {WHY}",
        f"{OPEN} # policy: ignore[SBP202] {WHY}",
        f"{OPEN} # policy: ignore[SBP201] until=2027-01-31",
        f'{OPEN} # policy: ignore[SBP201] reason="GPU tests"',
        f'{OPEN} # policy: ignore[SBP201] reason=" " until=2027-01-31',
        f'{OPEN} # policy: ignore[SBP201] reason="GPU tests" until=2027-02-30',
        f'{OPEN} # policy: ignore[SBP201] reason="over" until=2026-11-22',
        f"{OPEN} # policy: ignore[] {WHY}",
        f"{OPEN} # policy: ignore {WHY}",
        f"{OPEN} # see policy: ignore[SBP201] {WHY}",
    ],
    ids=[
        "above another line",
        "on another line",
        "below",
        "another rule",
        "no reason",
        "no date",
        "a blank reason",
        "no such day",
        "the day after",
        "no rule",
        "without brackets",
        "not at the comment's start",
    ],
)
def test_a_comment_elsewhere_or_not_whole_takes_nothing_out(lines: str) -> None:
    text = written(f"[limits]\n{lines}\n")

    assert not taken_out(text)
    assert of_rule("SBP201", findings(text))


def test_a_sign_of_number_in_a_string_is_no_comment() -> None:
    text = written('[limits.max_cpus]\nceiling = "unlimited"\nreason = "# policy: ignore[SBP201] until=2027-01-31"\n')

    assert not suppressions("acme.toml", text)


def test_a_comment_above_the_first_key_is_for_the_file_as_a_whole() -> None:
    whole = written("").replace('owner = "ops@acme.example"\n', "")
    text = f"# policy: ignore[SBP501] {WHY}\n{whole}"

    assert of_rule("SBP501", findings(whole))
    assert not of_rule("SBP501", findings(text))


def test_production_takes_the_word_away_from_comments_on_dangerous_openings() -> None:
    text = written(f"[limits]\n{OPEN} # policy: ignore[SBP201] {WHY}\n")

    assert taken_out(text)
    assert not taken_out(text, production=True)


def test_what_a_server_refuses_cannot_be_taken_out() -> None:
    text = written(f"[limits.max_cpus]\ndefault = 2 # policy: ignore[SBP101] {WHY}\nceiling = 1\n")

    assert of_rule("SBP101", findings(text))
