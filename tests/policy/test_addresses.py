"""What is not public: every block that IANA's registries do not call globally reachable, however it is spelt."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.addresses import IPAddress, words_of_address, words_of_network
from policy.destinations import IPNetwork

METADATA = {
    "Amazon, Google, Azure and most others": "169.254.169.254",
    "Amazon's containers": "169.254.170.2",
    "Tencent": "169.254.0.23",
    "Alibaba": "100.100.100.200",
    "Oracle's oldest": "192.0.0.192",
    "Azure's own service": "168.63.129.16",
    "Amazon over IPv6": "fd00:ec2::254",
    "Google over IPv6": "fd20:ce::254",
    "Scaleway over IPv6": "fd00:42::42",
    "OpenStack over IPv6": "fe80::a9fe:a9fe",
}


@pytest.mark.parametrize("address", METADATA.values(), ids=METADATA.keys())
def test_no_cloud_s_metadata_address_is_public(address: str) -> None:
    assert words_of_address(ip_address(address))


@pytest.mark.parametrize(
    "spelling",
    [
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "0:0:0:0:0:ffff:a9fe:a9fe",
        "64:ff9b::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "2002:a9fe:a9fe:1:2:3:4:5",
    ],
)
def test_metadata_address_inside_an_ipv6_address_is_named_as_what_it_is(spelling: str) -> None:
    assert words_of_address(ip_address(spelling)) == words_of_address(ip_address("169.254.169.254"))


@pytest.mark.parametrize(
    "spelling",
    [
        "::169.254.169.254",  # IPv4-compatible, RFC 4291 section 2.5.5.1
        "::ffff:0:169.254.169.254",  # IPv4-translated, RFC 2765
        "64:ff9b:1::a9fe:a9fe",  # RFC 8215
        "2001:0:a9fe:a9fe::1",  # Teredo whose server it is
        "2001:0:1:2:3:4:5601:5601",  # Teredo whose client it is
        "fe80::5efe:169.254.169.254",  # ISATAP on the link
    ],
)
def test_metadata_address_in_a_tunnel_is_not_public(spelling: str) -> None:
    assert words_of_address(ip_address(spelling))


NEVER_REACHABLE = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/29 192.0.0.8/32
    192.0.0.170/31 192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    255.255.255.255/32 ::/128 ::1/128 ::ffff:127.0.0.0/104 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/32 2001:2::/48
    2001:5::/32 2001:10::/28 2001:100::/24 2001:db8::/32 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
    1::/16 4000::/3 c000::/3 f000::/5
"""
REACHABLE = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
    169.255.0.0 168.63.129.15 168.63.129.17 172.15.255.255 172.32.0.0 191.255.255.255 192.0.0.9 192.0.0.10 192.0.1.255
    192.31.196.1 192.52.193.1 192.167.255.255 192.169.0.0 192.175.48.1 198.17.255.255 198.20.0.0 223.255.255.255
    2001:1::1 2001:1::2 2001:1::3 2001:3::1 2001:4:112::1 2001:20::1 2001:30::1 2001:200::1 2001:4860:4860::8888
    2606:4700::1111 2620:4f:8000::1 2a00::1 64:ff9b::8.8.8.8 2002:808:808::1 ::ffff:8.8.8.8 3ffe::1
"""


@pytest.mark.parametrize("text", NEVER_REACHABLE.split())
def test_block_that_no_registry_calls_reachable_is_not_public_from_end_to_end(text: str) -> None:
    network = ip_network(text)

    assert words_of_network(network)
    assert words_of_address(network[0])
    assert words_of_address(network[-1])


@pytest.mark.parametrize("text", REACHABLE.split())
def test_address_beside_a_special_block_is_public(text: str) -> None:
    assert words_of_address(ip_address(text)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0",
        "::/0",
        "192.0.0.0/24",
        "192.0.0.0/28",
        "2001::/23",
        "2001::/16",
        "2000::/3",
        "10.0.0.0/7",
        "64:ff9b::/32",
    ],
)
def test_network_that_holds_a_public_address_may_be_public(text: str) -> None:
    assert words_of_network(ip_network(text)) == ""


ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
NETWORKS = st.tuples(ADDRESSES, st.integers(0, 128)).map(
    lambda pair: ip_network((pair[0], min(pair[1], pair[0].max_prefixlen)), strict=False)
)


@given(st.ip_addresses(v=4), st.integers(0, 2**80 - 1))
def test_ipv6_address_that_holds_an_ipv4_address_is_what_that_one_is(held: IPv4Address, rest: int) -> None:
    words = words_of_address(held)

    assert words_of_address(IPv6Address(0xFFFF << 32 | int(held))) == words
    assert words_of_address(IPv6Address(0x64FF9B << 96 | int(held))) == words
    assert words_of_address(IPv6Address(0x2002 << 112 | int(held) << 80 | rest)) == words


@given(NETWORKS, st.data())
def test_no_address_of_a_network_that_is_not_public_is_public(network: IPNetwork, data: st.DataObject) -> None:
    if words_of_network(network):
        assert words_of_address(network[data.draw(st.integers(0, network.num_addresses - 1))])


@given(ADDRESSES)
def test_address_is_what_its_network_of_one_is(address: IPAddress) -> None:
    alone = IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)

    assert words_of_address(address) == words_of_network(alone)


@given(ADDRESSES)
def test_what_python_calls_loopback_private_link_local_or_multicast_is_not_public(address: IPAddress) -> None:
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        assert words_of_address(address)
