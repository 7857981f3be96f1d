"""SBP008: a file or scope without a key that it needs."""

from policy.errors import Flaw
from policy.lint.findings import Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible

RULE = FlawRule(
    id="SBP008",
    name=Flaw.MISSING_KEY.value,
    flaw=Flaw.MISSING_KEY,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A required key is missing.",
    rationale=(
        "Without its dates, serial or audience nobody could tell whether a policy still holds, which of two is "
        "newer, and for whom it is. A server refuses the file."
    ),
    bad=Example(
        whole=True,
        policy="""schema = 1
id = "acme-prod"
serial = 7
issued_at = 2026-11-01T00:00:00Z
audience = ["prod-eu"]
limits.networking_allowed = false
""",
    ),
    good=Example(
        whole=True,
        policy="""schema = 1
id = "acme-prod"
serial = 7
issued_at = 2026-11-01T00:00:00Z
expires_at = 2027-01-15T00:00:00Z
audience = ["prod-eu"]
limits.networking_allowed = false
""",
    ),
    suppressible=Suppressible.NEVER,
)
