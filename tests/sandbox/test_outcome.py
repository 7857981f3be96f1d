"""Output is kept up to its limit whatever comes, and a result says in one sentence how the run ended."""

import json

import pytest

from sandbox.egress_account import EMPTY_EGRESS
from sandbox.outcome import MOST_STREAM_CHANGES, Chunk, KeptOutput, Outcome, RunResult


def result_of(
    outcome: Outcome, *chunks: tuple[str, bytes], exit_code: int | None = None, **changes: object
) -> RunResult:
    fields: dict[str, object] = {
        "outcome": outcome,
        "language": "python",
        "exit_code": exit_code,
        "chunks": tuple(Chunk(stream=stream, data=data) for stream, data in chunks),
        "truncated": False,
        "output_limit_kilobytes": 1,
        "runtime_limit_seconds": 30,
        "ram_limit_megabytes": 128,
        "process_limit": 64,
        "memory_limit_bytes": 170 << 20,
        "notices": ("told",),
        "unenforced": ("max_cpus",),
        "debug_allowed": False,
        "limits_digest": "d" * 64,
        "policies": (("acme", 7),),
        "gvisor": "20260810 (release)",
        "box_digest": "b" * 64,
        "pooled": False,
        "ended_by_administrator": False,
        "queue_seconds": 0.0,
        "startup_seconds": 0.25049,
        "wall_seconds": 0.0161,
        "cpu_seconds": None,
        "peak_memory_bytes": None,
        "egress": EMPTY_EGRESS,
        "code_sha256": "c" * 64,
    }
    return RunResult(**{**fields, **changes})  # type: ignore[arg-type]  # a table of fields, checked at run time


def kept(limit_bytes: int, *pieces: tuple[str, bytes]) -> KeptOutput:
    output = KeptOutput(limit_bytes=limit_bytes)
    for stream, data in pieces:
        output.add(stream, data)
    return output


def test_output_below_the_limit_is_kept_in_order_of_arrival() -> None:
    output = kept(10, ("stdout", b"abc"), ("stderr", b"de"), ("stdout", b"f"))

    assert [(chunk.stream, chunk.data) for chunk in output.chunks] == [
        ("stdout", b"abc"),
        ("stderr", b"de"),
        ("stdout", b"f"),
    ]
    assert (output.kept_bytes, output.seen_bytes) == (6, 6)


@pytest.mark.parametrize(
    ("pieces", "seen"),
    [
        pytest.param([("stdout", b"abcdef")], 6, id="one-piece"),
        pytest.param([("stdout", b"abc"), ("stderr", b"def")], 6, id="both-streams"),
        pytest.param([("stdout", b"abcd"), ("stderr", b"x"), ("stdout", b"y" * 100)], 105, id="after-the-limit"),
    ],
)
def test_the_limit_covers_both_streams_and_the_rest_is_only_counted(pieces: list[tuple[str, bytes]], seen: int) -> None:
    output = kept(4, *pieces)

    assert sum(len(chunk.data) for chunk in output.chunks) == output.kept_bytes == 4
    assert output.seen_bytes == seen


def test_a_stream_that_comes_byte_by_byte_is_one_piece() -> None:
    output = kept(1_000, *[("stdout", b"a")] * 1_000)

    assert [chunk.data for chunk in output.chunks] == [b"a" * 1_000]


def test_changing_streams_with_every_byte_costs_bounded_memory_and_loses_no_byte() -> None:
    pairs = 10 * MOST_STREAM_CHANGES
    output = kept(1 << 20, *[("stdout", b"o"), ("stderr", b"e")] * pairs)

    assert len(output.chunks) == MOST_STREAM_CHANGES
    for stream, letter in (("stdout", b"o"), ("stderr", b"e")):
        assert b"".join(chunk.data for chunk in output.chunks if chunk.stream == stream) == letter * pairs


