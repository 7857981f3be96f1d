from itertools import product

import pytest

from policy.environment import read_environment
from policy.lint.environments import environment_of_text
from policy.lint.findings import Finding, Severity
from policy.lint.subjects import Setup
from policy.resolve import Layers, resolve
from tests.policy.factories import document_of
from tests.policy.lint.linting import NOW, findings, of_rule, written

RAM = "[limits]\nmax_ram_megabytes = 256\n"
NO_CGROUP = {"max_ram_megabytes": "/sys/fs/cgroup is read-only"}


def found(fragment: str, environment: str = "", **why_not: str) -> list[Finding]:
    subject = environment_of_text("prod.env", environment.encode()) if environment else None
    setup = Setup(now=NOW, unenforceable=why_not or NO_CGROUP, environment=subject)
    return of_rule("SBP601", findings(written(fragment), setup=setup))


def test_a_lock_that_the_host_cannot_enforce_is_found_where_it_stands() -> None:
    (bad,) = found(RAM)

    assert (bad.location.line, bad.location.key, bad.severity) == (10, "limits.max_ram_megabytes", Severity.ERROR)
    assert "/sys/fs/cgroup is read-only" in bad.message
    assert "refuses every run" in bad.message


def test_where_limits_are_not_required_runs_go_on_without_it() -> None:
    (bad,) = found(f"{RAM}require_resource_limiting = false\n")

    assert bad.severity is Severity.WARNING
    assert "runs go on without it" in bad.message


def test_a_limit_of_our_own_doing_ends_every_run_whatever_is_required() -> None:
    (bad,) = found(
        "[limits]\nmax_runtime_seconds = 5\nrequire_resource_limiting = false\n", max_runtime_seconds="it went on"
    )

    assert bad.severity is Severity.ERROR


@pytest.mark.parametrize(
    "fragment",
    [
        "[limits]\nmax_cpus = 1\n",
        "[limits.max_ram_megabytes]\ndefault = 256\n",
        '[limits]\nmax_ram_megabytes = "unlimited"\n',
        '[[scope]]\nmatch.roles = ["user"]\nlimits.max_ram_megabytes.ceiling = 64\n',
    ],
    ids=["another limit", "a default", "unlimited", "for some"],
)
def test_what_bounds_nothing_that_the_host_lacks_is_not_found(fragment: str) -> None:
    assert not found(fragment)


def test_without_facts_of_a_host_nothing_is_found() -> None:
    assert not of_rule("SBP601", findings(written(RAM)))
    assert not of_rule("SBP601", findings(written(RAM), setup=Setup(now=NOW, unenforceable={})))


STATEMENTS = (None, *product(("lock", "ceiling", "default"), (False, True)))
SUFFIXES = {"lock": "", "ceiling": "__CEILING", "default": "__DEFAULT"}
COMBINATIONS = [
    (said, variable, firm)
    for said, variable, firm in product(STATEMENTS, STATEMENTS, (False, True))
    if not (firm and (said is None or said[0] == "default"))  # which no file may say
]


@pytest.mark.parametrize(("said", "variable", "firm"), COMBINATIONS)
def test_whether_runs_are_refused_is_what_the_resolver_says_where_no_valve_is_set(
    said: tuple[str, bool] | None, variable: tuple[str, bool] | None, *, firm: bool
) -> None:
    key = "require_resource_limiting"
    table = {said[0]: said[1], **({"env_may_loosen": False} if firm else {})} if said else {}
    variables = {f"SANDBOX_{key.upper()}{SUFFIXES[variable[0]]}": str(variable[1]).lower()} if variable else {}
    inline = ", ".join(f"{name} = {str(value).lower()}" for name, value in table.items())
    environment = "".join(f"{name}={value}\n" for name, value in variables.items())

    (bad,) = found(f"{RAM}{key} = {{ {inline} }}\n" if said else RAM, environment)

    documents = (document_of({key: table}),) if said else ()
    layers = Layers(environment=read_environment(variables).statements, documents=documents)
    required = resolve(layers).decisions[key].value
    assert bad.severity is (Severity.ERROR if required else Severity.WARNING)
