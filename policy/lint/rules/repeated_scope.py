"""SBP112: two scopes for the same people."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup
from policy.requester import ScopeConditions


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    first: dict[ScopeConditions, int] = {}
    for number, scope in enumerate(file.document.scopes):
        other = first.setdefault(scope.conditions, number)
        if other != number:
            there = file.location(("scope", other))
            yield Found(
                path=("scope", number),
                message=f"it is for the same people as the scope in line {there.line}",
                remedy="Make one scope of the two, so that nobody reads only half of what holds for them",
                related=(there,),
            )


RULE = DocumentRule(
    id="SBP112",
    name="repeated-scope",
    family=Family.CONTRADICTION,
    severity=Severity.NOTE,
    summary="Two scopes have the same conditions.",
    rationale="Both hold, and whoever reads or changes the one easily misses the other.",
    bad=Example(
        policy="""[[scope]]
match.groups = ["students"]
limits.max_runtime_seconds.ceiling = 10
[[scope]]
match.groups = ["students"]
limits.networking_allowed = false
"""
    ),
    good=Example(
        policy="""[[scope]]
match.groups = ["students"]
limits.max_runtime_seconds.ceiling = 10
limits.networking_allowed = false
"""
    ),
    check=_check,
)
