"""SBP104: a policy that ends before it begins."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP104",
    name=Flaw.DATES_OUT_OF_ORDER.value,
    flaw=Flaw.DATES_OUT_OF_ORDER,
    family=Family.CONTRADICTION,
    severity=Severity.ERROR,
    summary="A policy expires no later than it is issued or begins.",
    rationale="There is no moment at which it holds; usually the year was forgotten. A server refuses the file.",
    bad=Example(policy="issued_at = 2026-11-20T00:00:00Z\nexpires_at = 2026-01-15T00:00:00Z\n"),
    good=Example(policy="issued_at = 2026-11-20T00:00:00Z\nexpires_at = 2027-01-15T00:00:00Z\n"),
    suppressible=Suppressible.NEVER,
)
