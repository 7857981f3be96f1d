"""`policy audit verify`: every change to a log is found and named by its line, but those it says it cannot see."""

import fcntl
import json
import os
import pty
import resource
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from policy.audit import AUDIT_LINE_MAX_BYTES, AuditLog, audit_lock_path
from policy.audit_chain import MOST_FINDINGS, ChainCheck
from policy.commands.audit import log_lines, settled_size
from tests.policy.commands.conftest import PROGRAM, Command, Ended, program

RUNS = 6
LOG = "audit.jsonl"
UNSEEN = (
    "Not to be seen {}: lines cut off its end, and a log written anew from some line on by somebody who computed the "
    "hashes too. Keep the head where they cannot write, and give it with --head.\n"
)


def written(path: Path, runs: int = RUNS) -> list[str]:
    """Write a log of so many runs, a second apart; their heads."""
    start = datetime(2026, 11, 1, 12, tzinfo=UTC)
    times = (start + timedelta(seconds=number) for number in range(runs))
    log = AuditLog(path, lambda: next(times))
    return [log.append({"outcome": "ok", "user": f"Zoë-{number}"}) for number in range(runs)]


@pytest.fixture
def heads(policy: Command) -> list[str]:
    assert policy
    return written(Path(LOG))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a log, with a torn line among them that a record tells of."""
    path = tmp_path_factory.mktemp("sample") / LOG
    written(path, 3)
    path.write_bytes(path.read_bytes() + b'{"hash":"1f')
    return path.read_bytes() + b"\n" + continued(path)


def continued(path: Path) -> bytes:
    """The lines that three more runs add."""
    before = path.stat().st_size + 1
    log = AuditLog(path, lambda: datetime(2026, 11, 2, tzinfo=UTC))
    for number in range(3):
        log.append({"outcome": "ok", "number": number})
    return path.read_bytes()[before:]


def lines_of(path: str = LOG) -> list[bytes]:
    return Path(path).read_bytes().splitlines(keepends=True)


def rewrite(*lines: bytes) -> None:
    Path(LOG).write_bytes(b"".join(lines))


def checked(data: bytes, head: str | None = None) -> ChainCheck:
    chain = ChainCheck(wanted_head=head)
    with_ends = data.split(b"\n")
    for line in [*(each + b"\n" for each in with_ends[:-1]), *filter(None, with_ends[-1:])]:
        chain.take(line)
    chain.end()
    return chain


def told(ended: Ended) -> dict[str, Any]:
    assert ended.err == ""
    shown: dict[str, Any] = json.loads(ended.out)
    return shown


def found(policy: Command) -> list[tuple[int, str]]:
    """What is wrong with the log, by line; the exit code says so too."""
    ended = policy("audit", "verify", "--json", LOG)
    shown = told(ended)
    assert ended.code == (0 if shown["intact"] else 1)
    return [(finding["line"], finding["kind"]) for finding in shown["findings"]]


# What is shown


def test_good_log_shows_its_runs_and_its_head_and_what_cannot_be_seen(policy: Command, heads: list[str]) -> None:
    assert policy.good("audit", "verify", LOG) == (
        "audit.jsonl: 6 runs, 2026-11-01T12:00:00.000Z to 2026-11-01T12:00:05.000Z.\n"
        f"Head: {heads[-1]}\n"
        "0 findings. " + UNSEEN.format("here")
    )


def test_head_that_was_kept_is_found(policy: Command, heads: list[str]) -> None:
    shown = policy.good("audit", "verify", "--head", heads[3].upper(), LOG)

    assert "The head given is line 4; 2 runs after it.\n" in shown
    assert shown.endswith("0 findings. " + UNSEEN.format("behind the head given"))


def test_programs_are_told_all_of_it(policy: Command, heads: list[str]) -> None:
    shown = told(policy("audit", "verify", "--json", "--head", heads[5], LOG))

    assert UNSEEN.startswith("Not to be seen {}")
    assert shown.pop("unseen") + ".\n" == UNSEEN.format("behind the head given")
    assert shown == {
        "file": LOG,
        "intact": True,
        "runs": RUNS,
        "first_time": "2026-11-01T12:00:00.000Z",
        "last_time": "2026-11-01T12:00:05.000Z",
        "head": heads[5],
        "head_given": heads[5],
        "head_line": 6,
        "findings": [],
        "findings_found": 0,
    }


def test_empty_log_has_no_runs(policy: Command) -> None:
    Path(LOG).touch()

    assert policy.good("audit", "verify", LOG).startswith("audit.jsonl: 0 runs.\n0 findings. Not to be seen here: ")


def test_findings_are_named_by_line_in_words(policy: Command, heads: list[str]) -> None:
    lines = lines_of()
    rewrite(lines[0], lines[1].replace(b'"ok"', b'"no"'), b"junk\n", b"more junk\n", lines[2], *lines[4:])

    ended = policy("audit", "verify", LOG)

    assert (ended.code, ended.err) == (1, "")
    assert ended.out == (
        "audit.jsonl: 5 runs, 2026-11-01T12:00:00.000Z to 2026-11-01T12:00:05.000Z.\n"
        "  line 2: edited: its hash is not that of what it says.\n"
        "  lines 3 to 4: unreadable: no record: overwritten or put in.\n"
        "  line 6: broken-chain: 1 line is missing before it: it is run 5, not 4.\n"
        f"Head: {heads[5]}\n"
        "3 findings. " + UNSEEN.format("here")
    )


def test_text_of_a_log_reaches_no_terminal(policy: Command, heads: list[str]) -> None:
    assert heads
    lines = lines_of()
    rewrite(b'{"time":"\x1b]0;owned\x07"}\n', lines[1].replace(b"2026-11-01T", b"\x1b[2J"))

    assert "\x1b" not in policy("audit", "verify", LOG).out


def test_name_of_a_log_cannot_command_a_terminal(policy: Command) -> None:
    name = "\x1b[2J.jsonl"
    Path(name).touch()

    assert "\x1b" not in policy("audit", "verify", name).out
    assert "\x1b" not in policy("audit", "verify", "--head", "\x1b[2J", name).err


# What is found


@pytest.mark.parametrize("number", range(RUNS))
def test_edited_line_is_found(policy: Command, heads: list[str], number: int) -> None:
    assert heads
    lines = lines_of()
    lines[number] = lines[number].replace(b'"outcome":"ok"', b'"outcome":"no"')
    rewrite(*lines)

    assert found(policy) == [(number + 1, "edited")]


def test_edited_line_with_its_hash_computed_anew_breaks_the_chain_behind_it(policy: Command, tmp_path: Path) -> None:
    times = [datetime(2026, 11, 1, tzinfo=UTC)] * RUNS
    for name, outcome in (("true", "error"), ("false", "ok")):
        log = AuditLog(tmp_path / name, iter(times).__next__)
        for number in range(RUNS):
            log.append({"outcome": outcome if number == 2 else "ok"})
    true, false = lines_of("true"), lines_of("false")
    rewrite(*true[:2], false[2], *true[3:])

    assert found(policy) == [(4, "broken-chain")]
    assert "which was replaced" in policy("audit", "verify", LOG).out


@pytest.mark.parametrize("first", range(RUNS - 1))
@pytest.mark.parametrize("count", [1, 2])
def test_removed_lines_are_found(policy: Command, heads: list[str], first: int, count: int) -> None:
    assert heads
    lines = lines_of()
    del lines[first : min(first + count, RUNS - 1)]
    rewrite(*lines)

    assert found(policy) == [(first + 1, "broken-chain")]
    assert "missing before it" in policy("audit", "verify", LOG).out


@pytest.mark.parametrize("number", range(RUNS))
def test_repeated_line_is_found(policy: Command, heads: list[str], number: int) -> None:
    assert heads
    lines = lines_of()
    rewrite(*lines[: number + 1], *lines[number:])

    assert found(policy) == [(number + 2, "broken-chain")]


@pytest.mark.parametrize("number", range(RUNS - 1))
def test_swapped_lines_are_found(policy: Command, heads: list[str], number: int) -> None:
    assert heads
    lines = lines_of()
    lines[number], lines[number + 1] = lines[number + 1], lines[number]
    rewrite(*lines)

    assert {(number + 1, "broken-chain"), (number + 2, "broken-chain")} <= set(found(policy))


def test_line_of_another_log_is_found(policy: Command, heads: list[str], tmp_path: Path) -> None:
    assert heads
    AuditLog(tmp_path / "other", lambda: datetime(2026, 11, 1, tzinfo=UTC)).append({"outcome": "ok"})
    rewrite(lines_of("other")[0], *lines_of()[1:])

    assert found(policy) == [(2, "broken-chain")]


def test_two_logs_joined_are_found(policy: Command, heads: list[str]) -> None:
    assert heads
    rewrite(*lines_of(), *lines_of())

    assert found(policy) == [(RUNS + 1, "broken-chain")]


@pytest.mark.parametrize("junk", [b"\n", b"junk\n", b"\xff\n", b"{}\n", b"x" * (3 * AUDIT_LINE_MAX_BYTES) + b"\n"])
def test_line_that_was_put_in_is_found(policy: Command, heads: list[str], junk: bytes) -> None:
    assert heads
    lines = lines_of()
    rewrite(*lines[:3], junk, *lines[3:])

    assert found(policy) == [(4, "unreadable")]


def test_edit_that_leaves_the_meaning_is_found(policy: Command, heads: list[str]) -> None:
    assert heads
    lines = lines_of()
    rewrite(lines[0].replace(b'"ok"', b' "ok"'), lines[1].replace("ë".encode(), b"\\u00eb"), *lines[2:])

    assert found(policy) == [(1, "edited"), (2, "edited")]


def test_torn_line_that_a_record_tells_of_is_named_as_torn(policy: Command, sample: bytes) -> None:
    rewrite(sample)

    assert found(policy) == [(4, "torn")]
    assert "cut short by a crash, as line 5 tells: the record of a run is lost" in policy("audit", "verify", LOG).out


@pytest.mark.parametrize("torn", [b"", b'{"hash":"1e\n', b'{"hash":"1\n', b'{"hash":"1f\n{"hash"\n'])
def test_torn_line_that_was_changed_or_removed_is_found(policy: Command, sample: bytes, torn: bytes) -> None:
    lines = sample.splitlines(keepends=True)
    rewrite(*lines[:3], torn, *lines[4:])

    ((line, kind),) = found(policy)
    assert (line, kind) == ((4, "unreadable") if torn else (4, "broken-chain"))


@pytest.mark.parametrize("missing", [1, 2, 100])
def test_last_line_that_was_cut_is_found(policy: Command, heads: list[str], missing: int) -> None:
    assert heads
    rewrite(Path(LOG).read_bytes()[:-missing])

    assert found(policy) == [(RUNS, "torn")]


@pytest.mark.parametrize("kept", range(RUNS))
def test_cut_tail_is_found_where_the_head_is_given(policy: Command, heads: list[str], kept: int) -> None:
    rewrite(*lines_of()[:kept])

    assert found(policy) == []
    ended = policy("audit", "verify", "--head", heads[-1], LOG)
    assert ended.code == 1
    assert ended.out.endswith("0 findings in the lines, and the head given is not among them: cut or replaced.\n")


def test_log_written_anew_is_found_where_the_head_is_given(policy: Command, heads: list[str]) -> None:
    Path(LOG).unlink()
    AuditLog(Path.cwd() / LOG, lambda: datetime(2026, 11, 1, tzinfo=UTC)).append({"outcome": "ok"})

    assert found(policy) == []
    assert policy("audit", "verify", "--head", heads[-1], LOG).code == 1


def test_head_of_an_edited_line_does_not_count(policy: Command, heads: list[str]) -> None:
    lines = lines_of()
    rewrite(*lines[:5], lines[5].replace(b'"ok"', b'"no"'))

    shown = policy("audit", "verify", "--head", heads[5], LOG).out
    assert shown.endswith("1 finding in the lines, and the head given is not among them: cut or replaced.\n")


# Any change


@given(data=st.data())
def test_any_edited_byte_is_found(sample: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(sample) - 1))
    byte = data.draw(st.integers(0, 255))
    assume(sample[place] != byte)

    assert changed(sample, sample[:place] + bytes([byte]) + sample[place + 1 :])


@given(data=st.data(), put_in=st.binary(max_size=4))
def test_any_bytes_put_in_or_taken_out_are_found(sample: bytes, data: st.DataObject, put_in: bytes) -> None:
    begin = data.draw(st.integers(0, len(sample)))
    end = data.draw(st.integers(begin, min(len(sample), begin + 4)))
    edited = sample[:begin] + put_in + sample[end:]
    assume(edited != sample)

    assert changed(sample, edited)


@given(data=st.data())
def test_any_other_choice_or_order_of_lines_is_found(sample: bytes, data: st.DataObject) -> None:
    lines = sample.splitlines(keepends=True)
    chosen = data.draw(st.lists(st.sampled_from(lines), max_size=len(lines) + 2))
    assume(chosen != lines[: len(chosen)])

    assert changed(sample, b"".join(chosen))


@given(data=st.data())
def test_any_cut_tail_is_found_with_the_head(sample: bytes, data: st.DataObject) -> None:
    cut = sample[: data.draw(st.integers(0, len(sample) - 1))]
    head = json.loads(sample.splitlines()[-1])["hash"]

    assert checked(sample, head).head_line == 7
    assert not checked(cut, head).intact


def changed(before: bytes, after: bytes) -> bool:
    """Whether more is wrong than with the log as it was, in which one torn line is told of."""
    assert [(each.line, each.kind.value) for each in checked(before).findings] == [(4, "torn")]
    return checked(after).findings != checked(before).findings


# Large, foreign and unreadable input


def test_log_without_any_line_end_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / LOG
    with path.open("wb") as file:
        file.truncate(1 << 29)
    limit = 200 << 20
    ended = program(
        "audit", "verify", str(path), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    )

    assert (ended.returncode, ended.stderr) == (1, "")
    assert "line 1: unreadable: no record" in ended.stdout


def test_findings_without_end_are_counted_and_not_kept(policy: Command, heads: list[str]) -> None:
    assert heads
    rewrite(lines_of()[0] * (MOST_FINDINGS + 6))

    ended = policy("audit", "verify", LOG)
    assert "  … and 5 more.\n" in ended.out
    assert f"{MOST_FINDINGS + 5} findings." in ended.out


def test_bytes_that_are_no_log_are_findings(policy: Command) -> None:
    rewrite(bytes(range(256)) * 300)

    assert found(policy) != []


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "missing.jsonl"],
        ["verify", "."],
        ["verify"],
        ["verify", "--head", "", LOG],
        ["verify", "--head", "12", LOG],
        ["verify", "--head", "g" * 64, LOG],
        ["verify", "--head", "\u0661" * 64, LOG],
        ["check", LOG],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage_and_unreadable_input_end_with_2(policy: Command, arguments: list[str]) -> None:
    Path(LOG).touch()
    ended = policy("audit", *arguments)

    assert (ended.code, ended.out if arguments else "") == (2, "")


def test_read_error_in_the_middle_ends_with_2(heads: list[str]) -> None:
    assert heads
    with Path(LOG).open("ab") as only_writable:
        ended = program("audit", "verify", "-", stdin=only_writable)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "it cannot be read" in ended.stderr


def test_log_can_come_through_a_pipe(policy: Command, heads: list[str]) -> None:
    assert policy
    ended = program("audit", "verify", "-", input=Path(LOG).read_text())

    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"Head: {heads[-1]}\n" in ended.stdout


@pytest.mark.parametrize("named", [LOG, "linked.jsonl", "-"])
def test_line_that_is_half_written_meanwhile_is_not_judged(policy: Command, heads: list[str], named: str) -> None:
    assert policy
    Path("linked.jsonl").symlink_to(LOG)
    with Path(LOG).open("ab", buffering=0) as writing, audit_lock_path(Path(LOG)).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writing.write(b'{"hash":"12')
        with Path(LOG).open("rb") as redirected:
            command = [PROGRAM, "audit", "verify", named]
            reading = subprocess.Popen(command, stdin=redirected, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        writing.truncate(writing.tell() - 11)
        fcntl.flock(lock, fcntl.LOCK_UN)
        out, _ = reading.communicate(timeout=30)

    assert reading.returncode == 0
    assert f"Head: {heads[-1]}\n" in out


def test_missing_lock_is_not_made_by_who_only_reads(policy: Command, heads: list[str]) -> None:
    audit_lock_path(Path(LOG)).unlink()

    assert f"Head: {heads[-1]}\n" in policy.good("audit", "verify", LOG)
    assert not audit_lock_path(Path(LOG)).exists()


@pytest.mark.parametrize("odd", ["folder", "link", "pipe"])
def test_lock_that_is_none_stops_no_reader(policy: Command, heads: list[str], odd: str) -> None:
    lock = audit_lock_path(Path(LOG))
    lock.unlink()
    match odd:
        case "folder":
            lock.mkdir()
        case "link":
            lock.symlink_to("/dev/tty")
        case _:
            os.mkfifo(lock)

    assert f"Head: {heads[-1]}\n" in policy.good("audit", "verify", LOG)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_reader_who_may_not_open_the_lock_reads_the_log(policy: Command, heads: list[str]) -> None:
    Path(LOG).chmod(0o644)
    with Path(LOG).open("rb") as log:
        os.seteuid(12345)
        try:
            with pytest.raises(PermissionError):
                audit_lock_path(Path(LOG)).open("rb")
            shown = list(log_lines(log, settled_size(log)))
        finally:
            os.seteuid(0)

    assert policy
    assert len(shown) == len(heads)


def test_no_more_is_read_than_was_settled(tmp_path: Path) -> None:
    path = tmp_path / LOG
    path.write_bytes(b"a\nbc\ndef\n")
    with path.open("rb") as file:
        assert list(log_lines(file, 5)) == [b"a\n", b"bc\n"]


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_too_long_line_is_read_in_part_and_the_next_one_whole(tmp_path: Path, extra: int) -> None:
    path = tmp_path / LOG
    long = b"x" * (AUDIT_LINE_MAX_BYTES + extra)
    path.write_bytes(long + b"\n" + long * 3 + b"\nnext\n")
    with path.open("rb") as file:
        lines = list(log_lines(file, None))

    assert lines[0] == (long + b"\n")[: AUDIT_LINE_MAX_BYTES + 1]
    assert lines[1] == (long * 2)[: AUDIT_LINE_MAX_BYTES + 1]
    assert lines[2:] == [b"next\n"]


# Progress


@pytest.fixture
def slow_pipe(heads: list[str]) -> Iterator[Path]:
    """A log that takes its time: half of it at once, the rest after three seconds."""
    assert heads
    pipe = Path("pipe")
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", f"(head -n 3 {LOG}; sleep 3; tail -n 3 {LOG}) >pipe"]):  # noqa: S607
        yield pipe


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "no terminal"])
def test_progress_is_shown_after_a_moment_on_a_terminal_only(slow_pipe: Path, *, terminal: bool) -> None:
    here, there = pty.openpty() if terminal else os.pipe()
    environ = {**os.environ, "FORCE_COLOR": "1"}  # so that it is our own doing where nothing is shown
    try:
        command = [PROGRAM, "audit", "verify", str(slow_pipe)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=there, env=environ, check=True)
        os.write(there, b".")
        shown = os.read(here, 1 << 16)
    finally:
        os.close(here)
        os.close(there)

    assert (b"Checking the log" in shown) == terminal
    assert ended.stdout.startswith(b"pipe: 6 runs")


def test_short_check_shows_no_progress(heads: list[str]) -> None:
    assert heads
    here, there = pty.openpty()
    try:
        subprocess.run([PROGRAM, "audit", "verify", LOG], stdout=subprocess.PIPE, stderr=there, check=True)
        os.write(there, b".")
        assert os.read(here, 1 << 16) == b"."
    finally:
        os.close(here)
        os.close(there)
