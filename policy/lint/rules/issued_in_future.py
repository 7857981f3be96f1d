"""SBP311: a policy from tomorrow."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family, Suppressible
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    issued_at = file.document.issued_at
    if setup.now < issued_at:
        yield Found(
            path=("issued_at",),
            message=f"it was issued at {issued_at.isoformat()}, which is still to come",
            remedy="State when it was written; not_before says from when on it holds",
        )


RULE = DocumentRule(
    id="SBP311",
    name="issued-in-future",
    family=Family.TRUST,
    severity=Severity.ERROR,
    summary="A policy says that it was issued in the future.",
    rationale=(
        "A server takes that for a clock that is behind, and refuses the whole set. Once accepted, the newest such "
        "date is remembered, and every clock must have reached it."
    ),
    bad=Example(policy="issued_at = 2026-12-01T00:00:00Z\n"),
    good=Example(policy="issued_at = 2026-11-01T00:00:00Z\n"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
