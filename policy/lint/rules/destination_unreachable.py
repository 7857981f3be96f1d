"""SBP114: an item of an allow-list that no public address answers to, where private ones are not allowed.

Private is what the IANA registries below call not globally reachable, and multicast; what they leave open is not.
Source: IANA IPv4 and IPv6 Special-Purpose Address Registries; IANA IPv4 and IPv6 Multicast Address Space Registries;
RFC 3879 (site-local IPv6), RFC 6052 section 3.1 and RFC 3056 section 2 (IPv6 that holds an IPv4 address), RFC 6761
section 6.3 (`localhost`); Google Cloud's documentation of its metadata server.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from policy.destinations import Domain, HostName, Reach, parse_destination
from policy.limits import NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED
from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, PlacedStatement, PolicyFile, Setup
from policy.statements import Verb

_KINDS = tuple(
    (ip_network(network), words)
    for network, words in (
        ("0.0.0.0/8", "an address of no host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared address space (carrier-grade NAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved for benchmarks"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "an address of no host"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "reserved for local translation"),
        ("100::/64", "a black hole"),
        ("2001:2::/48", "reserved for benchmarks"),
        ("2001:db8::/32", "reserved for documentation"),
        ("3fff::/20", "reserved for documentation"),
        ("5f00::/16", "reserved for segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_REACHABLE = (IPv4Network("192.0.0.9"), IPv4Network("192.0.0.10"))
"""What the registry calls globally reachable within a block that is not."""
_TRANSLATED = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
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
            network = _held_ipv4(reach)
            if isinstance(network, IPv4Network) and any(map(network.overlaps, _REACHABLE)):
                return ""
            return next((words for wide, words in _KINDS if _is_within(network, wide)), "")
        case _:
            return ""


def _held_ipv4(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """The IPv4 addresses that IPv6 addresses hold, for a gateway that leads there; else what was given."""
    if not isinstance(network, IPv6Network):
        return network
    for wide, held_bits in ((_TRANSLATED, 96), (_SIX_TO_FOUR, 16)):
        length = network.prefixlen - held_bits
        if _is_within(network, wide) and length >= 0:
            bits = int(network.network_address) >> (96 - held_bits) & 0xFFFFFFFF
            return IPv4Network((IPv4Address(bits), min(length, 32)))
    return network


def _is_within(network: IPv4Network | IPv6Network, wide: IPv4Network | IPv6Network) -> bool:
    same = network.version == wide.version
    return same and network.prefixlen >= wide.prefixlen and network.network_address in wide


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
