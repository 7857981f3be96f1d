"""Reads the questions of DNS clients in a box, and writes the answers: pure functions on one message each.

Only what a stub resolver says is understood: one question of the class IN, in a message with no pointers before it.
Whatever follows the question (EDNS) is left alone, so an answer fits into 512 bytes, with as many addresses as do.

Source: RFC 1035 section 4.1 (messages), RFC 3596 (AAAA), RFC 6891 section 7 (who is not told of EDNS does without).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address

from policy.addresses import IPAddress

ADDRESS_SECONDS = 30
"""How long an answer may be kept in a box."""
_HEAD_BYTES = 12
_MOST_DATAGRAM_BYTES = 512
_LONGEST_LABEL = 63
_LONGEST_WIRE_NAME = 255
_QUESTION_TAIL_BYTES = 4
_INTERNET_CLASS = 1
_IS_ANSWER, _OPCODE_BITS, _RECURSION_WANTED = 0x8000, 0x7800, 0x0100
_ANSWER_BITS = 0x8080
"""An answer, from one who asks others."""
_NAME_OF_QUESTION = b"\xc0\x0c"
"""A pointer to the question's name, which begins right behind the head."""


class RecordKind(IntEnum):
    """The kinds of records that are answered."""

    IPV4 = 1
    """A."""
    IPV6 = 28
    """AAAA."""


class NameVerdict(IntEnum):
    """How a question is answered. Source: RFC 1035 section 4.1.1 (RCODE)."""

    ANSWERED = 0
    MALFORMED = 1
    FAILED = 2
    NO_SUCH_NAME = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


class UnreadableQuestionError(Exception):
    """A message is no question that is answered.

    Args:
        reply: what its sender is told; empty where that is nothing.
    """

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        super().__init__("no question that is answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class NameQuestion:
    """One question."""

    untrusted_name: str
    """The name asked for, without a trailing dot; other bytes than ASCII's are replaced."""
    kind: int
    """Which records of it; mostly one of `RecordKind`."""
    head: tuple[int, int]
    """The message's number, and its flags."""
    wire: bytes
    """The question as it stands in the message, which the answer repeats."""


def name_question(message: bytes) -> NameQuestion:
    """Read a message.

    Raises:
        UnreadableQuestionError: it is no question, or none that is answered.
    """
    number, flags = int.from_bytes(message[:2], "big"), int.from_bytes(message[2:4], "big")
    if len(message) < _HEAD_BYTES or flags & _IS_ANSWER:
        raise UnreadableQuestionError(b"")
    if flags & _OPCODE_BITS:
        raise UnreadableQuestionError(_head(number, flags, NameVerdict.NOT_IMPLEMENTED))
    malformed = UnreadableQuestionError(_head(number, flags, NameVerdict.MALFORMED))
    if message[4:6] != b"\x00\x01" or message[6:8] != b"\x00\x00":
        raise malformed
    labels, end = _labels(message)
    tail = message[end : end + _QUESTION_TAIL_BYTES]
    if labels is None or len(tail) < _QUESTION_TAIL_BYTES or int.from_bytes(tail[2:], "big") != _INTERNET_CLASS:
        raise malformed
    return NameQuestion(
        untrusted_name=".".join(labels),
        kind=int.from_bytes(tail[:2], "big"),
        head=(number, flags),
        wire=message[_HEAD_BYTES : end + _QUESTION_TAIL_BYTES],
    )


def name_reply(question: NameQuestion, verdict: NameVerdict, addresses: Iterable[IPAddress] = ()) -> bytes:
    """The answer to a question: of these addresses those of its kind, as many as fit."""
    fitting = [
        _NAME_OF_QUESTION + b"".join(part.to_bytes(size, "big") for part, size in _record_fields(address))
        for address in addresses
        if question.kind == _kind_of(address)
    ]
    reply_bytes = _HEAD_BYTES + len(question.wire)
    room = (_MOST_DATAGRAM_BYTES - reply_bytes) // len(fitting[0]) if fitting else 0
    records = fitting[:room]
    return _head(*question.head, verdict, questions=1, answers=len(records)) + question.wire + b"".join(records)


def _record_fields(address: IPAddress) -> tuple[tuple[int, int], ...]:
    """The fields of a record behind its name, each with its size in bytes."""
    size = len(address.packed)
    return (_kind_of(address), 2), (_INTERNET_CLASS, 2), (ADDRESS_SECONDS, 4), (size, 2), (int(address), size)


def _kind_of(address: IPAddress) -> RecordKind:
    return RecordKind.IPV6 if isinstance(address, IPv6Address) else RecordKind.IPV4


def _head(number: int, flags: int, verdict: NameVerdict, *, questions: int = 0, answers: int = 0) -> bytes:
    fields = (number, _ANSWER_BITS | flags & _RECURSION_WANTED | verdict, questions, answers, 0, 0)
    return b"".join(field.to_bytes(2, "big") for field in fields)


def _labels(message: bytes) -> tuple[list[str] | None, int]:
    """The labels of the name behind a message's head, and where it ends; none where there is no such name."""
    labels: list[str] = []
    at = _HEAD_BYTES
    while at < len(message) and at - _HEAD_BYTES < _LONGEST_WIRE_NAME:
        length = message[at]
        at += 1
        if length == 0:
            return labels, at
        if length > _LONGEST_LABEL:
            break
        labels.append(_label_text(message[at : at + length]))
        at += length
    return None, at


def _label_text(label: bytes) -> str:
    """A label as text: one that has a dot in itself, or no ASCII, is spelt so that it is no label of a host name."""
    text = label.decode("ascii", errors="replace")
    return text.replace(".", "\\.")
