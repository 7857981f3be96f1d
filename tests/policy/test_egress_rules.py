"""Where code may connect: one reading of each host, names first, then addresses; every disguise of one is refused."""

import socket
import time
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policy.destinations import ReachIndex
from policy.effective import EffectiveLimits
from policy.egress_rules import EgressRefusedError, EgressRules, parse_host
from policy.resolve import Layers, resolve
from tests.policy.factories import destinations, document_of
from tests.sandbox.disguises import DISGUISES, METADATA_ADDRESS, PUBLIC_ADDRESS


def rules(*allowed: str, private: bool = False) -> EgressRules:
    return EgressRules(
        allowed=ReachIndex(destinations(*allowed)),
        private_allowed=private,
        list_origin="policy acme-prod, line 12",
        private_origin="policy acme-prod, line 13",
    )


def check(these: EgressRules, untrusted_host: str, port: int = 80) -> None:
    """Do all that is decided of a host that is not resolved."""
    host = parse_host(untrusted_host)
    these.check_host(host, port)
    if not isinstance(host, str):
        these.check_address(host, own=False)


@pytest.mark.parametrize("spelling", DISGUISES.values(), ids=DISGUISES.keys())
def test_metadata_address_in_any_disguise_is_refused(spelling: str) -> None:
    with pytest.raises(EgressRefusedError):
        check(rules("public", "0.0.0.0/0", "::/0", "allowed.example", "*.example"), spelling)


