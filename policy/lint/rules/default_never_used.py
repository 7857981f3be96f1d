"""SBP116: a default beside a ceiling that leaves no choice."""

from collections.abc import Iterator
from itertools import pairwise

from policy.lint.findings import Found, Severity
from policy.lint.idle import said_words
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PlacedStatement, PolicyFile, Setup
from policy.statements import Verb


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    if Verb.DEFAULT.value not in file.text:
        return
    # In each block, a limit's ceiling comes right before its default.
    for ceiling, placed in pairwise(file.statements):
        if placed.stated.verb is not Verb.DEFAULT or ceiling.stated.value != placed.stated.limit.kind.strictest:
            continue
        if ceiling.verb is Verb.CEILING and ceiling.table == placed.table:
            yield _found(file, placed, ceiling)


def _found(file: PolicyFile, placed: PlacedStatement, ceiling: PlacedStatement) -> Found:
    limit, there = placed.limit, file.location(ceiling.path)
    return Found(
        path=placed.path,
        message=(
            f"{said_words(limit, placed.stated)} of {limit.name} changes nothing: {said_words(limit, ceiling.stated)} "
            f"in line {there.line} is the strictest value there is, and holds whatever anybody chooses"
        ),
        remedy="Remove the default, or write a lock instead of the two",
        related=(there,),
    )


RULE = DocumentRule(
    id="SBP116",
    name="default-never-used",
    family=Family.CONTRADICTION,
    severity=Severity.NOTE,
    summary="A default stands beside a ceiling that is the strictest value of the limit.",
    rationale=(
        "Everybody gets that ceiling, so there is nothing to preset; a lock says the same in one line. A default that "
        "merely equals a looser ceiling is not found: it stays what it is on the day that somebody raises the ceiling."
    ),
    bad=Example(policy="[limits.max_file_megabytes]\ndefault = 0\nceiling = 0\n"),
    good=Example(policy="[limits]\nmax_file_megabytes = 0\n"),
    check=_check,
)
