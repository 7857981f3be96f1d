"""SBP401: a variable that is one of ours but for its spelling."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP401",
    name=Flaw.MISSPELT_VARIABLE.value,
    flaw=Flaw.MISSPELT_VARIABLE,
    family=Family.ENVIRONMENT,
    severity=Severity.ERROR,
    summary="A variable's name is too close to one of ours to be chance.",
    rationale=(
        "Most software would ignore it, and what somebody meant to lock would stay open. A server with it refuses to "
        "run code."
    ),
    bad=Example(environment="SANDBOX_NETWORKING_ALOWED=false\n"),
    good=Example(environment="SANDBOX_NETWORKING_ALLOWED=false\n"),
    suppressible=Suppressible.NEVER,
)
