"""SBP013: a date that names no single moment."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP013",
    name=Flaw.DATE_WITHOUT_OFFSET.value,
    flaw=Flaw.DATE_WITHOUT_OFFSET,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A date has no offset from UTC, or is no date.",
    rationale=("Servers in two time zones would let the same file expire at two moments. A server refuses the file."),
    bad=Example(policy="expires_at = 2027-01-15T00:00:00\n"),
    good=Example(policy="expires_at = 2027-01-15T00:00:00Z\n"),
    suppressible=Suppressible.NEVER,
)
