"""SBP325: a new text with an older date."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import ChangeRule, Example, Family
from policy.lint.subjects import Need, SetChange, Setup


def _check(change: SetChange, _setup: Setup) -> Iterator[Found]:
    for pair in change.changes:
        if not pair.old or not pair.new or pair.old.document.policy_id != pair.new.document.policy_id:
            continue
        old, new = pair.old.document, pair.new.document
        # Who goes back to an earlier text says so, and may keep its date.
        if new.issued_at < old.issued_at and new.rollback_of in (None, old.rollback_of):
            yield Found(
                message=f"it is dated {new.issued_at.isoformat()}, before {old.issued_at.isoformat()} in {change.base}",
                remedy="State when this text was written; one that goes back names a serial in rollback_of",
                location=pair.new.location(("issued_at",)),
            )


RULE = ChangeRule(
    id="SBP325",
    name="issued-earlier",
    family=Family.TRUST,
    severity=Severity.WARNING,
    needs=Need.BASE,
    summary="A changed policy is dated before what it replaces.",
    rationale=(
        "A newer text with an older date is most often an old file that came back by mistake, or a date nobody "
        "looked at. What an instance remembers of dates keeps clocks from being set back, so they should be true."
    ),
    bad=Example(
        policy="serial = 8\nissued_at = 2026-10-25T00:00:00Z\n", base="serial = 7\nissued_at = 2026-11-01T00:00:00Z\n"
    ),
    good=Example(
        policy="serial = 8\nissued_at = 2026-11-20T00:00:00Z\n", base="serial = 7\nissued_at = 2026-11-01T00:00:00Z\n"
    ),
    check=_check,
)
