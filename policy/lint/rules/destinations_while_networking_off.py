"""SBP115: destinations of a network that the same file turns off."""

from collections.abc import Iterator

from policy.limits import NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED, NETWORKING_ALLOWED
from policy.lint.findings import Found, Severity
from policy.lint.reaches import variables_turn_networking_on
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup

_ABOUT_REACH = (NETWORK_ALLOWLIST.name, NETWORK_PRIVATE_ALLOWED.name)


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    off = file.bounds.get(NETWORKING_ALLOWED.name)
    if off is None or off.value:
        return
    opened = [placed for placed in file.statements if placed.limit.name in _ABOUT_REACH and placed.value]
    if not opened:
        return
    if off.stated.environment_may_loosen and variables_turn_networking_on(setup.environment):
        return
    there = file.location(off.path)
    for placed in opened:
        yield Found(
            path=placed.path,
            message=(
                f"{placed.limit.name} says what code may reach, and the {off.verb.value} of {off.limit.name} in line "
                f"{there.line} lets it reach no network"
            ),
            remedy="Remove it, or turn networking on",
            related=(there,),
        )


RULE = DocumentRule(
    id="SBP115",
    name="destinations-while-networking-off",
    family=Family.CONTRADICTION,
    severity=Severity.WARNING,
    summary="A file turns networking off for everybody, and still names destinations.",
    rationale=(
        "One of the two is not meant. Where networking is off on purpose, the destinations open at once when somebody "
        "turns it on elsewhere; where they are meant, nobody reaches them."
    ),
    bad=Example(policy='[limits]\nnetworking_allowed = false\nnetwork_allowlist = ["pypi.org:443"]\n'),
    good=Example(policy="[limits]\nnetworking_allowed = false\nnetwork_allowlist = []\n"),
    check=_check,
)
