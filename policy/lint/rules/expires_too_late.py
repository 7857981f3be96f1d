"""SBP307: a policy that holds for longer than people remember it."""

from collections.abc import Iterator
from datetime import UTC, timedelta

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup

LONGEST = timedelta(days=90)
"""What `policy init --profile production` permits at most, and writes unasked for every profile."""


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    document = file.document
    begins = document.issued_at
    if document.not_before and document.not_before > begins:
        begins = document.not_before
    if document.expires_at - begins > LONGEST:
        days = (document.expires_at - begins).days
        latest = (begins + LONGEST).astimezone(UTC)
        yield Found(
            path=("expires_at",),
            message=f"it holds for {days} days, more than {LONGEST.days}",
            remedy=f"Let it expire by {latest:%Y-%m-%dT%H:%M:%SZ}, and issue it anew before then",
        )


RULE = DocumentRule(
    id="SBP307",
    name="expires-too-late",
    family=Family.TRUST,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    summary="A policy holds for more than 90 days.",
    rationale=(
        "Whoever keeps a newer policy from an instance keeps the old one in force until it expires. A date within "
        "three months bounds that, and has somebody look at each decision again. It counts from issued_at, or from "
        "not_before."
    ),
    bad=Example(policy="issued_at = 2026-11-01T00:00:00Z\nexpires_at = 2028-11-01T00:00:00Z\n"),
    good=Example(policy="issued_at = 2026-11-01T00:00:00Z\nexpires_at = 2027-01-30T00:00:00Z\n"),
    check=_check,
)
