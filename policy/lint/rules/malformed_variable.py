"""SBP402: a variable whose value is none."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP402",
    name=Flaw.MALFORMED_VARIABLE.value,
    flaw=Flaw.MALFORMED_VARIABLE,
    family=Family.ENVIRONMENT,
    severity=Severity.ERROR,
    summary="A variable's value cannot be read, is out of its range, or is empty.",
    rationale=(
        "Nobody guesses what was meant, and an empty variable is no way to say nothing. A server with it refuses to "
        "run code."
    ),
    bad=Example(environment="SANDBOX_MAX_RAM_MEGABYTES=1GB\nSANDBOX_DEBUG=\n"),
    good=Example(environment="SANDBOX_MAX_RAM_MEGABYTES=1024\n"),
    suppressible=Suppressible.NEVER,
)
