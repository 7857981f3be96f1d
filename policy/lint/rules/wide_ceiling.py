"""SBP210: a bound that nothing could go past anyway."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.openings import MOST
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    for name, placed in file.bounds.items():
        if placed.stated.value == MOST.get(name, ()):
            limit = placed.limit
            yield Found(
                path=placed.path,
                message=f"the {placed.verb.value} of {name} is {limit.words(placed.value)}, the most that it can be",
                remedy=f"State the most that anybody needs; {limit.words(limit.built_in)} is built in",
            )


RULE = DocumentRule(
    id="SBP210",
    name="wide-ceiling",
    family=Family.INSECURE,
    severity=Severity.WARNING,
    summary="A ceiling or lock is the largest number that the limit can have.",
    rationale=(
        "It looks like a bound, and bounds next to nothing: the end of a limit's range is far beyond what one server "
        "can give to one run. Without any ceiling, people's own valves would at least stay within what is built in."
    ),
    bad=Example(policy="[limits.max_runtime_seconds]\nceiling = 86400\n"),
    good=Example(policy="[limits.max_runtime_seconds]\nceiling = 300\n"),
    check=_check,
)
