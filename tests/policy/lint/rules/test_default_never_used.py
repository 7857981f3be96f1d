import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    ("name", "strictest"),
    [
        ("networking_allowed", "false"),
        ("require_resource_limiting", "true"),
        ("max_file_megabytes", "0"),
        ("max_cpus", "0.01"),
        ("network_allowlist", "[]"),
    ],
)
def test_a_default_beside_the_strictest_ceiling_is_found_in_any_order(name: str, strictest: str) -> None:
    text = written(f"[limits.{name}]\ndefault = {strictest}\nceiling = {strictest}\n")

    (found,) = of_rule("SBP116", findings(text))
    assert (found.location.line, found.location.column, found.location.key) == (10, 1, f"limits.{name}.default")
    assert [place.line for place in found.related] == [11]


def test_a_default_in_a_scope_is_found_there() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits.max_file_megabytes = { ceiling = 0, default = 0 }\n'

    assert places("SBP116", written(scope)) == [(11, 44, "scope[0].limits.max_file_megabytes.default")]


def test_a_default_that_equals_a_looser_ceiling_stays_for_the_day_that_it_is_raised() -> None:
    assert not places("SBP116", written("[limits.max_file_megabytes]\nceiling = 1\ndefault = 1\n"))


def test_the_ceiling_of_another_limit_or_block_is_not_taken_for_its_own() -> None:
    text = written(
        "[limits]\nnetworking_allowed.ceiling = false\nmax_file_megabytes.default = 0\n"
        '[[scope]]\nmatch.roles = ["user"]\nlimits.max_file_megabytes.ceiling = 0\n'
        '[[scope]]\nmatch.roles = ["admin"]\nlimits.max_file_megabytes.default = 1\n'
    )

    assert not places("SBP116", text)
