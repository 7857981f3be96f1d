import pytest

from tests.policy.lint.linting import places, written


@pytest.mark.parametrize(
    ("issued_at", "expires_at"),
    [
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("2026-11-01T00:00:00Z", "2026-11-01T02:00:00+02:00"),
        ("2026-11-01T00:00:00Z", "2026-10-31T23:59:59.999Z"),
    ],
)
def test_a_policy_that_never_holds_is_found_where_it_expires(issued_at: str, expires_at: str) -> None:
    text = written(f"issued_at = {issued_at}\nexpires_at = {expires_at}\n")

    assert places("SBP104", text) == [(8, 1, "expires_at")]


def test_a_policy_that_holds_for_a_moment_is_not_found() -> None:
    text = written("issued_at = 2026-11-01T00:00:00Z\nexpires_at = 2026-11-01T02:00:00.001+02:00\n")

    assert not places("SBP104", text)


def test_a_policy_that_begins_when_it_has_ended_is_found() -> None:
    assert places("SBP104", written("not_before = 2027-01-15T00:00:00Z\n"))
    assert not places("SBP104", written("not_before = 2027-01-14T00:00:00Z\n"))
