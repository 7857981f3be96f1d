"""SBP114: an item of an allow-list that no public address answers to, where private ones are not allowed.

What is private, `policy.addresses` says. Source: RFC 6761 section 6.3 (`localhost`); Google Cloud's documentation of
its metadata server.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from policy.addresses import words_of_network
from policy.destinations import Domain, HostName, Reach, parse_destination
from policy.limits import NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED
from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, PlacedStatement, PolicyFile, Setup
from policy.statements import Verb

_METADATA_NAME = "metadata.google.internal"


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    if NETWORK_ALLOWLIST.name not in file.text:
        return
    lists = [placed for placed in file.statements if placed.limit.name == NETWORK_ALLOWLIST.name]
    lists = [placed for placed in lists if any(_what_else_than_public(item.reach) for item in placed.value)]
    if not lists:
        return
    said = [placed for placed in file.everywhere if placed.limit.name == NETWORK_PRIVATE_ALLOWED.name]
    if any(placed.value for placed in said) or (setup.environment and _opens(setup.environment, stated=bool(said))):
        return
    closed = said[0] if said else None
    for placed in lists:
        for number, item in enumerate(file.untrusted_at(placed.path)):
            what = _what_else_than_public(parse_destination(item).reach)
            if what:
                yield _found(file, (placed, number), f"{item} is {what}", closed)


def _opens(environment: EnvironmentSubject, *, stated: bool) -> bool:
    """Whether variables allow private destinations, or may where the file says nothing of them."""
    opening = {verb for verb in Verb if (said := environment.stated(NETWORK_PRIVATE_ALLOWED, verb)) and said.value}
    return Verb.LOCK in opening or (not stated and bool(opening))


def _what_else_than_public(reach: Reach) -> str:
    """What an item is, all of which cannot be public; empty where some of it may be."""
    match reach:
        case HostName(name) | Domain(name) if name == "localhost" or name.endswith(".localhost"):
            return "loopback"
        case HostName(name) if name == _METADATA_NAME:
            return "a cloud's metadata service"
        case IPv4Network() | IPv6Network():
            return words_of_network(reach)
        case _:
            return ""


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
