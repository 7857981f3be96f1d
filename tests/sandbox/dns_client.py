"""Writes the questions of a DNS client and reads what it is answered, by the book and not by the code it tests."""

from ipaddress import ip_address

A, AAAA, TXT = 1, 28, 16


def question(name: str, kind: int = A, *, number: int = 7, flags: int = 0x0100, klass: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".") if label)
    head = number.to_bytes(2, "big") + flags.to_bytes(2, "big") + b"\0\1" + bytes(6)
    return head + labels + b"\0" + kind.to_bytes(2, "big") + klass.to_bytes(2, "big")


def verdict(reply: bytes) -> int:
    assert reply[2] & 0x80, "an answer"
    return reply[3] & 0x0F


def addresses(reply: bytes) -> list[str]:
    """The addresses of a reply whose one question begins at its twelfth byte."""
    count, place = int.from_bytes(reply[6:8], "big"), 12
    while reply[place]:
        place += 1 + reply[place]
    place += 5
    found = []
    for _ in range(count):
        assert reply[place : place + 2] == b"\xc0\x0c"
        size = int.from_bytes(reply[place + 10 : place + 12], "big")
        found.append(str(ip_address(reply[place + 12 : place + 12 + size])))
        place += 12 + size
    assert place == len(reply)
    return found
