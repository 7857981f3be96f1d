"""SBP111: a statement of a scope that can never change anything."""

from collections.abc import Iterator, Sequence

from policy.lint.findings import Found, Severity
from policy.lint.idle import excluded_attribute, holds_wherever, is_idle_alone, is_idle_beside, said_words
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PlacedStatement, PolicyFile, Setup, scope_conditions

_MOST_COMPARED = 60
"""Scopes that speak of a limit and are held against each other; past that, the time would grow with their square."""


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    if not file.document.scopes:
        return
    by_limit: dict[str, list[PlacedStatement]] = {placed.stated.limit.name: [] for placed in file.scoped}
    for placed in file.statements:
        if placed.stated.limit.name in by_limit:
            by_limit[placed.stated.limit.name].append(placed)
    for spoken in by_limit.values():
        for placed in spoken:
            if placed.scope is None or excluded_attribute(scope_conditions(file, placed.scope)):
                continue
            other = _stronger(file, placed, spoken)
            if other is not None:
                yield _found_beside(file, placed, other)
            elif is_idle_alone(placed.limit, placed.stated):
                yield _found_alone(placed)


def _stronger(file: PolicyFile, placed: PlacedStatement, spoken: Sequence[PlacedStatement]) -> PlacedStatement | None:
    """A statement beside which this one changes nothing; of two that do the same, the first one stays."""
    others = spoken if len(spoken) <= _MOST_COMPARED else [each for each in spoken if each.scope is None]
    before = True
    for other in others:
        if other is placed:
            before = False
        elif other.scope == placed.scope or not _covers(file, other, placed):
            continue
        elif before or not _covers(file, placed, other):
            return other
    return None


def _covers(file: PolicyFile, other: PlacedStatement, placed: PlacedStatement) -> bool:
    """Whether a statement changes nothing beside that other one."""
    if other.scope is not None:
        if placed.scope is None:
            return False
        if not holds_wherever(scope_conditions(file, other.scope), scope_conditions(file, placed.scope)):
            return False
    return is_idle_beside(placed.limit, placed.stated, other.stated, scoped=placed.scope is not None)


def _found_alone(placed: PlacedStatement) -> Found:
    limit = placed.limit
    return Found(
        path=placed.path,
        message=(
            f"{said_words(limit, placed.stated)} of {limit.name} changes nothing: nothing is looser, and a scope only "
            "tightens"
        ),
        remedy="Remove it; to give some people more, bound everybody else in a scope that excepts them",
    )


def _found_beside(file: PolicyFile, placed: PlacedStatement, other: PlacedStatement) -> Found:
    limit, there = placed.limit, file.location(other.path)
    if other.scope is None:
        who, why = "for everybody", ", since a scope only tightens"
    else:
        who, why = f"of scope[{other.scope}]", ", whose scope is for all of the same people"
    return Found(
        path=placed.path,
        message=(
            f"{said_words(limit, placed.stated)} of {limit.name} changes nothing beside "
            f"{said_words(limit, other.stated)} {who} in line {there.line}{why}"
        ),
        remedy="Remove it, or make it the stricter one; to give some people more, bound the others in a scope",
        related=(there,),
    )


RULE = DocumentRule(
    id="SBP111",
    name="scope-never-bites",
    family=Family.CONTRADICTION,
    severity=Severity.WARNING,
    summary="A statement in a scope can never change anybody's limit.",
    rationale=(
        "Scopes only tighten. A statement that is no stricter than what holds for the same people anyway is usually "
        "meant to give them more, which it does not: state the loose bound for everybody, and the strict one in a "
        "scope that excepts them. Only statements of the same file are looked at, and only what holds in any "
        "environment, with any valves and beside any other files."
    ),
    bad=Example(
        policy="""[limits.max_runtime_seconds]
ceiling = 30
[[scope]]
match.groups = ["researchers"]
limits.max_runtime_seconds.ceiling = 600
"""
    ),
    good=Example(
        policy="""[limits.max_runtime_seconds]
ceiling = 600
[[scope]]
except.groups = ["researchers"]
limits.max_runtime_seconds.ceiling = 30
"""
    ),
    check=_check,
)
