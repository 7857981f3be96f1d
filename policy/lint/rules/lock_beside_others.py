"""SBP102: a lock with something else beside it."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP102",
    name=Flaw.LOCK_BESIDE_OTHERS.value,
    flaw=Flaw.LOCK_BESIDE_OTHERS,
    family=Family.CONTRADICTION,
    severity=Severity.ERROR,
    summary="A ceiling or a default stands beside a lock of the same limit.",
    rationale=(
        "A lock is exactly one value, so there is nothing left to bound or to choose: either the lock or the rest is "
        "a leftover. A server refuses the file."
    ),
    bad=Example(policy="[limits.max_ram_megabytes]\nlock = 256\nceiling = 1024\n"),
    good=Example(policy="[limits.max_ram_megabytes]\ndefault = 256\nceiling = 1024\n"),
    suppressible=Suppressible.NEVER,
)
