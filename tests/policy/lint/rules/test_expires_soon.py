import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    ("expires_at", "words"),
    [
        ("2026-12-07T12:00:00Z", "in 14 days"),
        ("2026-12-07T11:59:59Z", "in 13 days"),
        ("2026-11-25T12:00:00Z", "in 2 days"),
        ("2026-11-24T12:00:00Z", "at 2026-11-24T12:00:00+00:00"),
        ("2026-11-23T14:00:00+01:00", "at 2026-11-23T14:00:00+01:00"),
    ],
)
def test_what_expires_within_two_weeks_is_found_at_its_date(expires_at: str, words: str) -> None:
    (found,) = of_rule("SBP308", findings(written(f"expires_at = {expires_at}\n")))

    assert found.message == f"it expires {words}"
    assert found.location.key == "expires_at"


@pytest.mark.parametrize(
    "expires_at",
    ["2026-12-07T12:00:01Z", "2027-01-15T00:00:00Z", "2026-11-23T12:00:00Z", "2026-11-20T00:00:00Z"],
    ids=["a second later", "in good time", "at this moment", "long ago"],
)
def test_what_expires_later_or_is_over_already_is_not_found(expires_at: str) -> None:
    assert not places("SBP308", written(f"expires_at = {expires_at}\n"))


@pytest.mark.parametrize(("issued_at", "found"), [("2026-11-22", False), ("2026-11-18", True)])
def test_a_policy_for_a_few_days_is_found_in_the_second_half_of_its_life(issued_at: str, found: bool) -> None:  # noqa: FBT001
    text = written(f"issued_at = {issued_at}T12:00:00Z\nexpires_at = 2026-11-27T12:00:00Z\n")

    assert bool(places("SBP308", text)) is found
