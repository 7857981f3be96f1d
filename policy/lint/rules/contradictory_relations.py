"""SBP105: a policy that contradicts itself about other files or its own past."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP105",
    name=Flaw.CONTRADICTORY_RELATIONS.value,
    flaw=Flaw.CONTRADICTORY_RELATIONS,
    family=Family.CONTRADICTION,
    severity=Severity.ERROR,
    summary="A policy requires what it retires, names itself, or takes back a serial that is not an earlier one.",
    rationale="No set of files could ever satisfy it. A server refuses the file.",
    bad=Example(policy='requires = ["acme-base"]\nretires = ["acme-base", "acme-2025"]\n'),
    good=Example(policy='requires = ["acme-base"]\nretires = ["acme-2025"]\n'),
    suppressible=Suppressible.NEVER,
)
