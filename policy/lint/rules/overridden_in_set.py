"""SBP118: a statement that another file of the set makes pointless."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from policy.limits import Limit, limit_named
from policy.lint.findings import Found, Severity
from policy.lint.idle import is_idle_beside, said_words
from policy.lint.rule import Example, Family, SetRule
from policy.lint.subjects import FactStatement, PolicySet, Setup
from policy.statements import Verb

_MOST_TRIED = 20
"""Values of one limit that are held against each other where none is the strictest of all."""


def _check(policy_set: PolicySet, _setup: Setup) -> Iterator[Found]:
    if len(policy_set.files) < 2:  # noqa: PLR2004 -- there are no others
        return
    spoken: dict[tuple[str, frozenset[str]], list[FactStatement]] = {}
    for file in policy_set.files:
        audience = frozenset(file.audience)  # files for other instances are not there to override anything
        for said in file.statements:
            spoken.setdefault((said.limit, audience), []).append(said)
    for (name, _), statements in spoken.items():
        limit = limit_named(name)
        if limit is not None and len({said.value for said in statements}) > 1:
            yield from _of_limit(limit, statements)


def _of_limit(limit: Limit[Any], statements: Sequence[FactStatement]) -> Iterator[Found]:
    strictest = {verb: _strictest(limit, statements, verb) for verb in (Verb.LOCK, Verb.CEILING, Verb.DEFAULT)}
    for said in statements:
        other = _override(limit, said, strictest)
        if other is not None:
            yield _found(limit, said, other)


def _strictest(limit: Limit[Any], statements: Sequence[FactStatement], verb: Verb) -> Sequence[FactStatement]:
    """One of the strictest statements, or a few where none is stricter than all the others."""
    first: dict[Any, FactStatement] = {}
    for said in statements:
        if said.verb is verb:
            first.setdefault(said.value, said)
    if not first:
        return ()
    meet = reduce(limit.kind.meet, first)
    return (first[meet],) if meet in first else tuple(first.values())[:_MOST_TRIED]


def _override(
    limit: Limit[Any], said: FactStatement, strictest: Mapping[Verb, Sequence[FactStatement]]
) -> FactStatement | None:
    """Another file's statement that says something else, and beside which this one changes nothing.

    What says the same twice is a guard of its own; so is what the environment may not loosen.
    """
    if said.verb is not Verb.DEFAULT and not said.environment_may_loosen:
        return None
    for verb, others in strictest.items():
        if said.verb is verb is Verb.LOCK:
            continue  # two different locks are worse than that
        for other in others:
            if other.value != said.value and is_idle_beside(limit, said, other, scoped=False):
                return other
    return None


def _found(limit: Limit[Any], said: FactStatement, other: FactStatement) -> Found:
    there = other.place.location
    return Found(
        message=(
            f"{said_words(limit, said)} of {limit.name} changes nothing beside {said_words(limit, other)} in "
            f"{there.file}, line {there.line}"
        ),
        remedy="Remove it, unless it is to hold on the day that the other file changes",
        location=said.place.location,
        related=(there,),
    )


RULE = SetRule(
    id="SBP118",
    name="overridden-in-set",
    family=Family.CONTRADICTION,
    severity=Severity.NOTE,
    summary="A stricter statement of another file of the folder makes a statement pointless.",
    rationale=(
        "Files of one folder hold together: the strictest ceiling bounds, a lock decides, and of defaults the "
        "strictest holds. A looser statement may well be meant as a guard of its own, hence a note; but whoever wrote "
        "it as the value that people get should know that they do not. Equal values, and bounds that the environment "
        "may not loosen, are not found."
    ),
    bad=Example(
        policy="[limits.max_runtime_seconds]\ndefault = 120\nceiling = 600\n",
        other="[limits.max_runtime_seconds]\ndefault = 30\n",
    ),
    good=Example(
        policy="[limits.max_runtime_seconds]\ndefault = 30\nceiling = 600\n",
        other="[limits.max_ram_megabytes]\ndefault = 128\n",
    ),
    check=_check,
)
