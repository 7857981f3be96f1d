import pytest

from tests.policy.lint.linting import places, written


def test_a_bound_on_variables_without_a_bound_is_found() -> None:
    text = written("[limits.max_runtime_seconds]\nenv_may_loosen = false\ndefault = 20\n")

    assert places("SBP106", text) == [(11, 1, "limits.max_runtime_seconds.default")]


@pytest.mark.parametrize(
    "lines",
    [
        "default = 20\nceiling = 60\nenv_may_loosen = false",
        "lock = 20\nenv_may_loosen = false",
        "default = 20\nenv_may_loosen = true",
    ],
)
def test_beside_a_bound_or_saying_what_is_built_in_it_is_not_found(lines: str) -> None:
    assert not places("SBP106", written(f"[limits.max_runtime_seconds]\n{lines}\n"))
