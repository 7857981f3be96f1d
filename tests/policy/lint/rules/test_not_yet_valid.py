import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written


def test_what_holds_from_tomorrow_on_is_a_note_at_its_date() -> None:
    (found,) = of_rule("SBP310", findings(written("not_before = 2026-11-24T00:00:00Z\n")))

    assert (found.severity, found.location.key) == (Severity.NOTE, "not_before")
    assert "2026-11-24T00:00:00+00:00" in found.message


@pytest.mark.parametrize(
    "line", ["", "not_before = 2026-11-23T12:00:00Z\n", "not_before = 2026-11-23T13:00:00+02:00\n"]
)
def test_what_holds_by_now_is_not_found(line: str) -> None:
    assert not places("SBP310", written(line))
