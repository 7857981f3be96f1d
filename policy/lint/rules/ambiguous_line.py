"""SBP405: a line of a file of variables that is read in two ways."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP405",
    name=Flaw.AMBIGUOUS_LINE.value,
    flaw=Flaw.AMBIGUOUS_LINE,
    family=Family.ENVIRONMENT,
    severity=Severity.ERROR,
    summary="A line of an env file means different things to different readers.",
    rationale=(
        "`docker run` and Compose differ about quotes, `#`, `$`, backslashes, `export` and space at either end, "
        "so nobody can tell what the server would see. A name that stands twice is no better."
    ),
    bad=Example(environment='SANDBOX_INSTANCE="prod-eu"\nSANDBOX_MAX_CPUS=1 # one is enough\n'),
    good=Example(environment="# one CPU is enough\nSANDBOX_MAX_CPUS=1\nSANDBOX_INSTANCE=prod-eu\n"),
    suppressible=Suppressible.NEVER,
)
