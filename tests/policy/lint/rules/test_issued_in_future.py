import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    ("issued_at", "found"),
    [
        ("2026-11-23T12:00:01Z", True),
        ("2026-11-23T12:00:00-01:00", True),
        ("2026-11-23T12:00:00Z", False),
        ("2026-11-23T14:00:00+02:00", False),
    ],
)
def test_a_date_that_no_clock_has_reached_is_found(issued_at: str, found: bool) -> None:  # noqa: FBT001
    assert bool(places("SBP311", written(f"issued_at = {issued_at}\n"))) is found


def test_it_is_an_error_at_the_date() -> None:
    (found,) = of_rule("SBP311", findings(written("issued_at = 2026-12-01T00:00:00Z\n")))

    assert (found.severity, found.location.key, found.location.column) == (Severity.ERROR, "issued_at", 1)
