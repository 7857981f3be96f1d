import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

DATES = {
    "no offset": (
        "2027-01-15T08:00:00",
        "2027-01-15T08:00:00 has no offset from UTC",
        "Write 2027-01-15T08:00:00Z if it is in UTC, else its offset, as in +01:00",
    ),
    "no time": (
        "2027-01-15",
        "2027-01-15 has neither time nor offset from UTC",
        "Write 2027-01-15T00:00:00Z if it is in UTC",
    ),
    "quotes": (
        '"2027-01-15T08:00:00+01:00"',
        "'2027-01-15T08:00:00+01:00' is a text, not a date",
        "Write 2027-01-15T08:00:00+01:00 without quotes",
    ),
    "time": (
        "08:00:00",
        "08:00:00 is not a date with an offset",
        "Write one such as 2026-11-01T00:00:00Z, without quotes",
    ),
    "words": (
        '"next year"',
        "'next year' is not a date with an offset",
        "Write one such as 2026-11-01T00:00:00Z, without quotes",
    ),
}


@pytest.mark.parametrize(("value", "message", "remedy"), DATES.values(), ids=DATES)
def test_date_that_names_no_moment_is_found_with_what_to_write(value: str, message: str, remedy: str) -> None:
    (found,) = of_rule("SBP013", findings(written("limits.debug = false\n", expires_at=value)))

    assert (found.location.line, found.location.column, found.location.key) == (5, 1, "expires_at")
    assert (found.message, found.remedy) == (f"expires_at: {message}", remedy)


@pytest.mark.parametrize("value", ["2027-01-15T00:00:00Z", "2027-01-15 08:00:00.5-05:30"])
def test_date_with_an_offset_is_one(value: str) -> None:
    assert not places("SBP013", written("limits.debug = false\n", expires_at=value))
