"""SBP502: a policy that does not say what it is for."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    if "description" not in file.untrusted_table:
        yield Found(
            message="it does not say what it is for",
            remedy='Add a line such as description = "Production: no network, small boxes"',
        )


RULE = DocumentRule(
    id="SBP502",
    name="description-missing",
    family=Family.HYGIENE,
    severity=Severity.NOTE,
    summary="A policy does not say what it is for.",
    rationale="Whoever reviews a change, or wonders years later, starts from what the policy was meant to be.",
    bad=Example(
        whole=True,
        policy="""schema = 1
id = "acme-prod"
serial = 1
issued_at = 2026-11-01T00:00:00Z
expires_at = 2027-01-15T00:00:00Z
audience = ["prod-eu"]
owner = "ops@acme.example"
limits.networking_allowed = false
""",
    ),
    good=Example(policy='description = "Production: no network, small boxes"\n'),
    check=_check,
)
