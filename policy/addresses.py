"""What an address is that is not public: loopback, private, link-local, and all else that IANA has set aside.

An IPv6 address that holds an IPv4 address, for a gateway that leads there, is what that one is. Everything that no
registry calls globally reachable is not public; what they leave open is.

Source: IANA IPv4 and IPv6 Special-Purpose Address Registries; IANA IPv4 and IPv6 Multicast Address Space Registries;
IANA IPv6 Address Space (2000::/3 alone is assigned); RFC 3879 (site-local IPv6), RFC 4380 (Teredo), RFC 6052 section
3.1 and RFC 3056 section 2 (IPv6 that holds an IPv4 address); Microsoft's documentation of 168.63.129.16.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from policy.destinations import IPNetwork, unmapped_network

IPAddress = IPv4Address | IPv6Address

_SPECIAL_NETWORKS = tuple(
    (ip_network(network), words)
    for network, words in (
        ("0.0.0.0/8", "an address of no host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared address space (carrier-grade NAT)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's own service"),
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
        ("2001::/32", "a tunnel that hides where it ends"),
        ("2001:2::/48", "reserved for benchmarks"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "reserved for documentation"),
        ("3fff::/20", "reserved for documentation"),
        ("5f00::/16", "reserved for segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("::/3", "assigned to nobody"),
        ("4000::/2", "assigned to nobody"),
        ("8000::/1", "assigned to nobody"),
    )
)
"""From the narrower to the wider: the first that holds an address says what it is."""
_REACHABLE = tuple(
    ip_network(network)
    for network in (
        "192.0.0.9",
        "192.0.0.10",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "2001:1::1",
        "2001:1::2",
        "2001:1::3",
        "2001:3::/32",
        "2001:4:112::/48",
        "2001:20::/28",
        "2001:30::/28",
    )
)
"""What the registries call globally reachable within a block that is not, and what holds IPv4 addresses there."""
_TRANSLATED = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")


def words_of_address(address: IPAddress) -> str:
    """What an address is that is not public; empty where it is public."""
    return words_of_network(IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address))


def unmapped_address(address: IPAddress) -> IPAddress:
    """Of an IPv4-mapped address the IPv4 address that it is; else what was given."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def words_of_network(network: IPNetwork) -> str:
    """What every address of a network is, none of which is public; empty where some may be."""
    held = _held_ipv4(network)
    if any(_is_within(held, reachable) or _is_within(reachable, held) for reachable in _REACHABLE):
        return ""
    return next((words for wide, words in _SPECIAL_NETWORKS if _is_within(held, wide)), "")


def _held_ipv4(network: IPNetwork) -> IPNetwork:
    """The IPv4 addresses that IPv6 addresses hold; else what was given."""
    network = unmapped_network(network)
    if not isinstance(network, IPv6Network):
        return network
    for wide, held_bits in ((_TRANSLATED, 96), (_SIX_TO_FOUR, 16)):
        length = network.prefixlen - held_bits
        if _is_within(network, wide) and length >= 0:
            bits = int(network.network_address) >> (96 - held_bits) & 0xFFFFFFFF
            return IPv4Network((IPv4Address(bits), min(length, 32)))
    return network


def _is_within(network: IPNetwork, wide: IPNetwork) -> bool:
    same = network.version == wide.version
    return same and network.prefixlen >= wide.prefixlen and network.network_address in wide
