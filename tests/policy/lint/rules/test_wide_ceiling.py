import pytest

from policy.limits import LIMITS
from policy.values import Thousandths, Whole
from tests.policy.lint.linting import places, written

NUMBERS = {limit.name: limit.kind.maximum for limit in LIMITS if isinstance(limit.kind, Whole | Thousandths)}


@pytest.mark.parametrize(("name", "most"), NUMBERS.items())
def test_the_end_of_each_range_is_found_and_one_less_is_not(name: str, most: int) -> None:
    assert places("SBP210", written(f"[limits.{name}]\nceiling = {most}\n")) == [(10, 1, f"limits.{name}.ceiling")]
    assert not places("SBP210", written(f"[limits.{name}]\nceiling = {most - 1}\n"))


def test_a_lock_counts_and_a_float_too() -> None:
    assert places("SBP210", written("[limits]\nmax_cpus = 1024.0\n")) == [(10, 1, "limits.max_cpus")]


def test_defaults_and_scopes_and_unlimited_are_left_to_other_rules() -> None:
    text = written(
        '[limits]\nmax_cpus.default = 1024\nmax_processes.ceiling = "unlimited"\n'
        '[[scope]]\nmatch.roles = ["user"]\nlimits.max_disk_megabytes.ceiling = 1048576\n'
    )

    assert not places("SBP210", text)


def test_sets_and_switches_have_no_such_end() -> None:
    text = written('[limits]\nlanguages.ceiling = ["python", "bash"]\ndebug.ceiling = true\n')

    assert not places("SBP210", text)
