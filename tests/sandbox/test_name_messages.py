"""What DNS messages say, and how they are answered."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.addresses import IPAddress
from sandbox.name_messages import NameVerdict, UnreadableQuestionError, name_question, name_reply
from tests.sandbox.dns_client import AAAA, TXT, A, addresses, question, verdict

MALFORMED, NOT_IMPLEMENTED = 1, 4


@pytest.mark.parametrize("kind", [A, AAAA, TXT])
def test_question_is_read(kind: int) -> None:
    read = name_question(question("api.example.com", kind))

    assert (read.untrusted_name, read.kind) == ("api.example.com", kind)


def test_reply_repeats_number_and_spelling() -> None:
    asked = question("aPi.eXample.com", number=0xBEEF)

    reply = name_reply(name_question(asked), NameVerdict.ANSWERED, [IPv4Address("93.184.216.34")])

    assert reply[:2] == b"\xbe\xef"
    assert asked[12:] in reply
    assert addresses(reply) == ["93.184.216.34"]


@pytest.mark.parametrize(("kind", "expected"), [(A, ["93.184.216.34"]), (AAAA, ["2606:2800::1"]), (TXT, [])])
def test_reply_holds_addresses_of_the_kind_asked_for(kind: int, expected: list[str]) -> None:
    both: list[IPAddress] = [IPv6Address("2606:2800::1"), IPv4Address("93.184.216.34")]

    assert addresses(name_reply(name_question(question("a.example", kind)), NameVerdict.ANSWERED, both)) == expected


@pytest.mark.parametrize("name", ["a.example", ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])])
@pytest.mark.parametrize("kind", [A, AAAA])
def test_reply_with_many_addresses_fits_into_a_datagram(name: str, kind: int) -> None:
    many: list[IPAddress] = [*map(IPv4Address, range(1, 99)), *map(IPv6Address, range(1, 99))]

    reply = name_reply(name_question(question(name, kind)), NameVerdict.ANSWERED, many)

    assert len(reply) <= 512
    assert len(addresses(reply)) >= 5


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="empty"),
        pytest.param(question("a.example")[:11], id="no-whole-head"),
        pytest.param(question("a.example", flags=0x8180), id="an-answer"),
    ],
)
def test_what_is_no_question_is_not_answered(message: bytes) -> None:
    with pytest.raises(UnreadableQuestionError) as caught:
        name_question(message)

    assert caught.value.reply == b""


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(question("a.example", flags=0x2900), NOT_IMPLEMENTED, id="an-update"),
        pytest.param(question("a.example")[:-1], MALFORMED, id="cut-off"),
        pytest.param(question("a.example")[:15], MALFORMED, id="cut-in-a-label"),
        pytest.param(question("a.example")[:12] + b"\xc0\x0c\0\1\0\1", MALFORMED, id="pointer-to-itself"),
        pytest.param(question("a.example")[:12] + b"\x40a\0\0\1\0\1", MALFORMED, id="label-of-unknown-kind"),
        pytest.param(question("a.example", klass=3), MALFORMED, id="chaos"),
        pytest.param(question(".".join(["a" * 63] * 5)), MALFORMED, id="longer-than-any-name"),
        pytest.param(question("a.example")[:4] + b"\0\2" + question("a.example")[6:], MALFORMED, id="two-questions"),
        pytest.param(question("a.example")[:4] + b"\0\0" + question("a.example")[6:], MALFORMED, id="no-question"),
    ],
)
def test_malformed_question_is_told_so(message: bytes, expected: int) -> None:
    with pytest.raises(UnreadableQuestionError) as caught:
        name_question(message)

    assert verdict(caught.value.reply) == expected
    assert caught.value.reply[:2] == message[:2]


def test_label_with_a_dot_in_it_is_no_two_labels() -> None:
    message = question("x")[:12] + b"\x0ba.example.b\0\0\1\0\1"

    assert name_question(message).untrusted_name == "a\\.example\\.b"


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=300).map(lambda tail: question("a.example")[:12] + tail)))
def test_any_bytes_are_answered_in_few_or_not_at_all(message: bytes) -> None:
    try:
        reply = name_reply(name_question(message), NameVerdict.NO_SUCH_NAME)
    except UnreadableQuestionError as error:
        reply = error.reply

    assert len(reply) <= 512
