"""SBP016: a table or list with nothing in it."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP016",
    name=Flaw.SAYS_NOTHING.value,
    flaw=Flaw.SAYS_NOTHING,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A table or a list says nothing where it must say something.",
    rationale=(
        "Whoever wrote it believes that something is limited, or that a scope is for somebody. Whether an empty "
        "list means nobody or everybody is left to no guess: a server refuses the file."
    ),
    bad=Example(policy="[[scope]]\nmatch.groups = []\nlimits.max_cpus.ceiling = 0.5\n"),
    good=Example(policy='[[scope]]\nmatch.groups = ["students"]\nlimits.max_cpus.ceiling = 0.5\n'),
    suppressible=Suppressible.NEVER,
)
