"""SBP404: a variable that this version knows and cannot honour."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP404",
    name=Flaw.UNSUPPORTED_VARIABLE.value,
    flaw=Flaw.UNSUPPORTED_VARIABLE,
    family=Family.ENVIRONMENT,
    severity=Severity.ERROR,
    summary="A variable belongs to a later version.",
    rationale="Ignoring it would be going on without what somebody wanted. A server with it refuses to run code.",
    bad=Example(environment="SANDBOX_POOL_SIZE=2\n"),
    good=Example(environment="SANDBOX_MAX_INSTANCE_RUNS=2\n"),
    suppressible=Suppressible.NEVER,
)
