"""A box that lies where gVisor's kernel should answer: no answer decides more than the exit code of an end, none hangs.

The lies come over the control socket, in place of the wait status; and from a `runsc` that is none.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from sandbox.control import ExitWatch, control_socket_files
from sandbox.equipment import Equipment
from sandbox.errors import StartError
from sandbox.gvisor import Runsc, RunscOrigin
from sandbox.outcome import Outcome
from sandbox.request import MAX_CODE_BYTES
from sandbox.runner import Runner
from tests.sandbox.conftest import Place, request_of
from tests.sandbox.traces import nothing_more_is_left, traces_of

ENDED = {"success": True, "err": "", "result": 0}
LONG = 1 << 16


def said(**answer: object) -> bytes:
    return json.dumps({**ENDED, **answer}).encode()


@contextmanager
def answering(state: Path, name: str, *answers: bytes, stays: bool) -> Iterator[list[bytes]]:
    """Listen where a box's control socket is, and give one who asks these answers; what was asked is kept."""
    asked: list[bytes] = []
    done = Event()

    def answer() -> None:
        with suppress(OSError), server.accept()[0] as there:
            asked.append(there.recv(1 << 12))
            for piece in answers:
                there.sendall(piece)
                time.sleep(0.005)
            if stays:
                done.wait(60)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(state / f"runsc-{name}.sock"))
        server.listen()
        thread = Thread(target=answer)
        thread.start()
        try:
            yield asked
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


async def opened(state: Path, name: str, *, listener: int = os.getpid()) -> ExitWatch | None:
    """A question to a box, of which this process is `runsc run`, and that process the only one that may answer."""
    return await ExitWatch.opened(state, name, os.getpid(), frozenset({listener}))


async def exit_code_told(state: Path, *answers: bytes, stays: bool = False, within_seconds: float = 5) -> int | None:
    name = secrets.token_hex(16)
    with answering(state, name, *answers, stays=stays):
        watch = await opened(state, name)
        assert watch is not None
        try:
            async with asyncio.timeout(within_seconds):
                return await watch.exit_code()
        finally:
            watch.close()


@pytest.mark.parametrize(
    ("status", "exit_code"), [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (11 | 128, 139), (15, 143)]
)
async def test_wait_status_is_told_as_shells_do(short_path: Path, status: int, exit_code: int) -> None:
    assert await exit_code_told(short_path, said(result=status), stays=True) == exit_code


async def test_answer_in_pieces_is_put_together(short_path: Path) -> None:
    answer = said(result=256)

    assert await exit_code_told(short_path, answer[:5], answer[5:20], answer[20:], stays=True) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"nonsense", id="no-json"),
        pytest.param(b"\xff\xfe\x00", id="no-text"),
        pytest.param(b"[]", id="a-list"),
        pytest.param(b"0", id="a-number"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="empty"),
        pytest.param(said(success=False), id="no-success"),
        pytest.param(said(success=1), id="success-is-a-number"),
        pytest.param(said(success="true"), id="success-is-a-text"),
        pytest.param(b'{"success": true}', id="no-result"),
        pytest.param(said(result=None), id="result-is-null"),
        pytest.param(said(result="0"), id="result-is-a-text"),
        pytest.param(said(result=0.0), id="result-is-a-fraction"),
        pytest.param(b'{"success": true, "result": NaN}', id="result-is-no-number"),
        pytest.param(said(result=True), id="result-is-a-truth"),
        pytest.param(said(result=-1), id="result-is-negative"),
        pytest.param(said(result=1 << 16), id="result-is-no-wait-status"),
        pytest.param(said(result=1 << 63), id="result-is-huge"),
        pytest.param(b'{"success": true, "result": ' + b"9" * 4_000 + b"}", id="result-has-4000-digits"),
        pytest.param(b'{"success": true, "result": ' + b"9" * 9_000 + b"}", id="result-has-9000-digits"),
        pytest.param(said(result=0x137F), id="stopped-is-no-end"),
        pytest.param(said(result=0xFFFF), id="continued-is-no-end"),
        pytest.param(b"[" * LONG, id="deep"),
        pytest.param(b" " * LONG, id="white-space"),
        pytest.param(b'{"success": true, "result": [' + b"0," * LONG, id="endless"),
        pytest.param(said(result=0) + said(result=256), id="two-answers"),
        pytest.param(said(result=0)[:-1], id="half-an-answer"),
    ],
)
async def test_lie_is_no_answer(short_path: Path, answer: bytes) -> None:
    assert await exit_code_told(short_path, answer) is None


@pytest.mark.parametrize("answer", [b"", b'{"succ', b'{"success": true, "result":', said(result=0)[:-1]])
async def test_half_an_answer_that_hangs_waits_for_the_deadline(short_path: Path, answer: bytes) -> None:
    with pytest.raises(TimeoutError):
        await exit_code_told(short_path, answer, stays=True, within_seconds=0.1)


async def test_stranger_at_the_control_address_is_asked_nothing(short_path: Path) -> None:
    name = secrets.token_hex(16)
    with answering(short_path, name, said(), stays=True) as asked:
        watch = await opened(short_path, name, listener=1)
        await asyncio.sleep(0.05)

    assert watch is None
    assert asked in ([], [b""])


