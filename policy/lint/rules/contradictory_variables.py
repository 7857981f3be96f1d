"""SBP403: variables that say two things of one limit."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP403",
    name=Flaw.CONTRADICTORY_VARIABLES.value,
    flaw=Flaw.CONTRADICTORY_VARIABLES,
    family=Family.ENVIRONMENT,
    severity=Severity.ERROR,
    summary="A variable locks a limit beside a ceiling or default of it, or a default is looser than its ceiling.",
    rationale="Only one of the two can hold, so one of them is a mistake. A server with them refuses to run code.",
    bad=Example(environment="SANDBOX_MAX_CPUS=1\nSANDBOX_MAX_CPUS__CEILING=2\n"),
    good=Example(environment="SANDBOX_MAX_CPUS__DEFAULT=1\nSANDBOX_MAX_CPUS__CEILING=2\n"),
    suppressible=Suppressible.NEVER,
)
