"""Items of the allow-list: one spelling for each, everything that could mean two things refused, and their order."""

import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.destinations import (
    Destination,
    Domain,
    HostName,
    ReachIndex,
    covers,
    meet_of_destinations,
    meet_of_sets,
    narrowed,
    parse_destination,
)
from policy.values import Destinations
from tests.policy.factories import DESTINATION_TEXTS, destinations

LONGEST_NAME = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("public", "public"),
        ("public:443", "public:443"),
        ("example.com", "example.com"),
        ("localhost", "localhost"),
        ("a-b.example.com:1", "a-b.example.com:1"),
        ("example.com:65535", "example.com:65535"),
        ("*.example.com", "*.example.com"),
        ("*.example.com:443", "*.example.com:443"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        (LONGEST_NAME, LONGEST_NAME),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("192.0.2.1:53", "192.0.2.1:53"),
        ("10.0.0.0/8:443", "10.0.0.0/8:443"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("2001:0db8:0000::0001/128", "2001:db8::1"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ("::/0", "::/0"),
    ],
)
def test_item_is_read_and_spelt_in_its_one_way(text: str, spelt: str) -> None:
    assert str(parse_destination(text)) == spelt
    assert parse_destination(spelt) == parse_destination(text)


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:a00:1", "10.0.0.1"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_ipv4_mapped_address_is_that_ipv4_address(text: str, spelt: str) -> None:
    assert parse_destination(text) == parse_destination(spelt)


REFUSED = {
    "nothing": "",
    "any": "*",
    "empty domain": "*.",
    "space before": " example.com",
    "space after": "example.com ",
    "line feed after": "example.com\n",
    "NUL": "example.com\x00",
    "trailing dot": "example.com.",
    "trailing dot of an address": "127.0.0.1.",
    "leading dot": ".example.com",
    "two dots": "example..com",
    "upper case": "Example.com",
    "upper case domain": "*.EXAMPLE.com",
    "upper case word": "PUBLIC",
    "U-label": "b\u00fccher.example",
    "full-width dot": "example\uff0ecom",
    "full-width digit": "127.0.0.\uff11",
    "arabic digit": "127.0.0.\u0661",
    "star inside": "api.*.example.com",
    "star in a label": "a*.example.com",
    "two stars": "*.*.example.com",
    "label with hyphen first": "-a.example.com",
    "label with hyphen last": "a-.example.com",
    "label too long": f"{'a' * 64}.example",
    "name too long": f"{LONGEST_NAME}a",
    "huge": "a." * 100_000 + "a",
    "the word for the empty set": "none",
    "the word for the empty set beside a port": "none:443",
    "URL": "https://example.com",
    "path": "example.com/path",
    "query": "example.com?x",
    "userinfo": "user@example.com",
    "userinfo with password": "user:secret@example.com",
    "userinfo before an address": "user@127.0.0.1:80",
    "percent-encoding": "ex%61mple.com",
    "decimal address": "2130706433",
    "octal address": "0177.0.0.1",
    "octal address in one": "017700000001",
    "hexadecimal address": "0x7f.0.0.1",
    "hexadecimal address in one": "0x7f000001",
    "hexadecimal last part": "127.0.0.0x1",
    "short address": "127.1",
    "address of three parts": "127.0.1",
    "address of five parts": "127.0.0.0.1",
    "leading zero": "127.0.0.01",
    "part too large": "127.0.0.256",
    "domain of an address": "*.127.0.0.1",
    "domain of a number": "*.1",
    "host bits": "10.0.0.1/8",
    "host bits of IPv6": "2001:db8::1/32",
    "prefix too long": "10.0.0.0/33",
    "empty prefix": "10.0.0.0/",
    "signed prefix": "10.0.0.0/+8",
    "prefix with leading zero": "10.0.0.0/08",
    "netmask": "10.0.0.0/255.0.0.0",
    "host mask": "10.0.0.0/0.255.255.255",
    "range": "10.0.0.1-10.0.0.9",
    "zone id": "fe80::1%eth0",
    "zone id in brackets": "[fe80::1%25eth0]:80",
    "brackets around a name": "[example.com]",
    "brackets around a name with port": "[example.com]:443",
    "brackets around public": "[public]:443",
    "brackets around IPv4": "[10.0.0.1]:80",
    "brackets left open": "[2001:db8::1",
    "brackets around nothing": "[]:80",
    "brackets before a prefix": "[2001:db8::]/32",
    "three colons": "2001:::1",
    "empty port": "example.com:",
    "port nought": "example.com:0",
    "port too large": "example.com:65536",
    "port with sign": "example.com:+80",
    "port with space": "example.com: 80",
    "port in arabic digits": "example.com:\u0668\u0660",
    "port by name": "example.com:https",
    "port range": "example.com:80-90",
    "two ports": "example.com:80:90",
    "port of nothing": ":443",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_spelling_that_could_mean_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".{8}") as refusal:
        parse_destination(text)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Example.com", "write 'example.com'"),
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("b\u00fccher.example", "xn--"),
        ("https://web.example", "write its host"),
        (" web.example", "write .web.example"),
        ("127.1", "four decimal numbers"),
        ("none", "stands alone"),
        ("example.com:0", "1 to 65535"),
    ],
)
def test_refusal_says_how_to_write_it(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_destination(text)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("public", "example.com", "example.com"),
        ("public:443", "example.com", "example.com:443"),
        ("public", "10.0.0.0/8:80", "10.0.0.0/8:80"),
        ("public:443", "public:80", None),
        ("*.example.com", "api.example.com:443", "api.example.com:443"),
        ("*.example.com", "a.b.c.example.com", "a.b.c.example.com"),
        ("*.example.com", "*.b.example.com", "*.b.example.com"),
        ("*.example.com:443", "*.b.example.com", "*.b.example.com:443"),
        ("*.example.com", "example.com", None),
        ("*.example.com", "badexample.com", None),
        ("*.example.com", "example.com.evil.example", None),
        ("example.com", "api.example.com", None),
        ("10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16"),
        ("10.0.0.0/8:443", "10.1.2.3", "10.1.2.3:443"),
        ("10.0.0.0/16", "10.1.0.0/16", None),
        ("0.0.0.0/0", "2001:db8::1", None),
        ("::/0", "10.0.0.1", None),
        ("::/0", "::ffff:10.0.0.1", None),
        ("10.0.0.1", "example.com", None),
    ],
)
def test_meet_is_what_both_permit(one: str, other: str, both: str | None) -> None:
    expected = None if both is None else parse_destination(both)
    assert meet_of_destinations(parse_destination(one), parse_destination(other)) == expected
    assert meet_of_destinations(parse_destination(other), parse_destination(one)) == expected


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (["public"], ["example.com", "10.0.0.0/8"], ["example.com", "10.0.0.0/8"]),
        (["*.example.com:443", "10.0.0.0/8"], ["public"], ["*.example.com:443", "10.0.0.0/8"]),
        (["*.example.com", "10.0.0.0/8"], ["api.example.com", "10.1.2.3"], ["api.example.com", "10.1.2.3"]),
        (["example.com:80", "example.com:443"], ["example.com"], ["example.com:80", "example.com:443"]),
        (["example.com"], ["example.org"], []),
        (["public"], [], []),
    ],
)
def test_meet_of_sets_is_item_by_item(one: list[str], other: list[str], both: list[str]) -> None:
    assert Destinations().meet(destinations(*one), destinations(*other)) == destinations(*both)


