"""Decides, purely, where code of one run may connect: by name before it is resolved, by address afterwards.

A name that no item of the allow-list covers is refused without asking any resolver, since a question alone carries data
out. An address that is not public is refused whatever the list says, unless the limits allow private destinations; so
is an address of this host itself. Unusual spellings of addresses are refused as such, since programs read them
differently.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Self

from policy.addresses import IPAddress, unmapped_address, words_of_address
from policy.destinations import HostName, ReachIndex, ends_in_a_number, is_host_name
from policy.effective import EffectiveLimits, Fate
from policy.limits import NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED, NETWORKING_ALLOWED

_CLOSED_TOLD = "it is not public, and private destinations are closed"
"""Code could map the host's own network by asking for names, were it told what they lead to."""

Host = str | IPAddress
"""A name in lower-case A-labels without trailing dot, or an address; of an IPv4-mapped one, the IPv4 address."""


class EgressRefusedError(Exception):
    """A connection is not permitted.

    Args:
        reason: why, without full stop, for people and records.
        origin: who decided so; empty where it follows from the request alone.
        told: what code in the box may read of the reason, without full stop; all of it where empty.
    """

    def __init__(self, reason: str, origin: str = "", told: str = "") -> None:
        self.reason = reason
        self.origin = origin
        self.told = told or reason
        super().__init__(reason)


def parse_host(untrusted_text: str) -> Host:
    """Read the host that code wants to connect to.

    Args:
        untrusted_text: as it stands in a request, an IPv6 address with or without its brackets.

    Raises:
        EgressRefusedError: it is neither a name nor an address in its usual spelling.
    """
    if not untrusted_text.isascii():  # some letters beyond ASCII become ASCII when made lower-case
        raise EgressRefusedError("it is not in A-labels; write the form that begins with xn--")
    text = untrusted_text.lower()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if ":" not in text:
            raise EgressRefusedError("it has brackets, which only an IPv6 address takes")
    name = text.removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _checked_host_name(name)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise EgressRefusedError("it names a zone of this host")
    return unmapped_address(address)


def _checked_host_name(name: str) -> str:
    if ends_in_a_number(name):
        raise EgressRefusedError("it is an address in an unusual spelling; write it as four decimal numbers")
    if not is_host_name(name):
        raise EgressRefusedError("it is no host name")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRules:
    """Where one run may connect."""

    allowed: ReachIndex
    """The allow-list."""
    private_allowed: bool
    """Whether addresses that are not public are open too."""
    list_origin: str
    """Who decided the allow-list, for messages."""
    private_origin: str
    """Who decided about private addresses, for messages."""
    lists: tuple[tuple[ReachIndex, str], ...] = ()
    """Each list that the allow-list is the meet of, and who stated it."""

    @classmethod
    def of_limits(cls, limits: EffectiveLimits) -> Self:
        """The rules that effective limits come to."""
        listed = limits[NETWORK_ALLOWLIST]
        return cls(
            allowed=ReachIndex(listed if limits[NETWORKING_ALLOWED] else ()),
            private_allowed=limits[NETWORK_PRIVATE_ALLOWED],
            list_origin=limits.origin_of(NETWORK_ALLOWLIST),
            private_origin=limits.origin_of(NETWORK_PRIVATE_ALLOWED),
            lists=tuple(
                (ReachIndex(candidate.stated.value), str(candidate.origin))
                for candidate in limits.decisions[NETWORK_ALLOWLIST.name].candidates
                if candidate.fate in {Fate.WON, Fate.CLAMPED}
            ),
        )

    def check_host(self, host: Host, port: int) -> None:
        """Refuse what no item of the allow-list covers; of a name, nothing else has been asked by then.

        Raises:
            EgressRefusedError: none does.
        """
        reach = HostName(host) if isinstance(host, str) else _network_of(host)
        if not self.allowed.permits(reach, port):
            raise self._not_listed(lambda listed: listed.permits(reach, port))

    def check_name(self, name: str) -> None:
        """Refuse a name that no item of the allow-list covers at any port.

        Raises:
            EgressRefusedError: none does.
        """
        if not any(self.allowed.ports_over(HostName(name))):
            raise self._not_listed(lambda listed: any(listed.ports_over(HostName(name))))

    def check_address(self, address: IPAddress, *, own: bool) -> None:
        """Refuse an address that is not public.

        Args:
            address: what the host's name was resolved to, or what was asked for.
            own: whether it is one of this host's own.

        Raises:
            EgressRefusedError: it is not, and private destinations are not allowed.
        """
        what = words_of_address(address) or ("one of this host's own addresses" if own else "")
        if what and not self.private_allowed:
            closed = f"{address} is {what}, and private destinations are closed"
            raise EgressRefusedError(closed, self.private_origin, _CLOSED_TOLD)

    def _not_listed(self, permits: Callable[[ReachIndex], bool]) -> EgressRefusedError:
        """The refusal, in the name of the first list that does not permit it; of the meet, where each of them does."""
        origins = (origin for listed, origin in self.lists if not permits(listed))
        return EgressRefusedError("not in the allow-list", next(origins, self.list_origin))


@dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """What would become of a connection, as far as that can be told without asking a resolver."""

    destination: str
    """`host:port`."""
    permitted: bool
    """Whether it would be permitted."""
    reason: str
    """Why not, or on what condition; may be empty. No full stop."""
    origin: str
    """Who decided so; empty where it is permitted, or where that follows from the destination alone."""


def foretold(limits: EffectiveLimits, host: str, port: int) -> Foretold:
    """What would become of a connection under effective limits.

    Args:
        limits: what holds for the person.
        host: a name, or an address, an IPv6 one with or without its brackets.
        port: 1 to 65535.
    """
    destination = f"{host}:{port}"
    try:
        condition = _condition(limits, parse_host(host), port)
    except EgressRefusedError as refusal:
        return Foretold(destination=destination, permitted=False, reason=refusal.reason, origin=refusal.origin)
    return Foretold(destination=destination, permitted=True, reason=condition, origin="")


def _condition(limits: EffectiveLimits, host: Host, port: int) -> str:
    """On what condition code may connect; empty where there is none.

    Raises:
        EgressRefusedError: it may not.
    """
    if not limits[NETWORKING_ALLOWED]:
        raise EgressRefusedError("networking_allowed is false", limits.origin_of(NETWORKING_ALLOWED))
    rules = EgressRules.of_limits(limits)
    rules.check_host(host, port)
    if not isinstance(host, str):
        rules.check_address(host, own=False)
    if rules.private_allowed:
        return ""
    return "if it leads to a public address" if isinstance(host, str) else "unless it is the server's own address"


def _network_of(address: IPAddress) -> IPv4Network | IPv6Network:
    return IPv6Network(address) if isinstance(address, IPv6Address) else IPv4Network(address)
