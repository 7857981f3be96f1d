import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.compare import compared_limits
from policy.document import PolicyDocument
from policy.lint.environments import environment_of_text
from policy.lint.findings import Finding, Severity
from policy.lint.subjects import Setup
from policy.preview import unsigned_set
from tests.policy.commands.conftest import Command, policy  # noqa: F401 -- a fixture
from tests.policy.lint.linting import NOW, findings, linted_files, of_rule, places, written


def found(now: str, before: str, environment: str = "", *, production: bool = False) -> list[Finding]:
    subject = environment_of_text("prod.env", environment.encode()) if environment else None
    setup = Setup(now=NOW, environment=subject, production=production)
    return of_rule(
        "SBP322", findings(written(f"serial = 8\n\n{now}"), base=written(f"serial = 7\n\n{before}"), setup=setup)
    )


def keys(*of: str) -> list[str]:
    return [each.location.key for each in found(*of)]


def test_a_raised_ceiling_is_found_where_it_stands_with_who_gets_what() -> None:
    (bad,) = found("[limits.max_runtime_seconds]\nceiling = 90\n", "[limits.max_runtime_seconds]\nceiling = 60\n")

    assert (bad.location.line, bad.location.key) == (11, "limits.max_runtime_seconds.ceiling")
    assert bad.severity is Severity.WARNING
    assert bad.message == (
        "max_runtime_seconds is looser than in main: anybody can have 90 seconds instead of 60 seconds, by the valve "
        "MAX_RUNTIME_SECONDS"
    )


def test_a_lock_that_is_gone_is_found_at_the_table_that_held_it() -> None:
    (bad,) = found("[limits]\nmax_cpus = 1\n", "[limits]\nmax_cpus = 1\nnetworking_allowed = false\n")

    assert (bad.location.line, bad.location.key) == (10, "limits.networking_allowed")


def test_what_a_scope_gives_is_found_in_the_scope_with_whom_it_is_for() -> None:
    ceiling = '[limits]\nmax_cpus.ceiling = 4\n[[scope]]\nmatch.groups = ["students"]\nlimits.max_cpus.ceiling = {}\n'

    (bad,) = found(ceiling.format(2), ceiling.format(1))

    assert bad.location.key == "scope[0].limits.max_cpus.ceiling"
    assert "students" in bad.message


def test_each_limit_is_found_once() -> None:
    before = "[limits]\nmax_cpus = 1\nmax_processes = 8\ndebug = false\n"

    assert keys("[limits]\nmax_cpus = 2\nmax_processes = 9\ndebug = false\n", before) == [
        "limits.max_cpus",
        "limits.max_processes",
    ]


@pytest.mark.parametrize(
    "now",
    [
        "[limits.max_runtime_seconds]\nceiling = 60\n",
        "# the same\n[limits]\nmax_runtime_seconds.ceiling = 60\n",
        "[limits.max_runtime_seconds]\nceiling = 59\n",
        '[limits.max_runtime_seconds]\nceiling = 60\n[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus.ceiling = 1\n',
    ],
    ids=["as before", "other words", "tighter", "a scope more"],
)
def test_what_lets_nobody_have_more_is_not_found(now: str) -> None:
    assert not found(now, "[limits.max_runtime_seconds]\nceiling = 60\n")


def test_a_lock_is_looser_for_whoever_asks_for_less_as_diff_has_it() -> None:
    (bad,) = found("[limits]\nmax_runtime_seconds = 5\n", "[limits.max_runtime_seconds]\nceiling = 60\n")

    assert "anybody who asks for 1 second gets 5 seconds, by the valve MAX_RUNTIME_SECONDS" in bad.message


def test_a_variable_that_holds_on_both_sides_counts() -> None:
    looser = ("[limits]\nmax_cpus.ceiling = 4\n", "[limits]\nmax_cpus.ceiling = 2\n")

    assert keys(*looser) == ["limits.max_cpus.ceiling"]
    assert keys(*looser, "SANDBOX_MAX_CPUS__CEILING=1\n") == []
    assert keys(*looser, "SANDBOX_MAX_CPUS__CEILING=malformed\n") == ["limits.max_cpus.ceiling"]


