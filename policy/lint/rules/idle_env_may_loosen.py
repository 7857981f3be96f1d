"""SBP106: `env_may_loosen = false` with nothing that the environment could loosen."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP106",
    name=Flaw.IDLE_ENV_MAY_LOOSEN.value,
    flaw=Flaw.IDLE_ENV_MAY_LOOSEN,
    family=Family.CONTRADICTION,
    severity=Severity.ERROR,
    summary="`env_may_loosen = false` stands beside a default alone.",
    rationale=(
        "A default is no bound: anybody may choose past it, an environment variable too. Somebody believes this limit "
        "to be closed while it is open. A server refuses the file."
    ),
    bad=Example(policy="[limits.max_runtime_seconds]\ndefault = 20\nenv_may_loosen = false\n"),
    good=Example(policy="[limits.max_runtime_seconds]\ndefault = 20\nceiling = 60\nenv_may_loosen = false\n"),
    suppressible=Suppressible.NEVER,
)