def test_text_holds_both_streams_and_each_can_be_had_alone() -> None:
    result = result_of(Outcome.OK, ("stdout", b"a\n"), ("stderr", b"b\n"), ("stdout", b"c\n"), exit_code=0)

    assert result.output == "a\nb\nc\n"
    assert (result.stream("stdout"), result.stream("stderr")) == (b"a\nc\n", b"b\n")


def test_a_character_split_between_pieces_is_whole_although_the_other_stream_spoke_meanwhile() -> None:
    euro = "€".encode()
    result = result_of(Outcome.OK, ("stdout", euro[:1]), ("stderr", b"!"), ("stdout", euro[1:]), exit_code=0)

    assert result.output == "!€"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"\xff\xfe", "\ufffd\ufffd", id="no-utf-8"),
        pytest.param("é".encode()[:1], "\ufffd", id="cut-at-the-limit"),
        pytest.param(b"a\x00b", "a\x00b", id="NUL"),
    ],
)
def test_what_is_no_text_is_replaced_and_never_an_error(data: bytes, text: str) -> None:
    assert result_of(Outcome.OK, ("stdout", data), exit_code=0).output == text


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (result_of(Outcome.OK, exit_code=0), "Python code executed successfully."),
        (result_of(Outcome.OK, exit_code=0, language="bash"), "Bash code executed successfully."),
        (result_of(Outcome.ERROR, exit_code=3), "Python code ended with exit code 3."),
        (result_of(Outcome.ERROR, exit_code=128), "Python code ended with exit code 128."),
        (result_of(Outcome.ERROR, exit_code=139), "Python code ended with exit code 139 (signal 11)."),
        (result_of(Outcome.TIMED_OUT), "Python code was stopped after 30 seconds, its runtime limit."),
        (
            result_of(Outcome.TIMED_OUT, runtime_limit_seconds=1),
            "Python code was stopped after 1 second, its runtime limit.",
        ),
        (result_of(Outcome.OUT_OF_MEMORY), "Python code was stopped at 128 megabytes, its RAM limit."),
        (
            result_of(Outcome.OUT_OF_MEMORY, ram_limit_megabytes=None),
            "Python code was stopped because this host ran out of memory for it.",
        ),
        (
            result_of(Outcome.OUT_OF_MEMORY, peak_memory_bytes=169 << 20),
            "Python code was stopped at 128 megabytes, its RAM limit.",
        ),
        (
            result_of(Outcome.OUT_OF_MEMORY, peak_memory_bytes=140 << 20),
            "Python code was stopped because this host ran out of memory for it.",
        ),
        (
            result_of(Outcome.TOO_MANY_PROCESSES),
            "Python code was stopped at 64 processes and threads, its limit.",
        ),
        (result_of(Outcome.KILLED), "Python code was ended from outside before it was done."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sentence_tells_the_person_how_the_run_ended(result: RunResult, sentence: str) -> None:
    assert result.sentence == sentence


def test_the_record_is_json_and_holds_everything_but_the_output() -> None:
    record = result_of(Outcome.ERROR, ("stdout", b"secret"), exit_code=3, cpu_seconds=0.12345).record()

    assert record == {
        "outcome": "error",
        "surface": None,
        "language": "python",
        "code_sha256": "c" * 64,
        "exit_code": 3,
        "truncated": False,
        "notices": ["told"],
        "unenforced": ["max_cpus"],
        "network": {"decisions": [], "untold": 0, "sent_bytes": 0, "received_bytes": 0},
        "limits_digest": "d" * 64,
        "policies": [{"id": "acme", "serial": 7}],
        "policy_refusal": None,
        "gvisor": "20260810 (release)",
        "box_digest": "b" * 64,
        "pooled": False,
        "ended_by_administrator": False,
        "queue_seconds": 0.0,
        "startup_seconds": 0.25,
        "wall_seconds": 0.016,
        "cpu_seconds": 0.123,
        "peak_memory_bytes": None,
        "audit_hash": None,
    }
    assert "secret" not in json.dumps(record)
