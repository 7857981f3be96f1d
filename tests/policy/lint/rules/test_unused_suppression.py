import pytest

from policy.lint.environments import environment_of_text
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, fixed, linted_files, of_rule, written

UNTIL = 'reason="tests" until=2027-01-31'
OPEN = '[limits]\nmax_cpus = "unlimited"'
CLOSED = "[limits]\nmax_cpus = 1"


def messages(text: str, **more: str | bool) -> list[str]:
    return [each.message for each in of_rule("SBP902", findings(text, **more))]  # type: ignore[arg-type]


def test_a_comment_that_takes_nothing_out_is_found_at_the_comment() -> None:
    (bad,) = of_rule("SBP902", findings(written(f"{CLOSED} # policy: ignore[unlimited-value] {UNTIL}\n")))

    assert (bad.location.line, bad.location.column) == (10, 14)


def test_each_rule_of_a_list_is_judged_by_itself() -> None:
    comment = f"# policy: ignore[SBP201, wide-ceiling, SBP501] {UNTIL}"

    (bad,) = of_rule("SBP902", findings(written(f"{OPEN} {comment}\n")))

    assert "wide-ceiling or SBP501" in bad.message
    assert bad.fix is None


def test_one_that_is_of_use_is_not_found() -> None:
    assert not messages(written(f"{OPEN} # policy: ignore[SBP201] {UNTIL}\n"))


@pytest.mark.parametrize("rule", ["SBP322", "SBP302", "SBP601", "writable-by-others", "loosens-policy"])
def test_a_rule_that_could_not_look_in_this_run_is_never_unused(rule: str) -> None:
    assert not messages(written(f"# policy: ignore[{rule}] {UNTIL}\n{CLOSED}\n"))


def test_once_it_can_look_it_is() -> None:
    text = written(f"serial = 8\n\n{CLOSED} # policy: ignore[SBP322] {UNTIL}\n")

    assert messages(text, base=written(CLOSED + "\n"))


@pytest.mark.parametrize("more", ["max_cpu = 1\n", "max_ram_megabytes = 1\n"])
def test_in_a_file_that_is_no_policy_nothing_counts_as_unused(more: str) -> None:
    assert not messages(written(f"{CLOSED} # policy: ignore[SBP201] {UNTIL}\n{more}"))


def test_beside_a_file_that_is_no_policy_nothing_does_either() -> None:
    files = {"acme.toml": written(f"{CLOSED} # policy: ignore[SBP201] {UNTIL}\n"), "other.toml": "id = "}

    assert not of_rule("SBP902", linted_files(files, Setup(now=NOW)))


def test_a_malformed_comment_is_told_of_once() -> None:
    assert not messages(written(f"{CLOSED} # policy: ignore[SBP201] until=2027-01-31\n"))


def test_one_that_ran_out_and_is_of_no_use_can_go() -> None:
    assert messages(written(f'{CLOSED} # policy: ignore[SBP201] reason="tests" until=2026-01-31\n'))


def test_the_fix_removes_the_comment_and_nothing_else() -> None:
    at_the_end = written(f"{CLOSED} # policy: ignore[SBP201] {UNTIL}\n# kept\n")
    alone = written(f"[limits]\n# kept\n  # policy: ignore[SBP201] {UNTIL}\nmax_cpus = 1\n")

    assert fixed(at_the_end) == written(f"{CLOSED}\n# kept\n")
    assert fixed(alone) == written("[limits]\n# kept\nmax_cpus = 1\n")


def test_comments_in_a_file_of_variables_are_judged_too() -> None:
    comment = f"# policy: ignore[SBP201] {UNTIL}\n"
    good = environment_of_text("prod.env", f"{comment}SANDBOX_DEBUG=false\n".encode())
    bad = environment_of_text("prod.env", f"{comment}SANDBOX_DEBUG=perhaps\n".encode())

    assert of_rule("SBP902", findings(written(CLOSED + "\n"), setup=Setup(now=NOW, environment=good)))
    assert not of_rule("SBP902", findings(written(CLOSED + "\n"), setup=Setup(now=NOW, environment=bad)))
