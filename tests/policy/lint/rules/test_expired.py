import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    ("expires_at", "found"),
    [
        ("2026-11-23T12:00:00Z", True),
        ("2026-11-23T13:00:00+01:00", True),
        ("2026-11-02T00:00:00Z", True),
        ("2026-11-23T12:00:01Z", False),
        ("2026-11-23T12:00:00-01:00", False),
    ],
)
def test_the_first_moment_after_its_time_is_too_late(expires_at: str, found: bool) -> None:  # noqa: FBT001
    assert bool(places("SBP309", written(f"expires_at = {expires_at}\n"))) is found


def test_it_is_an_error_at_the_date_and_no_comment_takes_it_out() -> None:
    comment = '# policy: ignore[SBP309] reason="old" until=2027-01-31\n'

    (found,) = of_rule("SBP309", findings(written(f"{comment}expires_at = 2026-11-20T00:00:00Z\n")))

    assert (found.severity, found.location.key) == (Severity.ERROR, "expires_at")
    assert "2026-11-20T00:00:00+00:00" in found.message