async def test_stranger_with_an_abstract_name_like_the_boxes_is_not_believed(short_path: Path) -> None:
    name = secrets.token_hex(16)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0runsc-sandbox.{name}")
        server.listen()

        assert await opened(short_path, name, listener=1) is None


async def test_control_address_where_nobody_accepts_is_given_up(short_path: Path) -> None:
    name = secrets.token_hex(16)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(short_path / f"runsc-{name}.sock"))
        server.listen(0)
        first.connect(server.getsockname())  # the queue of those who wait to be accepted is full

        async with asyncio.timeout(3):
            assert await opened(short_path, name, listener=1) is None


def test_files_of_a_control_socket_bear_the_whole_name_of_the_box(short_path: Path) -> None:
    name = secrets.token_hex(16)

    assert {path.name for path in control_socket_files(short_path, name)} == {f"runsc-{name}.sock"}


# A `runsc` that is none, seen from the outside

LIAR = """#!{python}
import os, socket, sys, time
if "run" in sys.argv:  # starts the rest, and waits for it
    os._exit(abs(os.spawnl(os.P_WAIT, sys.executable, sys.executable, __file__, sys.argv[-1])))
server = socket.socket(socket.AF_UNIX)
server.bind("\\0runsc-sandbox." + sys.argv[-1])
server.listen()
os.write(1, b"\\0ready\\n")
{then}
time.sleep(60)
"""
TAKE_QUESTION = "there = server.accept()[0]; there.recv(4096)"
ANSWER_WITH = f"{TAKE_QUESTION}; there.sendall({{answer!r}})"
SAY_IT_ENDED = ANSWER_WITH.format(answer=said(result=0))
END_WITHOUT_A_WORD = f"{TAKE_QUESTION}; sys.stdin.buffer.read(); os._exit(0)"
SAY_READY_OFTEN = f"{TAKE_QUESTION}; os.write(1, b'\\0ready\\n' * 3)"
SAY_ENDLESSLY = f"{TAKE_QUESTION}\nwhile True: there.sendall(b'[' * 65536)"


def liar(place: Place, tmp_path: Path, then: str) -> Equipment:
    path = tmp_path / "liar"
    path.write_text(LIAR.format(python=sys.executable, then=then))
    path.chmod(0o755)
    runsc = Runsc(path=path, version="liar", origin=RunscOrigin.PREINSTALLED, released=None)
    return Equipment(runsc=runsc, tree=place.equipment.tree, cgroups=place.cgroups, folder=place.equipment.folder)


@pytest.mark.gvisor
@pytest.mark.parametrize(
    "then",
    [
        pytest.param("", id="hangs"),
        pytest.param(ANSWER_WITH.format(answer=b'{"success": tr'), id="half-an-answer"),
        pytest.param(SAY_ENDLESSLY, id="endless-answer"),
        pytest.param(f"{TAKE_QUESTION}\nfor number in range(3): os.close(number)", id="closes-everything"),
    ],
)
async def test_gvisor_that_goes_wrong_once_it_is_ready_is_ended_at_the_deadline(
    place: Place, tmp_path: Path, then: str
) -> None:
    before = traces_of(place)
    # As much code as there can be, which nobody reads.
    request = request_of("#" * MAX_CODE_BYTES, max_runtime_seconds=1, max_output_kilobytes=8)
    async with Runner(liar(place, tmp_path, then)) as runner:
        result = await asyncio.wait_for(runner.run(request), 20)

    assert result.outcome is Outcome.TIMED_OUT
    assert len(result.output) <= 8 << 10
    await nothing_more_is_left(place, before)


@pytest.mark.gvisor
async def test_gvisor_that_ends_without_an_answer_is_no_end_of_the_code(place: Place, tmp_path: Path) -> None:
    before = traces_of(place)
    async with Runner(liar(place, tmp_path, END_WITHOUT_A_WORD)) as runner:
        result = await runner.run(request_of("print(1)"))

    assert (result.outcome, result.exit_code) == (Outcome.GVISOR_FAILED, None)
    await nothing_more_is_left(place, before)


@pytest.mark.gvisor
async def test_gvisor_that_says_too_early_that_it_ended_is_ended(place: Place, tmp_path: Path) -> None:
    before = traces_of(place)
    async with Runner(liar(place, tmp_path, SAY_IT_ENDED)) as runner:
        await runner.run(request_of("print(1)"))

    await nothing_more_is_left(place, before)


@pytest.mark.gvisor
async def test_gvisor_that_says_ready_and_more_is_refused_or_its_words_are_output(place: Place, tmp_path: Path) -> None:
    before = traces_of(place)
    async with Runner(liar(place, tmp_path, SAY_READY_OFTEN)) as runner:
        try:
            result = await runner.run(request_of("print(1)", max_runtime_seconds=1))
        except StartError:
            pass
        else:
            assert result.output == "\0ready\n" * 3

    await nothing_more_is_left(place, before)
