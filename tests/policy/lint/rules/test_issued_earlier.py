import pytest

from tests.policy.lint.linting import places, written

BEFORE = written("serial = 7\nissued_at = 2026-11-10T00:00:00Z\n")


def test_an_older_date_is_found_where_it_stands() -> None:
    now = written("serial = 8\nissued_at = 2026-11-09T00:00:00Z\n")

    assert [key for _, _, key in places("SBP325", now, base=BEFORE)] == ["issued_at"]


@pytest.mark.parametrize("issued_at", ["2026-11-10T00:00:00Z", "2026-11-10T01:00:00+01:00", "2026-11-11T00:00:00Z"])
def test_the_same_moment_or_a_later_one_is_not_found(issued_at: str) -> None:
    assert not places("SBP325", written(f"serial = 8\nissued_at = {issued_at}\n"), base=BEFORE)


def test_who_goes_back_and_says_so_keeps_the_earlier_date() -> None:
    back = written("serial = 8\nissued_at = 2026-11-01T00:00:00Z\nrollback_of = 7\n")

    assert not places("SBP325", back, base=BEFORE)


def test_a_rollback_that_was_there_before_excuses_nothing() -> None:
    before = written("serial = 7\nissued_at = 2026-11-10T00:00:00Z\nrollback_of = 6\n")
    now = written("serial = 8\nissued_at = 2026-11-01T00:00:00Z\nrollback_of = 6\n")

    assert places("SBP325", now, base=before)
