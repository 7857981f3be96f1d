"""SBP203: a network that is permitted, and held to nothing."""

from collections.abc import Iterator

from policy.limits import NETWORKING_ALLOWED
from policy.lint.findings import Found, Severity
from policy.lint.openings import loose_statements, reaches_anywhere
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import FactStatement, PolicySet, Setup


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    loose = loose_statements(NETWORKING_ALLOWED, policy_set, setup)
    if not loose or not reaches_anywhere((policy_set,), setup.environment):
        return
    first: dict[str, FactStatement] = {}
    for said in loose:
        first.setdefault(said.place.file, said)
    for said in first.values():
        yield Found(
            message=(
                f"the {said.verb.value} of networking_allowed is true, and nothing holds network_allowlist to less "
                "than public, so code may send what it reads anywhere"
            ),
            remedy=(
                "Give network_allowlist a ceiling of the hosts that are needed, or write networking_allowed = false"
            ),
            location=said.place.location,
        )


RULE = SetRule(
    id="SBP203",
    name="network-open",
    family=Family.INSECURE,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    summary="Networking is permitted, and nothing narrows where code may reach.",
    rationale=(
        "As far as the policy goes, code out of a chat may then send what the chat holds to any host on the internet. "
        "A default of network_allowlist narrows nothing, since a valve overrides it; a ceiling or a lock does. Scopes "
        "narrow it for some only. A policy that says nothing of networking_allowed is left to unconstrained-limit."
    ),
    bad=Example(policy="[limits]\nnetworking_allowed = true\n"),
    good=Example(
        policy='[limits]\nnetworking_allowed = true\n\n[limits.network_allowlist]\nceiling = ["pypi.org:443"]\n'
    ),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
