"""SBP006: a key with letters that ours do not have."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP006",
    name=Flaw.LOOK_ALIKE_KEY.value,
    flaw=Flaw.LOOK_ALIKE_KEY,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A key holds a letter beyond ASCII, which may look like one of ours.",
    rationale=(
        "A Cyrillic letter looks just like a Latin one: a reviewer reads a limit that the file does not state. A "
        "server refuses the file."
    ),
    bad=Example(policy='[limits]\n"m\\u0430x_cpus" = 1\n'),
    good=Example(policy="[limits]\nmax_cpus = 1\n"),
    suppressible=Suppressible.NEVER,
)
