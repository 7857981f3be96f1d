"""SBP114: an item of an allow-list that no public address answers to, where private ones are not allowed.

What is private, `policy.lint.reaches` says.
"""

from collections.abc import Iterator

from policy.destinations import parse_destination
from policy.limits import NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED
from policy.lint.findings import Found, Severity
from policy.lint.reaches import private_is_closed, what_else_than_public
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PlacedStatement, PolicyFile, Setup


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    if NETWORK_ALLOWLIST.name not in file.text:
        return
    lists = [placed for placed in file.statements if placed.limit.name == NETWORK_ALLOWLIST.name]
    lists = [placed for placed in lists if any(what_else_than_public(item.reach) for item in placed.value)]
    if not lists:
        return
    said = [placed for placed in file.everywhere if placed.limit.name == NETWORK_PRIVATE_ALLOWED.name]
    if not private_is_closed([placed.value for placed in said], setup.environment):
        return
    closed = said[0] if said else None
    for placed in lists:
        for number, item in enumerate(file.untrusted_at(placed.path)):
            what = what_else_than_public(parse_destination(item).reach)
            if what:
                yield _found(file, (placed, number), f"{item} is {what}", closed)


def _found(file: PolicyFile, item: tuple[PlacedStatement, int], what: str, closed: PlacedStatement | None) -> Found:
    placed, number = item
    private = NETWORK_PRIVATE_ALLOWED.name
    there = file.location(closed.path) if closed else None
    if closed and there:
        why = f"the {closed.verb.value} of {private} in line {there.line} is false"
    else:
        why = f"{private} is built in as false, and this file does not state it"
    return Found(
        path=(*placed.path, number),
        message=f"{what}, which no code reaches: {why}",
        remedy=f"Remove it, or allow {private} if code is really to reach such addresses",
        related=(there,) if there else (),
    )


RULE = DocumentRule(
    id="SBP114",
    name="destination-unreachable",
    family=Family.CONTRADICTION,
    severity=Severity.WARNING,
    summary="An allow-list names private, loopback, link-local or reserved addresses, and those are not allowed.",
    rationale=(
        "Destinations that are not public are refused after a name is resolved, whatever a list says, unless "
        "network_private_allowed is true. So whoever put the item there expects what will not work; and it begins to "
        "work, noticed by nobody, on the day that another layer allows private destinations."
    ),
    bad=Example(policy='[limits]\nnetwork_allowlist = ["pypi.org:443", "10.20.0.0/16"]\n'),
    good=Example(policy='[limits]\nnetwork_allowlist = ["pypi.org:443"]\n'),
    check=_check,
)
