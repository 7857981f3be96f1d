"""SBP011: an infinity, or what is no number."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP011",
    name=Flaw.NOT_FINITE.value,
    flaw=Flaw.NOT_FINITE,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A number is `nan`, `inf` or too large to be held.",
    rationale=(
        "`nan` is neither below nor above any bound, so every comparison with it would let it pass. A server "
        "refuses the file."
    ),
    bad=Example(policy="[limits.max_cpus]\nceiling = nan\n"),
    good=Example(policy="[limits.max_cpus]\nceiling = 2\n"),
    suppressible=Suppressible.NEVER,
)
