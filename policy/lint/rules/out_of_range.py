"""SBP010: a number that no layer may state."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP010",
    name=Flaw.OUT_OF_RANGE.value,
    flaw=Flaw.OUT_OF_RANGE,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A number is outside the hard range of its key.",
    rationale=(
        "Every number has an end that no layer can pass, and zero or less never means unlimited. A server refuses "
        "the file."
    ),
    bad=Example(policy="[limits]\nmax_runtime_seconds = 0\n"),
    good=Example(policy="[limits]\nmax_runtime_seconds = 10\n"),
    suppressible=Suppressible.NEVER,
)
