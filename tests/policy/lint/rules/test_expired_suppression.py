import pytest

from tests.policy.lint.linting import findings, of_rule, written


def text(until: str) -> str:
    return written(f'[limits]\nmax_cpus = "unlimited" # policy: ignore[SBP201] reason="tests" until={until}\n')


@pytest.mark.parametrize(("until", "over"), [("2026-11-22", True), ("2026-11-23", False), ("2026-11-24", False)])
def test_it_holds_through_its_last_day_and_then_its_finding_is_back(until: str, over: bool) -> None:  # noqa: FBT001
    found = findings(text(until))

    assert bool(of_rule("SBP903", found)) is over
    assert bool(of_rule("SBP201", found)) is over


def test_it_is_found_at_the_comment_with_its_day() -> None:
    (bad,) = of_rule("SBP903", findings(text("2026-10-31")))

    assert (bad.location.line, bad.location.column) == (10, 24)
    assert "2026-10-31" in bad.message
