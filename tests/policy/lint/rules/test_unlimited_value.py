import pytest

from policy.lint.findings import Severity
from tests.policy.lint.linting import findings, of_rule, places, written


def test_every_kind_of_statement_that_is_unlimited_is_found_where_it_stands() -> None:
    text = written(
        '[limits]\nmax_cpus = "unlimited"\nmax_concurrent_runs.default = "unlimited"\n'
        '[limits.max_processes]\nceiling = "unlimited"\n'
        '[[scope]]\nmatch.roles = ["admin"]\nlimits.max_ram_megabytes = { ceiling = "unlimited" }\n'
    )

    assert places("SBP201", text) == [
        (10, 1, "limits.max_cpus"),
        (11, 21, "limits.max_concurrent_runs.default"),
        (13, 1, "limits.max_processes.ceiling"),
        (16, 30, "scope[0].limits.max_ram_megabytes.ceiling"),
    ]


@pytest.mark.parametrize("number", ["max_ram_megabytes = 1048576", "max_cpus = 1024.0", "max_file_megabytes = 0"])
def test_a_large_number_and_zero_are_not_found(number: str) -> None:
    assert not places("SBP201", written(f"[limits]\n{number}\n"))


def test_the_word_elsewhere_is_not_found() -> None:
    assert not places("SBP201", written('description = "unlimited"\n'))


def test_a_comment_takes_it_out_but_in_production() -> None:
    text = written('[limits]\nmax_cpus = "unlimited"  # policy: ignore[SBP201] reason="a lab" until=2027-01-31\n')

    assert not of_rule("SBP201", findings(text))
    assert [each.severity for each in of_rule("SBP201", findings(text, production=True))] == [Severity.ERROR]
