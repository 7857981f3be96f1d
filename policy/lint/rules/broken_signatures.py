"""SBP017: a block of signatures that `policy sign` did not write."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP017",
    name=Flaw.BROKEN_SIGNATURES.value,
    flaw=Flaw.BROKEN_SIGNATURES,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="The block of signatures is damaged.",
    rationale=(
        "Every block has exactly one spelling, so that nothing can hide in it or be cut off it. A server refuses "
        "the file, whatever the rest of it says."
    ),
    bad=Example(policy="[limits]\nnetworking_allowed = false\n# -----BEGIN POLICY SIGNATURES-----\n"),
    good=Example(policy="[limits]\nnetworking_allowed = false\n"),
    suppressible=Suppressible.NEVER,
)
