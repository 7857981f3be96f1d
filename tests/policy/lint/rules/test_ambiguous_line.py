import pytest

from tests.policy.lint.linting import findings, of_rule, places


@pytest.mark.parametrize(
    "line",
    [
        'SANDBOX_INSTANCE="prod"',
        "SANDBOX_INSTANCE=prod # eu",
        "SANDBOX_INSTANCE=$HOST",
        "SANDBOX_INSTANCE=prod ",
        "SANDBOX_INSTANCE=a\\b",
        "SANDBOX_INSTANCE",
        "CODE_EVAL_VALVE_OVERRIDE_DEBUG='true'",
    ],
)
def test_a_value_of_ours_that_readers_differ_about_is_found_where_it_stands(line: str) -> None:
    name = line.partition("=")[0]

    assert places("SBP405", environment=f"SANDBOX_MAX_CPUS=1\n{line}\n") == [(2, 1, name)]


@pytest.mark.parametrize("line", ["export SANDBOX_DEBUG=true", "SANDBOX_DEBUG =true", "-----BEGIN KEY-----"])
def test_a_line_that_begins_with_no_name_is_found_in_its_line(line: str) -> None:
    assert places("SBP405", environment=f"# ours\nSANDBOX_MAX_CPUS=1\n{line}\n") == [(3, 1, "")]


def test_a_second_line_for_one_name_is_found() -> None:
    environment = "SANDBOX_MAX_CPUS=1\nPATH=/bin\nSANDBOX_MAX_CPUS=2\n"

    assert places("SBP405", environment=environment) == [(3, 1, "SANDBOX_MAX_CPUS")]


def test_carriage_returns_are_found_in_their_line() -> None:
    assert places("SBP405", environment="PATH=/bin\nSANDBOX_MAX_CPUS=1\r\n") == [(2, 1, "")]


def test_values_of_others_are_none_of_our_business() -> None:
    assert not places("SBP405", environment='GREETING="hello # world"\nHOME=$PWD\nLANG\n')


def test_what_stands_there_is_not_shown() -> None:
    found = of_rule("SBP405", findings(environment="MC4CAQAwBQYDK2VwBCIEIHunter2/+==\nSANDBOX_DEBUG=false\n"))

    assert [(each.location.line, each.excerpt) for each in found] == [(1, "…")]
    assert "Hunter2" not in found[0].message
