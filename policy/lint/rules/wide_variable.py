"""SBP417: a variable that bounds next to nothing."""

from collections.abc import Iterable, Iterator

from policy.destinations import Destination
from policy.limits import NETWORK_ALLOWLIST
from policy.lint.findings import Found, Severity
from policy.lint.openings import MOST, why_wide
from policy.lint.rule import EnvironmentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.statements import Stated, Verb


def _check(environment: EnvironmentSubject, _sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    for stated in environment.layer.statements if environment.layer else ():
        for message, remedy in _widths(stated):
            yield Found(message=message, remedy=remedy, location=environment.location(stated.origin.place))


def _widths(stated: Stated) -> Iterator[tuple[str, str]]:
    """What is wide about a statement, and what to do about it."""
    limit, variable = stated.limit, stated.origin.place
    if stated.verb is not Verb.DEFAULT and stated.value == MOST.get(limit.name, ()):
        remedy = f"Set the most that anybody needs; {limit.words(limit.built_in)} is built in"
        yield f"{variable} is {limit.words(stated.value)}, the most that it can be", remedy
    if limit is NETWORK_ALLOWLIST:
        for item, why in _wide_items(stated.value):
            yield f"{item} in {variable} holds almost nothing back: {why}", "Name the hosts that are needed"


def _wide_items(destinations: Iterable[Destination]) -> Iterator[tuple[Destination, str]]:
    for item in sorted(destinations, key=str):
        why = why_wide(item)
        if why:
            yield item, why


RULE = EnvironmentRule(
    id="SBP417",
    name="wide-variable",
    family=Family.ENVIRONMENT,
    severity=Severity.WARNING,
    needs=Need.ENVIRONMENT,
    summary="A variable's bound is the largest number that the limit can have, or its allow-list leads to anybody.",
    rationale="It is what wide-ceiling and wildcard-destination say of policy files: it only looks like a bound.",
    bad=Example(environment="SANDBOX_MAX_RUNTIME_SECONDS__CEILING=86400\nSANDBOX_NETWORK_ALLOWLIST=*.com\n"),
    good=Example(environment="SANDBOX_MAX_RUNTIME_SECONDS__CEILING=300\nSANDBOX_NETWORK_ALLOWLIST=*.acme.com\n"),
    check=_check,
)