def test_what_only_an_environment_shows_names_its_variable() -> None:
    (bad,) = found("[limits]\nmax_cpus = 1\n", "[limits]\nmax_cpus = { lock = 1, env_may_loosen = false }\n")

    assert "where SANDBOX_MAX_CPUS=unlimited" in bad.message


def test_a_rollback_is_still_found_and_named_as_such() -> None:
    before = written("serial = 7\n\n[limits]\nmax_cpus = 1\n")
    now = written("serial = 8\nrollback_of = 7\n\n[limits]\nmax_cpus = 2\n")

    (bad,) = of_rule("SBP322", findings(now, base=before))

    assert bad.message.endswith("; acme-prod takes back serial 7")


def test_in_production_it_is_an_error_that_no_comment_takes_out() -> None:
    comment = '# policy: ignore[loosened] reason="agreed" until=2027-01-31'
    of = (f"[limits]\nmax_cpus = 2 {comment}\n", "[limits]\nmax_cpus = 1\n")

    assert not found(*of)
    (bad,) = found(*of, production=True)
    assert bad.severity is Severity.ERROR


def test_a_policy_that_is_gone_is_found_in_what_is_left() -> None:
    acme = written("[limits]\nmax_cpus = 1\n")
    legal = written('id = "legal"\n\n[limits]\nmax_processes = 4\n')
    setup = Setup(now=NOW, compares=True)

    (bad,) = of_rule("SBP322", linted_files({"acme.toml": acme}, setup, {"acme.toml": acme, "legal.toml": legal}))

    assert (bad.location.file, bad.location.line) == ("acme.toml", 1)
    assert "max_processes" in bad.message


def test_what_moves_from_one_file_to_another_is_not_looser() -> None:
    one, two = "[limits]\nmax_cpus = 1\nmax_processes = 4\n", "[limits]\ndebug = false\n"
    one_now, two_now = "[limits]\nmax_cpus = 1\n", "[limits]\ndebug = false\nmax_processes = 4\n"
    setup = Setup(now=NOW, compares=True)
    before = {"acme.toml": written(one), "legal.toml": written(two, id='"legal"')}
    now = {"acme.toml": written(one_now), "legal.toml": written(two_now, id='"legal"')}

    assert not of_rule("SBP322", linted_files(now, setup, before))


def test_sets_that_no_instance_would_load_are_not_compared() -> None:
    before = {"acme.toml": written("[limits]\nmax_cpus = 1\n"), "legal.toml": written("id = ", id='"x"')}
    now = {"acme.toml": written("[limits]\nmax_cpus = 2\n"), "legal.toml": written('id = "legal"\n')}
    contradictory = {**now, "other.toml": written('id = "other"\n\n[limits]\nmax_cpus = 4\n')}
    setup = Setup(now=NOW, compares=True)

    (doubt,) = of_rule("SBP322", linted_files(now, setup, before))
    assert "cannot be told: legal.toml is no valid policy there" in doubt.message
    assert not of_rule("SBP322", linted_files(contradictory, setup, {"acme.toml": before["acme.toml"]}))


def test_a_first_policy_has_nothing_to_be_looser_than() -> None:
    setup = Setup(now=NOW, compares=True)

    assert not of_rule("SBP322", linted_files({"acme.toml": written("[limits]\nmax_cpus = 9\n")}, setup, {}))


# As `policy diff` says.