def test_item_that_another_one_covers_is_dropped() -> None:
    crowded = destinations("*.example.com", "api.example.com", "api.example.com:443", "10.0.0.0/8", "10.0.0.1")
    assert narrowed(crowded) == destinations("*.example.com", "10.0.0.0/8")
    assert Destinations().from_native(["public", "example.com"]) == destinations("public")


def test_sets_of_equal_reach_are_equal_values() -> None:
    kind = Destinations()
    assert kind.parse("example.com,public,10.0.0.0/8") == kind.parse("public")
    assert kind.parse("::ffff:10.0.0.1,10.0.0.1") == kind.parse("10.0.0.1")


def test_public_is_the_top() -> None:
    top = parse_destination("public")
    assert all(covers(top, parse_destination(text)) for text in DESTINATION_TEXTS)
    assert not any(covers(parse_destination(text), top) for text in DESTINATION_TEXTS if text != "public")


def test_covering_is_a_partial_order() -> None:
    items = [parse_destination(text) for text in DESTINATION_TEXTS]
    for one, two, three in product(items, repeat=3):
        assert covers(one, one)
        assert one == two or not (covers(one, two) and covers(two, one))
        assert covers(one, three) or not (covers(one, two) and covers(two, three))


LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
REACHES = (
    NAMES
    | NAMES.map("*.{}".format)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(network="2001:db8::/32").map("[{}]".format)
)
PORTS = st.none() | st.integers(1, 65535)


@given(reach=REACHES, port=PORTS)
def test_every_item_that_is_read_is_spelt_as_itself(reach: str, port: int | None) -> None:
    if reach == "none":
        return
    item = parse_destination(reach if port is None else f"{reach}:{port}")
    assert item.port == port
    assert parse_destination(str(item)) == item


