"""SBP407: a variable of the older plugin, which nothing here reads."""

from collections.abc import Iterator, Mapping

from policy.lint.findings import Found, Severity
from policy.lint.rule import EnvironmentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup

_STEM = "CODE_EVAL"


def _check(environment: EnvironmentSubject, _sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    names = [name for name in environment.variables if name.upper().startswith(_STEM)]
    counterparts = _counterparts(environment) if names else {}
    for name in names:
        why, remedy = counterparts.get(name, ("", "Remove it"))
        yield Found(
            message=f"{name} has no effect here{why}",
            remedy=remedy,
            location=environment.location(name),
        )


def _counterparts(environment: EnvironmentSubject) -> Mapping[str, tuple[str, str]]:
    """By the older plugin's variable, why it cannot be carried over, and what to write in place of it."""
    from policy.legacy import LegacySource, carry_over  # noqa: PLC0415 -- for the few who have such variables

    untrusted = {each.name: each.untrusted for each in environment.variables.values()}
    carried = carry_over(LegacySource(untrusted=untrusted))
    problems = {problem.key: (f": {problem.reason}", problem.remedy) for problem in carried.left}
    locks = {lock.source: ("", _in_place_of(f"{lock.limit.variable}={lock.text}")) for lock in carried.locks}
    present = {f"{name}={value}" for name, value in untrusted.items()}
    said = {
        lock.source: ("", f"Remove it; {lock.limit.variable} says the same")
        for lock in carried.locks
        if f"{lock.limit.variable}={lock.text}" in present
    }
    return {**problems, **locks, **said}


def _in_place_of(line: str) -> str:
    return f"Write {line} in its place; `policy import` does so for all of them"


RULE = EnvironmentRule(
    id="SBP407",
    name="legacy-variable",
    family=Family.ENVIRONMENT,
    severity=Severity.WARNING,
    needs=Need.ENVIRONMENT,
    summary="A CODE_EVAL_* variable of the older plugin has no effect.",
    rationale=(
        "Somebody locked something with it, and relies on that. Here nothing reads it: what it locked is open until "
        "one of our variables or a policy says it. `policy import` carries over what has a counterpart."
    ),
    bad=Example(environment="CODE_EVAL_VALVE_OVERRIDE_NETWORKING_ALLOWED=false\n"),
    good=Example(environment="SANDBOX_NETWORKING_ALLOWED=false\n"),
    check=_check,
)
