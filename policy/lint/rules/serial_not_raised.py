"""SBP320: another text under a serial that is no higher."""

from collections.abc import Iterator

from policy.lint.findings import Edit, Fix, Found, Severity
from policy.lint.rule import ChangeRule, Example, Family, Suppressible
from policy.lint.spans import value_span
from policy.lint.subjects import Need, PolicyFile, SetChange, Setup
from policy.settings import MAX_SERIAL


def _check(change: SetChange, _setup: Setup) -> Iterator[Found]:
    for pair in change.changes:
        if not pair.old or not pair.new or pair.old.document.policy_id != pair.new.document.policy_id:
            continue
        before, now = pair.old.document.serial, pair.new.document.serial
        if now <= before:
            same = now == before
            said = "is not raised" if same else f"is lower than {before}"
            yield Found(
                path=("serial",),
                message=f"serial {now} {said}, though the text differs from that in {change.base}",
                remedy=f"Set serial = {before + 1}; to go back to an earlier text, name its serial in rollback_of",
                location=pair.new.location(("serial",)),
                fix=_raised(pair.new, before + 1) if same and before < MAX_SERIAL else None,
            )


def _raised(file: PolicyFile, serial: int) -> Fix | None:
    span = value_span(file.text, file.positions, ("serial",))
    edits = (Edit(start=span.start, end=span.end, text=str(serial)),) if span else ()
    return Fix(description=f"Raise the serial to {serial}", edits=edits) if edits else None


RULE = ChangeRule(
    id="SBP320",
    name="serial-not-raised",
    family=Family.TRUST,
    severity=Severity.ERROR,
    needs=Need.BASE,
    summary="The text of a policy changed, and its serial was not raised.",
    rationale=(
        "An instance refuses a lower serial as a rollback, and the same one with another text as a conflict: the set"
        " is refused where the earlier text was accepted before. A comment counts as a change, a signature does not."
    ),
    bad=Example(policy="serial = 7\n\n[limits]\nmax_cpus = 1\n", base="serial = 7\n\n[limits]\nmax_cpus = 2\n"),
    good=Example(policy="serial = 8\n\n[limits]\nmax_cpus = 1\n", base="serial = 7\n\n[limits]\nmax_cpus = 2\n"),
    fix="Raises a serial that is still the same by one.",
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
