"""SBP308: a policy that has to be issued anew within days."""

from collections.abc import Iterator
from datetime import timedelta

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup

SOON = timedelta(days=14)
"""Enough to review, sign and ship a successor."""


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    document = file.document
    left = document.expires_at - setup.now
    # One that was only ever meant for a few days is not found as soon as it is issued.
    if timedelta(0) < left <= min(SOON, (document.expires_at - document.issued_at) / 2):
        when = f"in {left.days} days" if left.days > 1 else f"at {document.expires_at.isoformat()}"
        yield Found(
            path=("expires_at",),
            message=f"it expires {when}",
            remedy="Issue it anew, with a higher serial and a later date, and ship it before then",
        )


RULE = DocumentRule(
    id="SBP308",
    name="expires-soon",
    family=Family.TRUST,
    severity=Severity.WARNING,
    summary="A policy expires within 14 days.",
    rationale=(
        "Once it has, servers refuse the set; after SANDBOX_POLICY_MAX_STALE the lockdown values hold as well. A "
        "linter that runs every day tells of it in time. A policy for less than four weeks is found in the second "
        "half of its life."
    ),
    bad=Example(policy="expires_at = 2026-12-01T00:00:00Z\n"),
    good=Example(policy="expires_at = 2027-01-15T00:00:00Z\n"),
    check=_check,
)
