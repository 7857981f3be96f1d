"""SBP109: a policy that another file of the set retires."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import PolicySet, Setup


def _check(policy_set: PolicySet, _setup: Setup) -> Iterator[Found]:
    present = {file.policy_id: file for file in policy_set.files}
    for file in policy_set.files:
        for policy_id, place in file.retires:
            if policy_id in present:
                retired = present[policy_id]
                yield Found(
                    message=f"{policy_id} is retired, and is still here in {retired.name}",
                    remedy="Remove the retired file, or do not retire it",
                    location=place.location,
                    related=(retired.id_place.location,),
                )


RULE = SetRule(
    id="SBP109",
    name="retired-id-present",
    family=Family.CONTRADICTION,
    severity=Severity.ERROR,
    summary="A file retires an id that another file of its folder has.",
    rationale="To retire a policy is to say that its file is gone. A server refuses a set in which it still lies.",
    bad=Example(policy='retires = ["acme-2025"]\n', other='id = "acme-2025"\n'),
    good=Example(policy='retires = ["acme-2025"]\n', other='id = "acme-2026"\n'),
    suppressible=Suppressible.NEVER,
    check=_check,
)
