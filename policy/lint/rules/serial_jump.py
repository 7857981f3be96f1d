"""SBP321: a serial that skips thousands of its successors."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import ChangeRule, Example, Family
from policy.lint.subjects import Need, SetChange, Setup

LARGEST_STEP = 10_000
"""More than the largest step between serials that are dates, from 20261231 to 20270101."""


def _check(change: SetChange, _setup: Setup) -> Iterator[Found]:
    for pair in change.changes:
        if not pair.old or not pair.new or pair.old.document.policy_id != pair.new.document.policy_id:
            continue
        before, now = pair.old.document.serial, pair.new.document.serial
        if now - before > LARGEST_STEP:
            yield Found(
                message=f"the serial jumps from {before} in {change.base} to {now}",
                remedy=f"Set serial = {before + 1}, unless you mean to count otherwise from now on",
                location=pair.new.location(("serial",)),
            )


RULE = ChangeRule(
    id="SBP321",
    name="serial-jump",
    family=Family.TRUST,
    severity=Severity.WARNING,
    needs=Need.BASE,
    summary="A serial is raised by more than 10,000.",
    rationale=(
        "Serials only ever rise: what is skipped by a slip of the finger, or by somebody who wants no successor, "
        "cannot be had back on any instance that accepted it. Serials that are dates (20261231, 20270101) stay below"
        " that step."
    ),
    bad=Example(policy="serial = 8000000\n", base="serial = 7\n\n[limits]\nmax_cpus = 2\n"),
    good=Example(policy="serial = 8\n", base="serial = 7\n\n[limits]\nmax_cpus = 2\n"),
    check=_check,
)
