"""SBP501: a policy that names nobody to ask."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    if "owner" not in file.untrusted_table:
        yield Found(message="it names no owner", remedy='Add a line such as owner = "ops@acme.example"')


RULE = DocumentRule(
    id="SBP501",
    name="owner-missing",
    family=Family.HYGIENE,
    severity=Severity.NOTE,
    in_production=Severity.WARNING,
    summary="A policy does not say whom to ask about it.",
    rationale="Whoever meets a limit, or must renew the file before it expires, needs somebody to turn to.",
    bad=Example(
        whole=True,
        policy="""schema = 1
id = "acme-prod"
serial = 1
issued_at = 2026-11-01T00:00:00Z
expires_at = 2027-01-15T00:00:00Z
audience = ["prod-eu"]
description = "Production"
limits.networking_allowed = false
""",
    ),
    good=Example(policy='owner = "ops@acme.example"\n'),
    check=_check,
)
