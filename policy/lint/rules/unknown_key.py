"""SBP005: a key that means nothing where it stands."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP005",
    name=Flaw.UNKNOWN_KEY.value,
    flaw=Flaw.UNKNOWN_KEY,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A key is not known where it stands.",
    rationale=(
        "What it was meant to limit would stay open without a word if it were ignored. Often it is misspelt, or "
        "stands below a header that it does not belong to. A server refuses the file."
    ),
    bad=Example(policy="[limits]\nmax_runtime_secs = 30\n"),
    good=Example(policy="[limits]\nmax_runtime_seconds = 30\n"),
    suppressible=Suppressible.NEVER,
)
