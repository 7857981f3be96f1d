import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    ("name", "default", "ceiling"),
    [
        ("max_runtime_seconds", "61", "60"),
        ("max_cpus", "0.501", "0.5"),
        ("max_ram_megabytes", '"unlimited"', "1048576"),
        ("networking_allowed", "true", "false"),
        ("require_resource_limiting", "false", "true"),
        ("languages", '["python", "bash"]', '["python"]'),
        ("network_allowlist", '["example.com"]', '["*.example.com"]'),
    ],
)
def test_a_default_that_is_the_least_bit_looser_is_found_at_the_default(name: str, default: str, ceiling: str) -> None:
    text = written(f"[limits.{name}]\nceiling = {ceiling}\ndefault = {default}\n")

    assert places("SBP101", text) == [(11, 1, f"limits.{name}.default")]


def test_a_default_that_equals_its_ceiling_is_not_found() -> None:
    assert not places("SBP101", written("[limits.max_cpus]\nceiling = 0.5\ndefault = 0.500\n"))


def test_a_default_in_an_inline_table_of_a_scope_is_found_where_it_stands() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits = { max_cpus = { ceiling = 1, default = 2 } }\n'

    assert places("SBP101", written(scope)) == [(11, 38, "scope[0].limits.max_cpus.default")]


def test_a_default_of_a_scope_is_held_against_the_ceiling_of_that_scope_alone() -> None:
    text = '[limits.max_cpus]\nceiling = 1\n[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus.default = 2\n'

    assert not places("SBP101", written(text))


def test_no_comment_takes_out_what_a_server_refuses() -> None:
    comment = '# policy: ignore[SBP101] reason="later" until=2027-01-01'
    text = written(f"[limits.max_runtime_seconds]\nceiling = 60\ndefault = 90 {comment}\n")

    (found,) = of_rule("SBP101", findings(text))
    assert found.message == "limits.max_runtime_seconds.default: its default 90 is looser than its ceiling 60"
