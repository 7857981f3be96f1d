"""SBP101: a default that its own ceiling forbids."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP101",
    name=Flaw.DEFAULT_OUTSIDE_CEILING.value,
    flaw=Flaw.DEFAULT_OUTSIDE_CEILING,
    family=Family.CONTRADICTION,
    severity=Severity.ERROR,
    summary="A default is looser than the ceiling beside it.",
    rationale="Nobody would ever get that default, so one of the two numbers is a mistake. A server refuses the file.",
    bad=Example(policy="[limits.max_runtime_seconds]\ndefault = 90\nceiling = 60\n"),
    good=Example(policy="[limits.max_runtime_seconds]\ndefault = 30\nceiling = 60\n"),
    suppressible=Suppressible.NEVER,
)
