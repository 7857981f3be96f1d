"""SBP012: a value of the right type that its key does not take."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP012",
    name=Flaw.BAD_VALUE.value,
    flaw=Flaw.BAD_VALUE,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A value has the right type, but is not one that its key takes.",
    rationale=(
        "A word that is not in the list, an id with other characters or a text with control characters means "
        "nothing, or something else than it shows. A server refuses the file."
    ),
    bad=Example(policy='[limits]\nlanguages = ["Python"]\n'),
    good=Example(policy='[limits]\nlanguages = ["python"]\n'),
    suppressible=Suppressible.NEVER,
)
