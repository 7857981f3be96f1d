"""SBP309: a policy whose time is over."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family, Suppressible
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    expires_at = file.document.expires_at
    if setup.now >= expires_at:
        yield Found(
            path=("expires_at",),
            message=f"it expired at {expires_at.isoformat()}",
            remedy="Issue it anew, with a higher serial and a later date",
        )


RULE = DocumentRule(
    id="SBP309",
    name="expired",
    family=Family.TRUST,
    severity=Severity.ERROR,
    summary="A policy has expired.",
    rationale=(
        "A server refuses the whole set. If it has a last good one, that holds for SANDBOX_POLICY_MAX_STALE, and "
        "then only within the lockdown values."
    ),
    bad=Example(policy="expires_at = 2026-11-20T00:00:00Z\n"),
    good=Example(policy="expires_at = 2027-01-15T00:00:00Z\n"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