STATEMENTS = st.sampled_from(
    (
        "max_cpus = 1",
        "max_cpus = 2",
        "max_cpus.ceiling = 2",
        "max_cpus.ceiling = 4",
        "max_cpus = { default = 0.5, ceiling = 2 }",
        "max_cpus = { lock = 2, env_may_loosen = false }",
        "networking_allowed = false",
        "networking_allowed.default = false",
        "networking_allowed.ceiling = true",
        "debug = false",
        "network_allowlist.ceiling = ['api.example.com']",
        "network_allowlist = ['*.example.com:443']",
    )
)
SCOPES = st.sampled_from(
    (
        "match.groups = ['staff']",
        "match.roles = ['user']",
        "except.groups = ['staff']",
        "match.surface = 'tool'\nexcept.roles = ['admin']",
    )
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw what a policy says of limits, for everybody and for some."""

    def said() -> str:
        lines = draw(
            st.lists(STATEMENTS, min_size=1, max_size=3, unique_by=lambda line: line.split(" ")[0].split(".")[0])
        )
        return "\n".join(lines)

    scopes = draw(st.lists(SCOPES, max_size=2))
    tables = [f"[[scope]]\n{scope}\n[scope.limits]\n{said()}\n" for scope in scopes]
    return f"[limits]\n{said()}\n{''.join(tables)}"


def documents_of(folder: Path, name: str, text: str) -> tuple[PolicyDocument, ...]:
    (folder / name).write_text(text)
    return unsigned_set([folder / name], NOW)


@settings(max_examples=60, deadline=None)
@given(
    before=texts(), now=texts(), variable=st.sampled_from(("", "SANDBOX_MAX_CPUS__CEILING=2\n", "SANDBOX_MAX_CPUS=2\n"))
)
def test_it_finds_just_the_limits_that_policy_diff_calls_looser(
    tmp_path_factory: pytest.TempPathFactory, before: str, now: str, variable: str
) -> None:
    folder = tmp_path_factory.mktemp("diff")
    old = documents_of(folder, "old.toml", written(f"serial = 7\n\n{before}"))
    new = documents_of(folder, "new.toml", written(f"serial = 8\n\n{now}"))
    layer = environment_of_text("prod.env", variable.encode()).layer
    environment = layer.statements if layer and variable else None

    looser = [each.limit.name for each in compared_limits(old, new, environment) if each.verdict.loosens]

    bad = found(now, before, variable)
    assert sorted(each.message.split(" ")[0] for each in bad) == sorted(looser)
    text = written(f"serial = 8\n\n{now}").splitlines()
    assert all(1 <= each.location.line <= len(text) for each in bad)


@pytest.mark.parametrize("now", ["max_cpus.ceiling = 4", "max_cpus = 1", "debug = false"])
def test_the_command_diff_says_the_same(policy: Command, now: str) -> None:  # noqa: F811
    before, after = written("[limits]\nmax_cpus.ceiling = 2\n"), written(f"serial = 8\n\n[limits]\n{now}\n")
    Path("old.toml").write_text(before)
    Path("new.toml").write_text(after)

    told = json.loads(policy("diff", "--json", "old.toml", "new.toml").out)

    looser = [name for name, said in told["limits"].items() if said["verdict"] in ("looser", "mixed")]
    assert [each.message.split(" ")[0] for each in of_rule("SBP322", findings(after, base=before))] == looser


def test_the_finding_of_a_changed_file_points_into_it() -> None:
    assert places("SBP322", written("serial = 8\n\n[limits]\nmax_cpus = 2\n"), base=written("[limits]\nmax_cpus = 1\n"))


@pytest.mark.parametrize("production", [False, True])
def test_a_base_that_is_no_policy_does_not_hide_what_a_change_loosens(*, production: bool) -> None:
    now = written("[limits]\nmax_cpus = 8\n")

    (doubt,) = of_rule("SBP322", findings(now, base="id = ", production=production))

    assert "cannot be told: acme.toml is no valid policy there" in doubt.message
    assert doubt.severity is Severity.WARNING


def test_a_file_that_is_no_policy_now_needs_no_second_finding() -> None:
    assert of_rule("SBP322", findings("id = ", base=written("[limits]\nmax_cpus = 8\n"))) == []
