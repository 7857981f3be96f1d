import pytest

from tests.policy.lint.linting import findings, of_rule, written


@pytest.mark.parametrize(
    ("until", "far"), [("2027-11-24", False), ("2027-11-25", True), ("9999-12-31", True), ("2020-01-01", False)]
)
def test_more_than_a_year_is_found_though_the_comment_counts(until: str, far: bool) -> None:  # noqa: FBT001
    text = written(f'[limits]\nmax_cpus = "unlimited" # policy: ignore[SBP201] reason="tests" until={until}\n')

    found = findings(text)

    assert bool(of_rule("SBP906", found)) is far
    assert not (far and of_rule("SBP201", found))
