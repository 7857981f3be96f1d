from pathlib import Path

import pytest

from policy.lint.environments import environment_of_text
from policy.lint.files import judged_path
from policy.lint.findings import Finding, Severity
from policy.lint.rules.unconstrained_limit import RULE
from policy.lint.run import linted
from policy.lint.subjects import Setup
from policy.profiles import PRODUCTION
from policy.statements import Verb
from tests.policy.lint.linting import NOW, findings, of_rule, written

ALL = RULE.good.policy


def found(fragment: str, environment: str = "", other: str = "", *, production: bool = False) -> list[Finding]:
    subject = environment_of_text("prod.env", environment.encode()) if environment else None
    setup = Setup(now=NOW, environment=subject, production=production)
    return of_rule("SBP301", findings(written(fragment), setup=setup, other=other and written(other, id='"other"')))


def names_in(bad: Finding) -> set[str]:
    return {word.strip(",") for word in bad.message.split() if "_" in word or word.strip(",") == "debug"}


def without(limit: str) -> str:
    return "".join(line for line in ALL.splitlines(keepends=True) if not line.startswith(limit))


LIMITS_SAID = [line.split(".")[0].split(" ")[0] for line in ALL.splitlines() if "=" in line]


@pytest.mark.parametrize("limit", [name for name in LIMITS_SAID if name != "networking_allowed"])
def test_each_limit_that_is_left_out_is_named_alone(limit: str) -> None:
    (bad,) = found(without(limit))

    assert names_in(bad) == {limit}
    assert (bad.location.file, bad.location.line, bad.severity) == ("acme.toml", 1, Severity.NOTE)


def test_where_code_may_reach_a_network_its_destinations_matter() -> None:
    (bad,) = found(without("networking_allowed"))

    assert names_in(bad) == {"networking_allowed", "network_allowlist", "network_private_allowed"}


def test_languages_are_no_matter_of_security() -> None:
    assert not found(ALL)


def test_a_default_or_a_bound_for_some_is_no_bound() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus.ceiling = 1\n'

    assert names_in(found(f"{without('max_cpus')}{scope}")[0]) == {"max_cpus"}
    assert names_in(found(f"{without('max_cpus')}max_cpus.default = 1\n")[0]) == {"max_cpus"}


def test_another_file_of_the_set_may_bound_it() -> None:
    assert not found(without("max_cpus"), other="[limits]\nmax_cpus = 1\n")


@pytest.mark.parametrize(
    ("variable", "free"),
    [("MAX_CPUS=1", False), ("MAX_CPUS__CEILING=1", False), ("MAX_CPUS__DEFAULT=1", True), ("DEBUG=false", True)],
)
def test_a_variable_may_bound_it(variable: str, free: bool) -> None:  # noqa: FBT001
    assert bool(found(without("max_cpus"), f"SANDBOX_{variable}\n")) is free


def test_variables_that_a_server_refuses_leave_it_open_what_is_bounded() -> None:
    assert not found(without("max_cpus"), "SANDBOX_MAX_CPUS=malformed\n")


OPEN, SHUT, UNBOUND = "SANDBOX_NETWORKING_ALLOWED=true\n", "SANDBOX_NETWORKING_ALLOWED=false\n", "SANDBOX_DEBUG=false\n"


@pytest.mark.parametrize(
    ("fragment", "environment"),
    [
        ("networking_allowed = false", UNBOUND),
        ("networking_allowed.ceiling = false", UNBOUND),
        ("networking_allowed = true", "SANDBOX_NETWORKING_ALLOWED__CEILING=false\n"),
        ("networking_allowed = true", SHUT),
        ("networking_allowed = { lock = false, env_may_loosen = false }", OPEN),
    ],
)
def test_where_nobody_can_open_the_network_its_destinations_do_not_matter(fragment: str, environment: str) -> None:
    assert not found(f"{without('networking_allowed')}{fragment}\n", environment)


@pytest.mark.parametrize(
    ("fragment", "environment"),
    [
        ("networking_allowed = true", UNBOUND),
        ("networking_allowed.default = false", UNBOUND),
        ("networking_allowed = false", OPEN),
    ],
)
def test_where_somebody_can_open_it_they_do(fragment: str, environment: str) -> None:
    (bad,) = found(f"{without('networking_allowed')}{fragment}\n", environment)

    assert "network_allowlist" in names_in(bad)


def test_the_profile_for_production_bounds_everything() -> None:
    stated = {choice.limit.name for choice in PRODUCTION.choices if {Verb.LOCK, Verb.CEILING} & set(choice.stated)}

    assert {*LIMITS_SAID, "network_allowlist", "network_private_allowed"} <= stated


def test_in_production_it_is_a_warning_that_a_comment_takes_out() -> None:
    comment = '# policy: ignore[SBP301] reason="valves are closed" until=2027-01-31\n'

    (bad,) = found(without("max_cpus"), production=True)

    assert bad.severity is Severity.WARNING
    assert not of_rule("SBP301", findings(f"{comment}{written(without('max_cpus'))}", production=True))


@pytest.mark.parametrize(("beside", "times"), [(None, 1), (written(ALL), 0), ("id = ", 0)])
def test_it_looks_only_where_no_file_of_the_folder_was_left_out(tmp_path: Path, beside: str | None, times: int) -> None:
    file, setup = tmp_path / "acme.toml", Setup(now=NOW)
    file.write_text(written(without("max_cpus")))
    if beside:
        (tmp_path / "other.toml").write_text(beside)

    run = linted([judged_path(str(file), setup)], (), setup)

    assert len(of_rule("SBP301", run.findings)) == times


def test_a_file_beside_it_that_is_no_policy_leaves_it_open(tmp_path: Path) -> None:
    setup = Setup(now=NOW)
    for name, text in (("acme.toml", written(without("max_cpus"))), ("other.toml", "id = ")):
        (tmp_path / name).write_text(text)

    run = linted([judged_path(str(tmp_path / name), setup) for name in ("acme.toml", "other.toml")], (), setup)

    assert not of_rule("SBP301", run.findings)
