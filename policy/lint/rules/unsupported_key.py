"""SBP007: a key that this version cannot honour."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP007",
    name=Flaw.UNSUPPORTED_KEY.value,
    flaw=Flaw.UNSUPPORTED_KEY,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A key is known by name and not supported by this version.",
    rationale=(
        "A file that asks for it expects something that would not happen. A server refuses the file rather than "
        "honour half of it."
    ),
    bad=Example(policy="[limits]\nnetworking_allowed = false\n\n[rollout]\nstages = [10, 50, 100]\n"),
    good=Example(policy="[limits]\nnetworking_allowed = false\n"),
    suppressible=Suppressible.NEVER,
)
