"""SBP004: a key or table that is stated twice."""

from dataclasses import replace

from policy.errors import Flaw
from policy.lint.findings import Found, Location, Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible
from policy.lint.subjects import PolicyFile
from policy.positions import path_text


def _with_first_place(file: PolicyFile, found: Found) -> Found:
    """Name the first place; which of the two is meant, nobody can tell."""
    first = file.located.find(found.path) if found.path and file.located else None
    if first is None:
        return found
    there = Location(
        file=file.name,
        line=first.line,
        column=first.column,
        end_column=first.column + len(str(found.path[-1])),
        key=path_text(found.path),
    )
    return replace(found, related=(there,))


RULE = FlawRule(
    id="SBP004",
    name=Flaw.DUPLICATE_KEY.value,
    flaw=Flaw.DUPLICATE_KEY,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A key or a table is stated twice.",
    rationale=(
        "One of the two would have to be dropped, and readers of TOML that do so choose differently. A server "
        "refuses the file."
    ),
    bad=Example(policy="[limits]\nmax_cpus = 1\nnetworking_allowed = false\nmax_cpus = 2\n"),
    good=Example(policy="[limits]\nmax_cpus = 1\nnetworking_allowed = false\n"),
    suppressible=Suppressible.NEVER,
    fixed=_with_first_place,
)
