"""SBP211: an item of an allow-list that leads to hosts of anybody."""

from collections.abc import Iterator, Sequence
from typing import Any

from policy.destinations import parse_destination
from policy.limits import NETWORK_ALLOWLIST
from policy.lint.findings import Found, Severity
from policy.lint.openings import why_wide
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PlacedStatement, PolicyFile, Setup


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    if NETWORK_ALLOWLIST.name not in file.text or not ("*." in file.text or "/" in file.text):
        return
    for placed in file.statements:
        if placed.stated.limit is NETWORK_ALLOWLIST:
            yield from _of_list(file, placed)


def _of_list(file: PolicyFile, placed: PlacedStatement) -> Iterator[Found]:
    for number, text in enumerate(_items(file, placed)):
        why = why_wide(parse_destination(text)) if "*" in text or "/" in text else ""
        if why:
            yield Found(
                path=(*placed.path, number),
                message=f"{text} in network_allowlist holds almost nothing back: {why}",
                remedy="Name the hosts that are needed",
            )


def _items(file: PolicyFile, placed: PlacedStatement) -> Sequence[str]:
    """The list as it is written; what is read of it has no order, and no item that another covers."""
    untrusted: Any = file.untrusted_table
    for segment in placed.path:
        untrusted = untrusted[segment]
    return tuple(untrusted)


RULE = DocumentRule(
    id="SBP211",
    name="wildcard-destination",
    family=Family.INSECURE,
    severity=Severity.WARNING,
    summary="An item of network_allowlist is a top-level domain, a shared domain, or a great part of all addresses.",
    rationale=(
        "Anybody can get a name below such a domain, or an address within such a network, for an hour and for nothing. "
        "Code that may reach it can hand over what it reads as if there were no list. Known are domains of one label, "
        "some under which hosting services and registries give names to everybody, IPv4 networks wider than /8 and "
        "IPv6 networks wider than /16."
    ),
    bad=Example(policy='[limits]\nnetwork_allowlist = ["pypi.org:443", "*.com", "0.0.0.0/0"]\n'),
    good=Example(policy='[limits]\nnetwork_allowlist = ["pypi.org:443", "*.acme.com", "203.0.113.0/24"]\n'),
    check=_check,
)
