"""What files and variables open together: the bounds that hold beside each other, and what is too wide to be one.

Rules of insecure choices ask here, so that what one file opens and another closes is never found. Scopes are left
aside: they hold for some, and close nothing for the others. Policies that were not given are unknown.

Source: `policy.resolve` for the bounds; the Public Suffix List, https://publicsuffix.org/list/, for shared domains.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from policy.destinations import Destination, Domain, PublicInternet
from policy.limits import LIMITS, NETWORK_ALLOWLIST, NETWORKING_ALLOWED, Limit
from policy.lint.subjects import EnvironmentSubject, FactStatement, PolicySet, Setup
from policy.settings import POLICY_PATH
from policy.statements import Verb
from policy.values import Thousandths, Whole

MOST: Mapping[str, Any] = MappingProxyType(
    {limit.name: limit.kind.maximum for limit in LIMITS if isinstance(limit.kind, Whole | Thousandths)}
)
"""By limit, the largest number that it can be at all."""

_SHARED_DOMAINS = (
    *("appspot.com", "azurewebsites.net", "blob.core.windows.net", "blogspot.com", "cloudapp.net", "cloudfront.net"),
    *("firebaseapp.com", "fly.dev", "github.io", "gitlab.io", "herokuapp.com", "netlify.app", "ngrok-free.app"),
    *("ngrok.io", "onrender.com", "pages.dev", "run.app", "s3.amazonaws.com", "vercel.app", "web.app", "workers.dev"),
    *("co.in", "co.jp", "co.kr", "co.nz", "co.uk", "co.za", "com.au", "com.br", "com.cn", "com.mx", "com.tr", "org.uk"),
)
"""Domains below which anybody can get a name; there are many more."""
_OWN_DOMAINS = frozenset(
    {"corp", "example", "home", "internal", "invalid", "lan", "local", "localhost", "onion", "test"}
)
"""Domains of one label below which nobody can get a public name. Source: RFC 6761, RFC 6762, RFC 7686, ICANN."""
_WIDEST_PREFIX = {4: 8, 6: 16}
"""The shortest prefix that may be a network of somebody's."""
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("224.0.0.0/3", "fc00::/7", "fe80::/10", "ff00::/8")))
"""Wide networks that lead to no public host."""


def bounds(limit: Limit[Any], sets: Iterable[PolicySet], environment: EnvironmentSubject | None) -> Iterator[Any]:
    """The values that a limit cannot be looser than, for everybody.

    Beside an environment's lock only those of policies count that do not let it loosen them.
    """
    lock = environment.stated(limit, Verb.LOCK) if environment else None
    ceiling = environment.stated(limit, Verb.CEILING) if environment else None
    for stated in (lock, ceiling):
        if stated is not None:
            yield stated.value
    for said in statements_of(limit, sets):
        if said.verb is not Verb.DEFAULT and (lock is None or not said.environment_may_loosen):
            yield said.value


def statements_of(limit: Limit[Any], sets: Iterable[PolicySet]) -> Iterator[FactStatement]:
    """What policy files say of one limit for everybody."""
    name = limit.name
    for policy_set in sets:
        for file in policy_set.files:
            for said in file.statements:
                if said.limit == name:
                    yield said


def is_closed(limit: Limit[bool], sets: Iterable[PolicySet], environment: EnvironmentSubject | None) -> bool:
    """Whether a switch is held to its strict side for everybody."""
    return limit.kind.strictest in bounds(limit, sets, environment)


def loose_statements(limit: Limit[bool], policy_set: PolicySet, setup: Setup) -> Sequence[FactStatement]:
    """What a set of files says for the loose side of a switch, unless something holds it to the other."""
    strict = limit.kind.strictest
    loose = [said for said in statements_of(limit, (policy_set,)) if said.value != strict]
    return [] if not loose or is_closed(limit, (policy_set,), setup.environment) else loose


def is_offline(sets: Sequence[PolicySet], environment: EnvironmentSubject | None) -> bool:
    """Whether code can reach no network at all."""
    return is_closed(NETWORKING_ALLOWED, sets, environment)


def reaches_anywhere(sets: Sequence[PolicySet], environment: EnvironmentSubject | None) -> bool:
    """Whether no bound of the allow-list leaves out `public`."""
    return all(map(_has_public, bounds(NETWORK_ALLOWLIST, sets, environment)))


def names_addresses_only(sets: Sequence[PolicySet], environment: EnvironmentSubject | None) -> bool:
    """Whether some bound of the allow-list holds addresses alone, so that no name can lead elsewhere."""
    return any(map(_has_addresses_only, bounds(NETWORK_ALLOWLIST, sets, environment)))


def policy_is_unknown(environment: EnvironmentSubject, sets: Sequence[PolicySet]) -> bool:
    """Whether variables name policies that were not given."""
    layer = environment.layer
    return not sets and layer is not None and layer.settings[POLICY_PATH] is not None


def _has_public(destinations: Iterable[Destination]) -> bool:
    return any(isinstance(item.reach, PublicInternet) for item in destinations)


def _has_addresses_only(destinations: Iterable[Destination]) -> bool:
    return all(isinstance(item.reach, ipaddress.IPv4Network | ipaddress.IPv6Network) for item in destinations)


def why_wide(destination: Destination) -> str:
    """Why an item of an allow-list leads to hosts of anybody; empty where it does not, or is `public` itself."""
    match destination.reach:
        case Domain(name):
            shared = _shared_domain(name)
            return f"anybody can get a name below {shared}" if shared else ""
        case ipaddress.IPv4Network() | ipaddress.IPv6Network() as network:
            wide = network.prefixlen < _WIDEST_PREFIX[network.version] and not _is_elsewhere(network)
            return f"it holds 2^{network.max_prefixlen - network.prefixlen} addresses, of everybody" if wide else ""
        case _:
            return ""


def _shared_domain(name: str) -> str:
    """A domain of anybody's that is this one or below it; empty where none is known."""
    if "." not in name:
        return "" if name in _OWN_DOMAINS else name
    return next((shared for shared in _SHARED_DOMAINS if shared == name or shared.endswith(f".{name}")), "")


def _is_elsewhere(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    return any(
        network.version == wide.version and network.network_address in wide and network.prefixlen >= wide.prefixlen
        for wide in _NOT_PUBLIC
    )