@given(text=st.text() | st.text(alphabet="*.:/[]%@-_abx0123456789"))
def test_arbitrary_text_is_an_item_that_is_spelt_as_itself_or_a_value_error(text: str) -> None:
    try:
        item = parse_destination(text)
    except ValueError:
        return
    assert parse_destination(str(item)) == item
    assert str(item) not in {"none", ""}
    assert "," not in str(item)


@given(one=st.sampled_from(DESTINATION_TEXTS), other=st.sampled_from(DESTINATION_TEXTS))
def test_meet_covers_nothing_that_either_does_not(one: str, other: str) -> None:
    left, right = parse_destination(one), parse_destination(other)
    met = meet_of_destinations(left, right)
    shared = [item for item in map(parse_destination, DESTINATION_TEXTS) if covers(left, item) and covers(right, item)]
    assert all(met is not None and covers(met, item) for item in shared)
    assert met is None or isinstance(met, Destination)
    assert met is None or (covers(left, met) and covers(right, met))


SETS_OF_TEXTS = st.frozensets(st.sampled_from(DESTINATION_TEXTS), max_size=8)


@given(SETS_OF_TEXTS, SETS_OF_TEXTS)
def test_the_meet_of_sets_is_the_meet_of_every_pair_of_their_items(one: frozenset[str], other: frozenset[str]) -> None:
    left, right = destinations(*one), destinations(*other)
    pairs = [meet_of_destinations(item, another) for item in left for another in right]

    assert meet_of_sets(left, right) == narrowed(met for met in pairs if met is not None)


@given(SETS_OF_TEXTS)
def test_narrowed_leaves_out_exactly_what_another_item_covers(texts: frozenset[str]) -> None:
    items = destinations(*texts)

    assert narrowed(items) == {
        item for item in items if not any(covers(other, item) for other in items if other != item)
    }


@given(SETS_OF_TEXTS, st.sampled_from(DESTINATION_TEXTS), st.sampled_from([80, 443, 1, 65535]))
def test_an_index_permits_exactly_what_one_of_its_items_covers(texts: frozenset[str], text: str, port: int) -> None:
    items, reach = destinations(*texts), parse_destination(text).reach

    asked = Destination(reach=reach, port=port)
    assert ReachIndex(items).permits(reach, port) == any(covers(item, asked) for item in items)


@given(st.lists(REACHES, min_size=1, max_size=6), PORTS, st.integers(1, 65535), st.data())
def test_an_index_of_any_items_permits_exactly_what_one_of_them_covers(
    reaches: list[str], listed_port: int | None, port: int, data: st.DataObject
) -> None:
    spelt = [reach for reach in reaches if reach != "none"]
    items = [
        Destination(reach=parse_destination(reach).reach, port=data.draw(st.sampled_from([listed_port, None, port])))
        for reach in spelt
    ]
    below = [HostName(f"www.{item.reach.name}") for item in items if isinstance(item.reach, HostName | Domain)]
    for reach in (*below, *(item.reach for item in items)):
        asked = Destination(reach=reach, port=port)
        assert ReachIndex(items).permits(reach, port) == any(covers(item, asked) for item in items)


@pytest.mark.parametrize(
    ("listed", "asked", "permitted"),
    [
        ("public", "example.com", True),
        ("public", "10.0.0.1", True),
        ("public:443", "example.com", False),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("*.com", "example.com", True),
        ("example.com", "a.example.com", False),
        ("example.com:80", "example.com", True),
        ("example.com:81", "example.com", False),
        ("10.0.0.0/8", "10.255.255.255", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("0.0.0.0/0", "::1", False),
        ("::/0", "10.0.0.1", False),
    ],
)
def test_an_index_permits_a_host_at_a_port(listed: str, asked: str, *, permitted: bool) -> None:
    index = ReachIndex([parse_destination("unrelated.example:1"), parse_destination(listed)])

    assert index.permits(parse_destination(asked).reach, 80) is permitted


def test_an_index_of_nothing_permits_nothing() -> None:
    assert not any(ReachIndex(()).permits(parse_destination(text).reach, 443) for text in DESTINATION_TEXTS)


def test_long_lists_of_ports_hosts_and_domains_have_a_meet_at_once() -> None:
    ports = narrowed(parse_destination(f"public:{port}") for port in range(1, 257))
    hosts = narrowed(parse_destination(f"host{number}.example.com") for number in range(256))
    domains = narrowed([parse_destination("*.example.com")])

    begun = time.process_time()
    met = meet_of_sets(meet_of_sets(ports, hosts), domains)

    assert len(met) == 256 * 256
    assert time.process_time() - begun < 10  # comparing every pair of the last meet alone would be four billion steps
