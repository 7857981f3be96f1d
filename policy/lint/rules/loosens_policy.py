"""SBP408: a variable that goes past what a policy says."""

from collections.abc import Iterator
from functools import reduce
from typing import Any

from policy.limits import Limit
from policy.lint.findings import Found, Severity
from policy.lint.openings import bounds, statements_of
from policy.lint.rule import EnvironmentRule, Example, Family, Suppressible
from policy.lint.subjects import EnvironmentSubject, FactStatement, Need, PolicySet, Setup
from policy.statements import Stated, Verb


def _check(environment: EnvironmentSubject, sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    for stated in environment.layer.statements if environment.layer else ():
        if stated.verb is Verb.LOCK:
            for policy_set in sets:
                yield from _past(stated, policy_set, environment)


def _past(lock: Stated, policy_set: PolicySet, environment: EnvironmentSubject) -> Iterator[Found]:
    limit: Limit[Any] = lock.limit
    value = reduce(limit.kind.meet, bounds(limit, (policy_set,), environment))
    loosened = [
        said
        for said in statements_of(limit, (policy_set,))
        if said.verb is not Verb.DEFAULT and not limit.kind.within(value, said.value)
    ]
    if loosened:
        yield _found(lock, value, loosened, environment)


def _found(lock: Stated, value: object, loosened: list[FactStatement], environment: EnvironmentSubject) -> Found:
    limit, variable, said = lock.limit, lock.origin.place, loosened[0]
    there = said.place.location
    return Found(
        message=(
            f"{variable} makes it {limit.words(value)}, past the {said.verb.value} of {limit.words(said.value)} in "
            f"{there.file}, line {there.line}"
        ),
        remedy=f"Remove it or make it stricter, or say env_may_loosen = false beside the policy's {said.verb.value}",
        location=environment.location(variable),
        related=tuple(each.place.location for each in loosened),
    )


RULE = EnvironmentRule(
    id="SBP408",
    name="loosens-policy",
    family=Family.ENVIRONMENT,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    needs=Need.ENVIRONMENT,
    summary="A variable locks a limit to something looser than a policy file permits.",
    rationale=(
        "The environment decides over policies, signed or not, so that whoever runs a server can help themselves. Then "
        "what was reviewed and signed does not hold on that server. A policy can forbid it, for each limit, with "
        "`env_may_loosen = false`. Only what policies say for everybody is looked at."
    ),
    bad=Example(policy="[limits.max_runtime_seconds]\nceiling = 60\n", environment="SANDBOX_MAX_RUNTIME_SECONDS=300\n"),
    good=Example(policy="[limits.max_runtime_seconds]\nceiling = 60\n", environment="SANDBOX_MAX_RUNTIME_SECONDS=30\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