@pytest.mark.parametrize(
    ("untrusted", "host"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.com", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("_dmarc.example.com", "_dmarc.example.com"),
        ("1e100.net", "1e100.net"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        (".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]), ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])),
        ("93.184.215.14", ip_address("93.184.215.14")),
        ("93.184.215.14.", ip_address("93.184.215.14")),
        ("[2606:4700::1111]", ip_address("2606:4700::1111")),
        ("2606:4700:0::1111", ip_address("2606:4700::1111")),
        ("2606:4700::ABCD", ip_address("2606:4700::abcd")),
        ("[::ffff:93.184.215.14]", ip_address("93.184.215.14")),
    ],
)
def test_host_is_read_in_its_one_way(untrusted: str, host: object) -> None:
    assert parse_host(untrusted) == host


@pytest.mark.parametrize(
    "untrusted",
    [
        "",
        ".",
        "..",
        "example..com",
        "example.com..",
        ".example.com",
        "-a.example",
        "a-.example",
        "a b.example",
        "a,b.example",
        "a\nb.example",
        "example.com\n",
        "example.com\x00.evil.example",
        "example.com/",
        "example.com:443",
        "example.com#",
        "example.com\\evil",
        "user@example.com",
        "[example.com]",
        "[93.184.215.14]",
        "[]",
        "[::1",
        "::1]",
        "[[::1]]",
        "*.example.com",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
        "bücher.example",
        "\u212a8s.example",  # KELVIN SIGN, which is k in lower case
        "example\u3002com",  # IDEOGRAPHIC FULL STOP, which IDNA reads as a dot
        "ｅxample.com",  # noqa: RUF001 -- FULLWIDTH LATIN SMALL LETTER E, which IDNA reads as e
        "0x",
        "1.2.3.0x",
        "fe80::1%lo",
        "fe80::1%25lo",
        "%31.example",
    ],
)
def test_what_programs_could_read_differently_is_no_host(untrusted: str) -> None:
    with pytest.raises(EgressRefusedError):
        parse_host(untrusted)


HOST_LIKE = st.text(alphabet="0123456789abcdefxXF.:-_[]%", max_size=40) | st.from_regex(
    r"(0x[0-9a-f]{1,8}|0[0-7]{1,4}|[0-9]{1,10})(\.(0x[0-9a-f]{0,4}|0[0-7]{1,4}|[0-9]{1,10})){0,4}\.?", fullmatch=True
)


@given(HOST_LIKE)
@example("0x")
@example("1.0x")
@example("0x.0x.0x.0x")
@example("010.8.8.8")
@example("8.8.8.08")
@example("127.1.")
def test_parser_differential_no_name_is_an_address_to_the_c_library(untrusted: str) -> None:
    try:
        host = parse_host(untrusted)
    except EgressRefusedError:
        return
    if isinstance(host, str):
        with pytest.raises(OSError, match="illegal IP address"):
            socket.inet_aton(host)
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    else:
        read = socket.getaddrinfo(str(host), None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        assert [ip_address(str(entry[4][0])) for entry in read] == [host]


@given(st.text() | st.text(alphabet="0123456789abcdefx.:-_[]%@/\\\x00 ").map(lambda text: f"a{text}b"))
def test_arbitrary_text_is_a_plain_name_an_address_or_refused(untrusted: str) -> None:
    try:
        host = parse_host(untrusted)
    except EgressRefusedError:
        return
    assert not isinstance(host, str) or (host.isascii() and host == host.lower() and not set(host) & set(" \n\0:/@%[]"))
    assert parse_host(str(host)) == host


@pytest.mark.parametrize("part", ["a.", "a", "-", "0.", "1", "0x", "::", "f:", "[", "%", "a-", "."])
def test_backtracking_host_of_a_megabyte_is_read_at_once(part: str) -> None:
    begun = time.process_time()
    with pytest.raises(EgressRefusedError):
        parse_host(part * (1_000_000 // len(part)))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("allowed", "host", "port"),
    [
        ("public", "example.com", 443),
        ("public", "93.184.215.14", 1),
        ("public", "2606:4700::1111", 1),
        ("example.com", "EXAMPLE.COM.", 8080),
        ("*.example.com", "a.b.example.com", 80),
        ("example.com:443", "example.com", 443),
        ("93.184.215.0/24", "93.184.215.14", 80),
        ("93.184.215.14", "::ffff:93.184.215.14", 80),
        ("[2606:4700::/32]:443", "2606:4700::1111", 443),
    ],
)
def test_host_that_an_item_covers_is_permitted(allowed: str, host: str, port: int) -> None:
    check(rules(allowed), host, port)


@pytest.mark.parametrize(
    ("allowed", "host", "port"),
    [
        ("example.com", "www.example.com", 443),
        ("*.example.com", "example.com", 443),
        ("*.example.com", "evilexample.com", 443),
        ("example.com", "example.com.evil.example", 443),
        ("example.com:443", "example.com", 80),
        ("example.com", "93.184.215.14", 443),
        ("93.184.215.14", "example.com", 443),
        ("93.184.215.14", "64:ff9b::93.184.215.14", 443),
        ("0.0.0.0/0", "2606:4700::1111", 443),
        ("::/0", "93.184.215.14", 443),
    ],
)
def test_host_that_no_item_covers_is_refused_by_whoever_made_the_list(allowed: str, host: str, port: int) -> None:
    with pytest.raises(EgressRefusedError, match="not in the allow-list") as refused:
        check(rules(allowed), host, port)
    assert refused.value.origin == "policy acme-prod, line 12"


def test_empty_list_permits_nothing() -> None:
    for host in ("example.com", PUBLIC_ADDRESS, "localhost"):
        with pytest.raises(EgressRefusedError, match="not in the allow-list"):
            check(rules(), host)


@pytest.mark.parametrize("listed", ["public", "169.254.0.0/16", "169.254.169.254", "169.254.169.254:80", "0.0.0.0/0"])
def test_private_address_is_refused_whatever_the_list_says(listed: str) -> None:
    with pytest.raises(EgressRefusedError) as refused:
        check(rules(listed), METADATA_ADDRESS)
    assert str(refused.value) == (
        "169.254.169.254 is link-local, where clouds keep their metadata, and private destinations are closed"
    )
    assert refused.value.origin == "policy acme-prod, line 13"


def test_dns_rebinding_name_that_is_listed_leads_to_no_private_address() -> None:
    these = rules("rebound.example")
    these.check_host("rebound.example", 80)
    for address in (METADATA_ADDRESS, "127.0.0.1", "10.0.0.1", "::1", "fd00::1", "64:ff9b::7f00:1", "0.0.0.0"):
        with pytest.raises(EgressRefusedError, match="private destinations are closed"):
            these.check_address(ip_address(address), own=False)


def test_public_address_of_this_host_itself_is_refused() -> None:
    with pytest.raises(EgressRefusedError, match="one of this host's own addresses"):
        rules("public").check_address(IPv4Address(PUBLIC_ADDRESS), own=True)


def test_private_addresses_that_are_allowed_must_be_listed_too() -> None:
    these = rules("10.0.0.0/8", private=True)
    check(these, "10.1.2.3")
    these.check_address(IPv4Address(PUBLIC_ADDRESS), own=True)
    with pytest.raises(EgressRefusedError, match="not in the allow-list"):
        check(these, METADATA_ADDRESS)


def limits(**values: object) -> EffectiveLimits:
    return resolve(Layers(documents=(document_of(dict(values)),)))


def test_rules_are_those_of_the_limits_and_name_the_line_that_decided() -> None:
    these = EgressRules.of_limits(limits(network_allowlist=["example.com:443"], networking_allowed=True))

    check(these, "example.com", 443)
    with pytest.raises(EgressRefusedError) as refused:
        check(these, "example.com", 80)
    assert refused.value.origin.startswith("acme-prod serial 7 (acme-prod.toml:")
    with pytest.raises(EgressRefusedError, match="loopback"):
        these.check_address(ip_address("127.0.0.1"), own=False)


def test_list_of_limits_without_network_permits_nothing() -> None:
    these = EgressRules.of_limits(limits(network_allowlist=["public"], networking_allowed=False))

    with pytest.raises(EgressRefusedError, match="not in the allow-list"):
        check(these, "example.com")
