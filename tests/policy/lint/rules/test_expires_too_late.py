import pytest

from policy.lint.findings import Severity
from policy.lint.rules.expires_too_late import LONGEST
from policy.profiles import PRODUCTION
from tests.policy.lint.linting import findings, of_rule, places, written


def dated(expires_at: str, more: str = "") -> str:
    return written(f"issued_at = 2026-11-01T00:00:00Z\nexpires_at = {expires_at}\n{more}")


def test_the_bound_is_what_a_started_production_policy_may_have() -> None:
    assert LONGEST.days == PRODUCTION.longest_days


@pytest.mark.parametrize(
    ("expires_at", "found"),
    [
        ("2027-01-30T00:00:00Z", False),
        ("2027-01-30T02:00:00+02:00", False),
        ("2027-01-30T00:00:01Z", True),
        ("2027-01-30T00:00:00-01:00", True),
        ("9999-12-31T23:59:59Z", True),
    ],
)
def test_ninety_days_are_permitted_and_not_a_second_more(expires_at: str, found: bool) -> None:  # noqa: FBT001
    assert bool(places("SBP307", dated(expires_at))) is found


def test_it_is_found_at_the_date_which_it_says_how_to_mend() -> None:
    (bad,) = of_rule("SBP307", findings(dated("2028-11-01T00:00:00Z")))

    assert (bad.location.key, bad.location.column, bad.severity) == ("expires_at", 1, Severity.WARNING)
    assert "731 days" in bad.message
    assert "2027-01-30T00:00:00Z" in bad.remedy


def test_days_before_it_holds_do_not_count() -> None:
    assert not places("SBP307", dated("2027-02-20T00:00:00Z", "not_before = 2026-12-01T00:00:00Z\n"))


def test_a_not_before_in_the_past_makes_it_no_longer() -> None:
    assert places("SBP307", dated("2027-02-20T00:00:00Z", "not_before = 2026-10-01T00:00:00Z\n"))
    assert not places("SBP307", dated("2027-01-30T00:00:00Z", "not_before = 2026-10-01T00:00:00Z\n"))


def test_in_production_it_is_an_error_that_a_comment_can_take_out() -> None:
    text = dated("2028-11-01T00:00:00Z")
    comment = ' # policy: ignore[SBP307] reason="an appliance" until=2027-01-31\n'
    commented = text.replace("2028-11-01T00:00:00Z\n", f"2028-11-01T00:00:00Z{comment}")

    (bad,) = of_rule("SBP307", findings(text, production=True))

    assert bad.severity is Severity.ERROR
    assert not of_rule("SBP307", findings(commented, production=True))
