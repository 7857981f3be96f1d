"""SBP205: gVisor may be downloaded while people wait."""

from collections.abc import Iterator

from policy.limits import AUTO_INSTALL
from policy.lint.findings import Found, Severity
from policy.lint.openings import loose_statements
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import PolicySet, Setup


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    for said in loose_statements(AUTO_INSTALL, policy_set, setup):
        yield Found(
            message=f"the {said.verb.value} of auto_install is true, so a server without gVisor may download one",
            remedy="Run `sandbox install` on the server beforehand, and write auto_install = false",
            location=said.place.location,
        )


RULE = SetRule(
    id="SBP205",
    name="auto-install-open",
    family=Family.INSECURE,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    summary="The server may download gVisor by itself.",
    rationale=(
        "What is downloaded is verified: the official release against a SHA-512, Debian's package through apt. But it "
        "happens while somebody waits, needs a way to the internet, and which of the two it is depends on which host "
        "answers on that day. A server that others depend on brings the gVisor that was tested."
    ),
    bad=Example(policy="[limits]\nauto_install = true\n"),
    good=Example(policy="[limits]\nauto_install = false\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
