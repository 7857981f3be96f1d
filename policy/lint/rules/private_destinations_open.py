"""SBP202: private destinations that code may reach."""

from collections.abc import Iterator

from policy.limits import NETWORK_PRIVATE_ALLOWED
from policy.lint.findings import Found, Severity
from policy.lint.openings import is_offline, loose_statements, names_addresses_only
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import PolicySet, Setup


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    loose = loose_statements(NETWORK_PRIVATE_ALLOWED, policy_set, setup)
    if not loose or is_offline((policy_set,), setup.environment):
        return
    if names_addresses_only((policy_set,), setup.environment):
        return
    for said in loose:
        yield Found(
            message=(
                f"the {said.verb.value} of network_private_allowed is true, so code may reach the server's own "
                "network, its loopback and the cloud's metadata service"
            ),
            remedy=(
                "Write network_private_allowed = false, or lock networking_allowed to false, or give network_allowlist "
                "a ceiling of the addresses that are needed"
            ),
            location=said.place.location,
        )


RULE = SetRule(
    id="SBP202",
    name="private-destinations-open",
    family=Family.INSECURE,
    severity=Severity.ERROR,
    summary="Code may reach the server's own network, its loopback and the cloud's metadata service.",
    rationale=(
        "What listens there often asks for no password, and metadata services hand out the server's credentials. An "
        "allow-list of names does not help: a name leads wherever its owner says. A ceiling of addresses alone does, "
        "and then nothing is found; nor where networking is off for everybody."
    ),
    bad=Example(policy="[limits]\nnetworking_allowed = true\nnetwork_private_allowed = true\n"),
    good=Example(
        policy="""[limits]
networking_allowed = true
network_private_allowed = true

[limits.network_allowlist]
ceiling = ["10.20.30.40:5432"]
"""
    ),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
