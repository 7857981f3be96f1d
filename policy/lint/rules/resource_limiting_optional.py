"""SBP207: runs without the limits that a host cannot enforce."""

from collections.abc import Iterator

from policy.limits import REQUIRE_RESOURCE_LIMITING
from policy.lint.findings import Found, Severity
from policy.lint.openings import loose_statements
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import PolicySet, Setup


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    for said in loose_statements(REQUIRE_RESOURCE_LIMITING, policy_set, setup):
        yield Found(
            message=(
                f"the {said.verb.value} of require_resource_limiting is false, so code may run on a host that "
                "cannot hold it to its RAM, CPUs, processes and disk"
            ),
            remedy="Write require_resource_limiting = true, and make the host fit: `sandbox doctor` says how",
            location=said.place.location,
        )


RULE = SetRule(
    id="SBP207",
    name="resource-limiting-optional",
    family=Family.INSECURE,
    severity=Severity.ERROR,
    summary="Code may run where its RAM, CPU, process or disk limits cannot be enforced.",
    rationale=(
        "The limits of the policy are then words: one run can take the whole server's memory or start processes until "
        "nothing else can. Stricter is true here, so a ceiling of false holds nobody to anything."
    ),
    bad=Example(policy="[limits]\nrequire_resource_limiting = false\n"),
    good=Example(policy="[limits]\nrequire_resource_limiting = true\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
