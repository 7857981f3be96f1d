"""Where code may reach when it may: one item of the network allow-list, and the order among items.

An item is `public` (any public address, the top), a host name, `*.domain` (any depth, not the domain itself), an
address or a CIDR, each with an optional `:port`. Item A is narrower than B when every connection A permits, B permits
too; the meet of two items is what both permit. A set is kept without items that another of its items covers, so equal
sets are equal values.

Source: RFC 1123 (host names), RFC 5890 (A-labels), RFC 3986 section 3.2.2 (brackets around IPv6 beside a port).
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_PREFIX_LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME = 253
LONGEST_DESTINATION = 300

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class PublicInternet:
    """Any public address: the top of the order."""


@dataclass(frozen=True, slots=True)
class HostName:
    """Exactly this name, in lower-case A-labels."""

    name: str
    """`api.example.com`, without a trailing dot."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Every name below this one, at any depth, but not the name itself."""

    name: str
    """`example.com` for the item `*.example.com`."""


Reach = PublicInternet | HostName | Domain | ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One item of an allow-list."""

    reach: Reach
    """Which hosts; a single address is a network of one."""
    port: int | None
    """Which port, 1 to 65535; `None` means every port."""

    def __str__(self) -> str:
        """Spell the item as `parse_destination` reads it."""
        text = _reach_text(self.reach)
        if self.port is None:
            return text
        return f"[{text}]:{self.port}" if isinstance(self.reach, ipaddress.IPv6Network) else f"{text}:{self.port}"


def parse_destination(text: str) -> Destination:
    """Read one item of an allow-list.

    Raises:
        ValueError: the text is no destination; the message says what is wrong with it.
    """
    if len(text) > LONGEST_DESTINATION:
        raise ValueError(f"an item of {len(text)} characters is longer than any destination")
    host, port = _split_port(text)
    if port is not None and not 1 <= port <= 65535:  # noqa: PLR2004 -- the range of TCP and UDP ports
        raise ValueError(f"port {port} is outside 1 to 65535")
    return Destination(reach=_parse_reach(host), port=port)


class ReachIndex:
    """A set of destinations by reach, to find those that cover another without looking at all."""

    def __init__(self, items: Iterable[Destination]) -> None:
        """Sort the items."""
        self._ports: dict[Reach, set[int | None]] = {}
        self._prefix_lengths: dict[int, set[int]] = {4: set(), 6: set()}
        for item in items:
            self._ports.setdefault(item.reach, set()).add(item.port)
            if isinstance(item.reach, ipaddress.IPv4Network | ipaddress.IPv6Network):
                self._prefix_lengths[item.reach.version].add(item.reach.prefixlen)

    def ports_over(self, reach: Reach) -> Iterator[set[int | None]]:
        """The ports of every reach here that covers this one, itself included."""
        for wide in self._reaches_over(reach):
            if wide in self._ports:
                yield self._ports[wide]

    def permits(self, reach: Reach, port: int) -> bool:
        """Whether some item here covers this host at this port."""
        return any(None in ports or port in ports for ports in self.ports_over(reach))

    def covers_otherwise(self, item: Destination) -> bool:
        """Whether another item here covers this one."""
        if item.port is not None and None in self._ports.get(item.reach, ()):
            return True
        wider = (self._ports.get(wide, set()) for wide in self._reaches_over(item.reach) if wide != item.reach)
        return any(None in ports or item.port in ports for ports in wider)

    def _reaches_over(self, reach: Reach) -> Iterator[Reach]:
        """This reach and every wider one that may be here."""
        yield reach
        match reach:
            case PublicInternet():
                return
            case HostName(name) | Domain(name):
                while "." in name:
                    name = name.partition(".")[2]
                    yield Domain(name)
            case ipaddress.IPv4Network() | ipaddress.IPv6Network():
                shorter = (length for length in self._prefix_lengths[reach.version] if length < reach.prefixlen)
                yield from (reach.supernet(new_prefix=length) for length in shorter)
        yield PublicInternet()


def narrowed(items: Iterable[Destination]) -> frozenset[Destination]:
    """The same reach in the fewest items: without those that another one covers."""
    unique = frozenset(items)
    index = ReachIndex(unique)
    return frozenset(item for item in unique if not index.covers_otherwise(item))


def meet_of_sets(one: frozenset[Destination], other: frozenset[Destination]) -> frozenset[Destination]:
    """What both sets permit: the meets of all their items, in the fewest items.

    Of two reaches that meet, one covers the other; so each item is held only against what may cover it, and two long
    lists cost their lengths, not the product.
    """
    return narrowed((*_within(one, ReachIndex(other)), *_within(other, ReachIndex(one))))


def _within(items: Iterable[Destination], index: ReachIndex) -> Iterator[Destination]:
    """The items, each as far as an item of the index covers its reach."""
    for item in items:
        for ports in index.ports_over(item.reach):
            if item.port is None:
                yield from (Destination(reach=item.reach, port=port) for port in ports)
            elif None in ports or item.port in ports:
                yield item


def covers(wide: Destination, narrow: Destination) -> bool:
    """Whether every connection that `narrow` permits, `wide` permits too."""
    return meet_of_destinations(wide, narrow) == narrow


def meet_of_destinations(one: Destination, other: Destination) -> Destination | None:
    """The widest item that both permit, or `None` where they have nothing in common."""
    reach = _meet_of_reaches(one.reach, other.reach)
    if reach is None or (one.port is not None and other.port is not None and one.port != other.port):
        return None
    return Destination(reach=reach, port=one.port if other.port is None else other.port)


def _meet_of_reaches(one: Reach, other: Reach) -> Reach | None:
    match one, other:
        case (PublicInternet(), _):
            return other
        case (_, PublicInternet()):
            return one
        case (HostName() | Domain(), HostName() | Domain()):
            return _meet_of_names(one, other)
        case (ipaddress.IPv4Network(), ipaddress.IPv4Network()):
            return _meet_of_networks(one, other)
        case (ipaddress.IPv6Network(), ipaddress.IPv6Network()):
            return _meet_of_networks(one, other)
        case _:
            return None


def _meet_of_networks(one: IPNetwork, other: IPNetwork) -> IPNetwork | None:
    """The smaller of two networks of one family, since two that overlap are nested."""
    narrow, wide = sorted((one, other), key=lambda network: network.prefixlen, reverse=True)
    return narrow if narrow.network_address in wide else None


def _meet_of_names(one: HostName | Domain, other: HostName | Domain) -> HostName | Domain | None:
    if one == other:
        return one
    if isinstance(one, Domain) and other.name.endswith(f".{one.name}"):
        return other
    if isinstance(other, Domain) and one.name.endswith(f".{other.name}"):
        return one
    return None


def is_host_name(name: str) -> bool:
    """Whether a text is a name in lower-case A-labels; underscores, which some names have, are let pass."""
    return len(name) <= _LONGEST_NAME and _HOST_NAME.fullmatch(name) is not None


def ends_in_a_number(name: str) -> bool:
    """Whether programs may read a name as an address in an unusual spelling."""
    return _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]) is not None


def unmapped_network(network: IPNetwork) -> IPNetwork:
    """Of a network of IPv4-mapped addresses the IPv4 network that it is; else what was given."""
    mapped_bits = 96
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= mapped_bits:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - mapped_bits))
    return network


def _split_port(text: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?", text)
    if bracketed:
        if ":" not in bracketed[1]:
            raise ValueError(f"{text!r} has brackets, which only an IPv6 address takes")
        return bracketed[1], int(bracketed[2]) if bracketed[2] else None
    if text.count(":") > 1:
        return text, None
    if "//" in text:
        raise ValueError(f"{text!r} is the address of a page: write its host, and its port if you mean only that")
    host, colon, port = text.partition(":")
    if colon and not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(f"{text!r} has no port number after its colon")
    return host, int(port) if colon else None


def _parse_reach(host: str) -> Reach:
    if host == "public":
        return PublicInternet()
    network = _parse_network(host)
    if network is not None:
        return network
    if host.startswith("*."):
        return Domain(_checked_name(host.removeprefix("*.")))
    return HostName(_checked_name(host))


def _parse_network(host: str) -> IPNetwork | None:
    if "%" in host:
        raise ValueError(f"{host!r} names a zone, which no allow-list can")
    _, slash, prefix_length = host.partition("/")
    if slash and not _PREFIX_LENGTH.fullmatch(prefix_length):
        return None  # ipaddress would also take a netmask, or guess that it is a host mask
    try:
        network = ipaddress.ip_network(host)
    except ValueError as error:
        if "host bits" in str(error):
            start = ipaddress.ip_network(host, strict=False)
            raise ValueError(f"{host!r} is not the start of its network: {start} is") from None
        return None
    return unmapped_network(network)


def _checked_name(name: str) -> str:
    if not name.isascii():
        raise ValueError(f"{name!r} is not in A-labels: write the form that begins with xn--")
    if name != name.strip():
        raise ValueError(f"{name!r} has space around it: write {name.strip()!r}")
    if name != name.lower():
        raise ValueError(f"{name!r} has upper-case letters: write {name.lower()!r}")
    if name == "none":
        raise ValueError("'none' is the word for the empty set and stands alone")
    if not is_host_name(name):
        raise ValueError(f"{name!r} is neither `public`, a host name, `*.domain`, an address nor a CIDR")
    if ends_in_a_number(name):
        raise ValueError(f"{name!r} looks like an address in an unusual spelling: write it as four decimal numbers")
    return name


def _reach_text(reach: Reach) -> str:
    match reach:
        case PublicInternet():
            return "public"
        case HostName(name):
            return name
        case Domain(name):
            return f"*.{name}"
        case ipaddress.IPv4Network() | ipaddress.IPv6Network():
            alone = reach.prefixlen == reach.max_prefixlen
            return str(reach.network_address) if alone else str(reach)
