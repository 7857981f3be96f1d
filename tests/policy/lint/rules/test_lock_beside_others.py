import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize("other", ["ceiling = 512", "default = 64"])
def test_a_lock_beside_something_else_is_found_in_either_order(other: str) -> None:
    for lines in (f"lock = 256\n{other}\n", f"{other}\nlock = 256\n"):
        assert places("SBP102", written(f"[limits.max_ram_megabytes]\n{lines}")) == [(9, 9, "limits.max_ram_megabytes")]


def test_a_lock_in_a_scope_is_found_in_its_scope() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus = { lock = 1, ceiling = 2 }\n'

    assert places("SBP102", written(scope)) == [(11, 8, "scope[0].limits.max_cpus")]


def test_what_is_no_statement_may_stand_beside_a_lock() -> None:
    text = '[limits.max_ram_megabytes]\nlock = 256\nreason = "shared"\nenv_may_loosen = false\n'

    assert not places("SBP102", written(text))


def test_no_comment_takes_out_what_a_server_refuses() -> None:
    comment = '# policy: ignore[SBP102] reason="later" until=2027-01-01'
    text = written(f"[limits.max_cpus] {comment}\nlock = 1\nceiling = 2\n")

    assert of_rule("SBP102", findings(text))
