"""SBP108: a required policy that is not among the files of the set."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, SetRule
from policy.lint.subjects import PolicySet, Setup


def _check(policy_set: PolicySet, _setup: Setup) -> Iterator[Found]:
    if not policy_set.complete or len(policy_set.files) < 2:  # noqa: PLR2004 -- one alone says nothing of its set
        return
    present = {file.policy_id for file in policy_set.files}
    for file in policy_set.files:
        for policy_id, place in file.requires:
            if policy_id not in present:
                yield Found(
                    message=f"{policy_id} is required, and no policy of this folder has that id",
                    remedy="Ship that file too, or correct the id",
                    location=place.location,
                )


RULE = SetRule(
    id="SBP108",
    name="required-id-missing",
    family=Family.CONTRADICTION,
    severity=Severity.WARNING,
    summary="A file requires an id that no other file of its folder has.",
    rationale=(
        "A server refuses the whole set where a required file is not there. It is a warning, since the file may join "
        "the others only when they are shipped. Nothing is said of a file that is alone in its folder, nor where a "
        "file of the folder was not looked at or is no valid policy: that one may have the id."
    ),
    bad=Example(policy='requires = ["acme-bsae"]\n', other='id = "acme-base"\n'),
    good=Example(policy='requires = ["acme-base"]\n', other='id = "acme-base"\n'),
    check=_check,
)
