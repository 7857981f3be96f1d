"""SBP324: a policy that is gone without a word."""

from collections.abc import Iterator

from policy.lint.findings import Found, Location, Severity
from policy.lint.rule import ChangeRule, Example, Family, Suppressible
from policy.lint.subjects import Need, SetChange, Setup


def _check(change: SetChange, _setup: Setup) -> Iterator[Found]:
    if not change.new:
        yield from _with_the_folder(change)
    if not change.comparable or not change.new:
        return  # a file that cannot be read may be the one, or retire it
    known = {name for file in change.new for name in (file.document.policy_id, *file.document.retires)}
    for pair in change.changes:
        if pair.old and not pair.new and pair.old.document.policy_id not in known:
            gone = pair.old.document.policy_id
            yield Found(
                message=f"the policy {gone} of {change.base} is gone with {pair.old.name}, and no file retires it",
                remedy=f'Restore the file, or retire the policy in another one of the set: retires = ["{gone}"]',
                location=Location(file=change.new[0].name),
            )


def _with_the_folder(change: SetChange) -> Iterator[Found]:
    """Where no file is left that could retire it, that may be meant; or it moved to where it has no past."""
    for pair in change.changes:
        if pair.old and not pair.new:
            gone = pair.old.document.policy_id
            yield Found(
                message=f"the policy {gone} of {change.base} is gone, as are all others of its folder",
                remedy="Restore it; or have somebody see to it that no instance reads that folder any more",
                location=Location(file=pair.old.name),
                severity=Severity.WARNING,
            )


RULE = ChangeRule(
    id="SBP324",
    name="policy-gone",
    family=Family.TRUST,
    severity=Severity.ERROR,
    needs=Need.BASE,
    summary="A policy file is gone, and no other one retires its id.",
    rationale=(
        "An instance that accepted a policy refuses every later set without it, so that nobody loosens limits by "
        "deleting a file. A policy that is no longer wanted is retired by another file of the set. The finding "
        "stands in the first file that is still there."
    ),
    bad=Example(shell="git rm -q policies/legal.toml\npolicy lint --base HEAD policies"),
    good=Example(
        shell=(
            "git rm -q policies/legal.toml\nsed -i '1i retires = [\"legal\"]' policies/acme.toml\n"
            "policy lint --base HEAD policies"
        )
    ),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
