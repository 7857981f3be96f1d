"""SBP323: a file under another id."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import ChangeRule, Example, Family, Suppressible
from policy.lint.subjects import Need, SetChange, Setup


def _check(change: SetChange, _setup: Setup) -> Iterator[Found]:
    known = {name for file in change.new for name in (file.document.policy_id, *file.document.retires)}
    for pair in change.changes:
        if not pair.old or not pair.new:
            continue
        before, now = pair.old.document.policy_id, pair.new.document.policy_id
        if before not in (now, *known):
            yield Found(
                message=f"its id was {before} in {change.base} and is {now} now, and no file retires {before}",
                remedy=f'Keep the id, or retire the old one: retires = ["{before}"]',
                location=pair.new.location(("id",)),
            )


RULE = ChangeRule(
    id="SBP323",
    name="id-changed",
    family=Family.TRUST,
    severity=Severity.ERROR,
    needs=Need.BASE,
    summary="The id of a policy file changed, and nothing retires the old one.",
    rationale=(
        "An instance knows a policy by its id, not by its file. It refuses a set from which an id is gone that it "
        "accepted before, and under a new id no earlier serial counts, so an old text could come back."
    ),
    bad=Example(policy='id = "acme-eu"\nserial = 8\n', base='id = "acme-prod"\nserial = 7\n'),
    good=Example(policy='id = "acme-eu"\nserial = 8\nretires = ["acme-prod"]\n', base='id = "acme-prod"\nserial = 7\n'),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
