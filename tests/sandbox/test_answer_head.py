"""A client of the plain proxy is told that its connection ends, whatever the server says; all else passes on."""

import http.client
import socket
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.answer_head import AnswerHead
from tests.sandbox.conftest import PATIENCE

BODY = b"hello\r\n\r\nworld"


def told(*reads: bytes) -> bytes:
    head = AnswerHead()
    return b"".join((*map(head.passed, reads), head.rest()))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + BODY,
            b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n" + BODY,
        ),
        (
            b"HTTP/1.1 200 OK\r\nconnection : keep-alive\r\nKeep-Alive: timeout=5\r\nA: b\r\n\r\n" + BODY,
            b"HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n" + BODY,
        ),
        (b"HTTP/1.0 204 No\n\n", b"HTTP/1.0 204 No\r\nConnection: close\r\n\r\n"),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" + BODY,
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY,
        ),
        (b"SSH-2.0-x\r\n\r\nmore", b"SSH-2.0-x\r\n\r\nmore"),
        (b"HTTP/1.1 200 OK\r\nbroken off", b"HTTP/1.1 200 OK\r\nbroken off"),
        (b"", b""),
    ],
    ids=["silent", "keeps-alive", "bare-newlines", "interim", "no-http", "broken-off", "nothing"],
)
def test_answer_says_that_the_connection_ends(answer: bytes, expected: bytes) -> None:
    assert told(answer) == expected
    assert told(*(answer[at : at + 1] for at in range(len(answer)))) == expected


def test_endless_head_passes_and_is_not_held() -> None:
    endless = b"HTTP/1.1 200 OK\r\nA: " + bytes(1 << 16)

    assert AnswerHead().passed(endless) == endless


@given(data=st.binary(), cuts=st.lists(st.integers(min_value=0, max_value=300)))
def test_any_bytes_pass_alike_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    assert told(*(data[begin:end] for begin, end in pairwise(places))) == told(data)


@given(body=st.binary(max_size=200))
def test_body_is_never_touched(body: bytes) -> None:
    answer = told(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    near, far = socket.socketpair()
    with near, far:
        far.sendall(answer)
        read = http.client.HTTPResponse(near)
        read.begin()
        assert (read.read(), read.getheader("connection")) == (body, "close")
        read.close()


def test_quadratic_time_head_that_drips_is_searched_once() -> None:
    head, begun = AnswerHead(), time.process_time()
    for _ in range(1 << 16):
        head.passed(b"a")

    assert time.process_time() - begun < 2 * PATIENCE
