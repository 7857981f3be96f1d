"""Tells a client of the plain HTTP proxy that its connection ends with this answer, whatever the server says of its.

One connection of a client carries one request, so that no second one reaches a server unseen; a client that is not told
so would send another, and see it fail. All else of an answer passes as it came.

Source: RFC 9112 section 9.6 (close) and 2.2 (line endings), RFC 9110 section 15.2 (interim answers).
"""

import re

_MOST_ANSWER_HEAD_BYTES = 1 << 16
"""A longer head passes as it came; nobody needs to understand it here."""
_LONGEST_HEAD_END = 4
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}")
_OF_THE_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection"})


class AnswerHead:
    """The head of one answer, on its way to the client."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._held: bytearray | None = bytearray()
        self._searched = 0

    def passed(self, data: bytes) -> bytes:
        """What of these bytes, and of those held before, the client gets now."""
        if self._held is None:
            return data
        self._held += data
        said = bytearray()
        while (end := _HEAD_END.search(self._held, self._searched)) is not None:
            head, self._held, self._searched = bytes(self._held[: end.start()]), self._held[end.end() :], 0
            if _INTERIM.match(head) is None:
                return bytes(said) + _closing(head) + self.rest()
            said += head + b"\r\n\r\n"
        self._searched = max(0, len(self._held) - _LONGEST_HEAD_END)
        return bytes(said) + (self.rest() if len(self._held) > _MOST_ANSWER_HEAD_BYTES else b"")

    def rest(self) -> bytes:
        """What is still held; from now on everything passes as it comes."""
        held, self._held = bytes(self._held or b""), None
        return held


def _closing(head: bytes) -> bytes:
    if not head.startswith(b"HTTP/1."):
        return head + b"\r\n\r\n"
    lines = (
        line for line in _LINE_END.split(head) if line.partition(b":")[0].strip().lower() not in _OF_THE_CONNECTION
    )
    return b"\r\n".join((*lines, b"Connection: close", b"", b""))
