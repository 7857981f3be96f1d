"""SBP103: two files of a set that lock one limit differently."""

from collections.abc import Iterator

from policy.limits import limit_named
from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import FactStatement, PolicySet, Setup
from policy.statements import Verb


def _check(policy_set: PolicySet, _setup: Setup) -> Iterator[Found]:
    first: dict[str, FactStatement] = {}
    for file in policy_set.files:
        for said in file.statements:
            other = first.setdefault(said.limit, said) if said.verb is Verb.LOCK else said
            if other.value != said.value:
                yield _found(said, other)


def _found(said: FactStatement, other: FactStatement) -> Found:
    limit, there = limit_named(said.limit), other.place.location
    words = limit.words if limit else str
    return Found(
        message=f"{said.limit} is locked to {words(said.value)} here, and to {words(other.value)} in {there.file}",
        remedy="Keep one of the two locks, or state ceilings, of which the strictest holds",
        location=said.place.location,
        related=(there,),
    )


RULE = SetRule(
    id="SBP103",
    name="different-locks",
    family=Family.CONTRADICTION,
    severity=Severity.ERROR,
    summary="Two files of one folder lock a limit to different values.",
    rationale="Files of one folder are one set, in which no file stands above another. A server refuses the whole set.",
    bad=Example(policy="[limits]\nmax_cpus = 1\n", other="[limits]\nmax_cpus = 2\n"),
    good=Example(policy="[limits.max_cpus]\nceiling = 1\n", other="[limits.max_cpus]\nceiling = 2\n"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
