"""The audit log: what a line is, that it is whole or absent whatever happens, and one chain of many writers."""

import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.audit import (
    ADDED_FIELDS,
    AUDIT_LINE_MAX_BYTES,
    AUDIT_TAIL_BYTES,
    GENESIS_HASH,
    AuditEntry,
    AuditLog,
    LineFault,
    audit_lock_path,
    read_audit_line,
)
from policy.audit_chain import AuditFinding, ChainCheck, FindingKind
from policy.errors import AuditError

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and give files away")
LOCK_KEY = "lock of SANDBOX_AUDIT_LOG"
STRANGER = 12345
RECORD = {"user": "4f1c", "surface": "tool", "outcome": "ok", "code_sha256": "a" * 64, "unenforced": []}
LONG = {**RECORD, "notices": ["é" * 5_000]}
"""A line of several pages of a disk."""
WRITER = """
import signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
from policy.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), lambda: datetime.now(UTC))
"""


def noon() -> datetime:
    return datetime(2026, 11, 1, 12, 0, 0, 987654, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    before = os.umask(0o022)
    yield tmp_path / "audit.jsonl"
    os.umask(before)


@pytest.fixture
def log(path: Path) -> AuditLog:
    return AuditLog(path, noon, lock_seconds=0.2)


def open_descriptors() -> set[int]:
    return {int(each.name) for each in Path("/proc/self/fd").iterdir()}


def links_to(descriptor: int, path: Path) -> bool:
    link = Path(f"/proc/self/fd/{descriptor}")
    return link.is_symlink() and link.readlink() == path


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    before = path.read_bytes() if path.exists() else b""
    yield
    assert path.read_bytes() == before


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A real file system of that size."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder], check=True)  # noqa: S607
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S607


def fill(path: Path) -> None:
    """Take all that is left of a file system."""
    with path.open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(b"x" * 4096):
            pass


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def writer(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER + script, *map(str, arguments)]
    return subprocess.Popen(command)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def findings(data: bytes) -> list[AuditFinding]:
    chain = ChainCheck()
    for line in data.splitlines(keepends=True) if data.isascii() else (each + b"\n" for each in data.split(b"\n")[:-1]):
        chain.take(line)
    chain.end()
    return chain.findings


def kinds(data: bytes) -> list[FindingKind]:
    return [finding.kind for finding in findings(data)]


# What a line is


def test_line_is_canonical_json_and_names_the_hash_of_the_line_before(log: AuditLog, path: Path) -> None:
    first = log.append({"user": "Zoë", "outcome": "ok"})
    log.append({"user": "Zoë", "outcome": "error"})

    body = '"outcome":"ok","previous":"' + "0" * 64 + '","sequence":1,"time":"2026-11-01T12:00:00.987Z","user":"Zoë"}'
    assert first == hashlib.sha256(f"{{{body}".encode()).hexdigest()
    lines = path.read_text().split("\n")
    assert lines[0] == f'{{"hash":"{first}",{body}'
    assert (json.loads(lines[1])["previous"], json.loads(lines[1])["sequence"]) == (first, 2)
    assert lines[2:] == [""]


def test_time_is_utc_whatever_the_clock_shows(path: Path) -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    AuditLog(path, lambda: datetime(2026, 11, 1, 1, 0, tzinfo=there)).append(RECORD)

    assert records(path)[0]["time"] == "2026-10-31T19:30:00.000Z"


def test_new_log_is_for_its_owner_alone(log: AuditLog, path: Path) -> None:
    os.umask(0)
    log.append(RECORD)

    assert path.stat().st_mode & 0o7777 == 0o600


def test_mode_that_lets_others_read_stays(log: AuditLog, path: Path) -> None:
    path.touch(0o640)
    log.append(RECORD)

    assert path.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("field", sorted(ADDED_FIELDS))
def test_record_cannot_forge_the_fields_of_the_log(log: AuditLog, path: Path, field: str) -> None:
    with pytest.raises(ValueError, match="own fields"):
        log.append({**RECORD, field: 1})
    assert not path.exists()


@pytest.mark.parametrize(
    "odd",
    [{"seconds": float("nan")}, {"seconds": float("inf")}, {"by_id": {10: 1, 9: 2}}, {"pid": 10**5_000}],
    ids=["nan", "infinity", "keys that are numbers", "number too long to read back"],
)
def test_record_that_could_not_be_read_back_is_not_written(log: AuditLog, path: Path, odd: dict[str, Any]) -> None:
    log.append(RECORD)
    with unchanged(path), pytest.raises(ValueError, match=r".{8}"):
        log.append({**RECORD, **odd})


def test_line_ends_in_a_text_do_not_end_the_line(log: AuditLog, path: Path) -> None:
    log.append({"user": 'a\nb\r\u2028\u0085"}\n{"hash":"'})

    assert path.read_bytes().count(b"\n") == 1
    assert findings(path.read_bytes()) == []


def test_half_a_surrogate_pair_does_not_keep_a_run_out_of_the_log(log: AuditLog, path: Path) -> None:
    log.append({"user": "a\ud800b"})

    assert records(path)[0]["user"] == "a?b"
    assert findings(path.read_bytes()) == []


def test_record_too_long_is_shortened_and_tells_so(log: AuditLog, path: Path) -> None:
    groups = [f"group-{number:04}" for number in range(5_000)]
    log.append({**RECORD, "who": {"groups": groups, "name": "x" * 100_000}, "policies": [{"id": "y" * 2_000}]})

    (record,) = records(path)
    assert record["who"]["groups"] == groups[:64]
    assert record["who"]["name"] == "x" * 1024
    assert record["shortened"] == {"who.groups": 5_000, "who.name": 100_000, "policies.0.id": 2_000}
    assert record["code_sha256"] == RECORD["code_sha256"]
    assert findings(path.read_bytes()) == []


def test_shortening_goes_on_until_the_line_fits(log: AuditLog, path: Path) -> None:
    log.append({**RECORD, "notices": [["\x00" * 1_000] * 100] * 100})

    assert len(path.read_bytes()) <= AUDIT_LINE_MAX_BYTES
    assert records(path)[0]["shortened"]["notices"] == 100


def test_record_that_cannot_be_shortened_is_refused(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    with unchanged(path), pytest.raises(AuditError, match="longer than 16384 bytes, even when it is shortened"):
        log.append({f"key-{number}": number for number in range(5_000)})


@pytest.mark.parametrize("extra", [0, 1])
def test_length_of_a_line_is_bounded_exactly(log: AuditLog, path: Path, extra: int) -> None:
    log.append({"text": ""})
    log.append({"text": "x" * (AUDIT_LINE_MAX_BYTES - path.stat().st_size + extra)})

    line = path.read_bytes().splitlines(keepends=True)[1]
    assert (len(line) == AUDIT_LINE_MAX_BYTES) == (not extra)
    assert ("shortened" in json.loads(line)) == bool(extra)


# Who else could write it


def refused(log: AuditLog, words: str, key: str = "SANDBOX_AUDIT_LOG") -> None:
    """Both before a run and after it."""
    with pytest.raises(AuditError, match=words) as before:
        log.check()
    with pytest.raises(AuditError, match=words):
        log.append(RECORD)
    assert {problem.key for problem in before.value.problems} == {key}


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_log_that_others_may_write_is_refused(log: AuditLog, path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)
    with unchanged(path):
        refused(log, "others than its owner may write it")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_log_that_others_may_swap_is_refused(log: AuditLog, path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    refused(log, "others than its owner may write its folder")
    assert not path.exists()


@AS_ROOT
@pytest.mark.parametrize("whose", ["file", "folder"])
def test_log_of_a_stranger_is_refused(log: AuditLog, path: Path, whose: str) -> None:
    path.touch()
    os.chown(path if whose == "file" else path.parent, STRANGER, -1)
    refused(log, f"belongs to uid {STRANGER}")


def test_folder_pipe_and_device_are_no_logs(log: AuditLog, path: Path) -> None:
    path.mkdir()
    refused(log, "it is a folder")
    path.rmdir()
    os.mkfifo(path)
    refused(log, "pipe, a socket or a device")
    refused(AuditLog(Path("/dev/null"), noon), "may write it|pipe, a socket or a device")


def test_missing_folder_is_refused_and_not_made(path: Path) -> None:
    refused(AuditLog(path / "audit.jsonl", noon), "its folder does not exist")
    assert not path.exists()


def test_link_of_our_own_is_followed_and_its_target_made(log: AuditLog, path: Path) -> None:
    path.symlink_to("real.jsonl")
    log.append(RECORD)
    log.append(RECORD)

    assert path.is_symlink()
    assert len(records(path.with_name("real.jsonl"))) == 2


def test_planted_link_is_not_followed(tmp_path: Path, path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "audit.jsonl").symlink_to(path)
    shared.chmod(0o1777)
    refused(AuditLog(shared / "audit.jsonl", noon), "others than its owner may write its folder")
    assert not path.exists()


# Rotation and locks


def test_rotated_log_is_left_alone_and_a_new_chain_begins(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    old = path.rename(path.with_name("audit.jsonl.1"))
    log.append(RECORD)

    assert [record["sequence"] for record in records(old)] == [1]
    assert [(record["sequence"], record["previous"]) for record in records(path)] == [(1, GENESIS_HASH)]


def test_log_rotated_while_waiting_for_its_lock_is_opened_anew(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    with audit_lock_path(path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = writer("log.append({})", path)
        time.sleep(1)
        old = path.rename(path.with_name("audit.jsonl.1"))
    assert waiting.wait(20) == 0

    assert len(records(old)) == 1
    assert [record["previous"] for record in records(path)] == [GENESIS_HASH]


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX], ids=["shared", "exclusive"])
def test_reader_who_locks_the_log_keeps_no_line_out(log: AuditLog, path: Path, kind: int) -> None:
    path.touch(0o644)
    with path.open("rb") as held:
        fcntl.flock(held, kind)
        log.check()
        log.append(RECORD)

    assert len(records(path)) == 1


def test_reader_of_the_log_cannot_open_its_lock(log: AuditLog, path: Path) -> None:
    os.umask(0)
    path.touch(0o644)
    log.append(RECORD)

    assert audit_lock_path(path) == path.with_name("audit.jsonl.lock")
    assert audit_lock_path(path).stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644])
def test_lock_that_others_may_open_is_refused(log: AuditLog, path: Path, mode: int) -> None:
    audit_lock_path(path).touch()
    audit_lock_path(path).chmod(mode)
    refused(log, rf"audit\.jsonl\.lock.*others than its owner may use it \(mode {mode:04o}\)", LOCK_KEY)
    assert path.read_bytes() == b""


def test_process_that_holds_the_lock_cannot_hang_a_run(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    with audit_lock_path(path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        began = time.monotonic()
        refused(log, r"audit\.jsonl\.lock.*another process has held its lock for 0\.2 seconds", LOCK_KEY)
        assert time.monotonic() - began < 10
    log.append(RECORD)


def test_log_that_is_refused_gets_no_lock(log: AuditLog, path: Path) -> None:
    path.mkdir()
    refused(log, "it is a folder")

    assert not audit_lock_path(path).exists()


def test_log_named_through_a_link_has_the_same_lock(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    other = path.with_name("other")
    other.mkdir()
    (other / "linked.jsonl").symlink_to(path)
    with audit_lock_path(path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(AuditLog(other / "linked.jsonl", noon, lock_seconds=0.2), r"audit\.jsonl\.lock", LOCK_KEY)


def test_link_turned_to_another_log_while_waiting_is_followed_with_its_lock(log: AuditLog, path: Path) -> None:
    link, other = path.with_name("link.jsonl"), path.with_name("other.jsonl")
    log.append(RECORD)
    link.symlink_to(path)
    with audit_lock_path(path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = writer("log.append({})", link)
        time.sleep(1)
        link.unlink()
        link.symlink_to(other)
    assert waiting.wait(20) == 0

    assert (len(records(path)), len(records(other))) == (1, 1)
    assert audit_lock_path(other).exists()


def test_lock_is_released_although_a_child_still_has_the_descriptor(path: Path) -> None:
    kept: list[int] = []

    def clock() -> datetime:
        """Do while the lock is held what a fork does: have its open file a second time."""
        kept.extend(os.dup(number) for number in open_descriptors() if links_to(number, audit_lock_path(path)))
        return noon()

    AuditLog(path, clock).append(RECORD)
    try:
        assert kept
        AuditLog(path, noon, lock_seconds=0.2).append(RECORD)
    finally:
        for descriptor in kept:
            os.close(descriptor)


def test_no_descriptor_is_left_open(log: AuditLog, path: Path) -> None:
    before = open_descriptors()
    log.append(RECORD)
    log.check()
    path.write_bytes(b"garbage\n")
    refused(log, "no audit log")

    assert open_descriptors() == before


def test_eight_processes_at_once_make_one_unbroken_chain(path: Path) -> None:
    script = "for number in range(25):\n    log.append({'writer': sys.argv[2], 'number': number})"
    writers = [writer(script, path, name) for name in range(8)]
    assert [each.wait(60) for each in writers] == [0] * 8

    assert findings(path.read_bytes()) == []
    assert [record["sequence"] for record in records(path)] == list(range(1, 201))
    for name in range(8):
        mine = [record["number"] for record in records(path) if record["writer"] == str(name)]
        assert mine == list(range(25))


# Before a run


def test_check_leaves_no_line(log: AuditLog, path: Path) -> None:
    log.check()
    assert path.read_bytes() == b""
    log.append(RECORD)
    with unchanged(path):
        log.check()


def test_check_without_permission_to_write_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    script = "import os\nos.seteuid(12345)\nlog.check()"
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    told = subprocess.run(
        [sys.executable, "-c", WRITER + script, folder / "audit.jsonl"], capture_output=True, text=True, check=False
    )
    assert "AuditError" in told.stderr
    assert "may not open it" in told.stderr


# A full disk


@AS_ROOT
def test_full_disk_takes_no_part_of_a_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "128k") as disk:
        path = disk / "audit.jsonl"
        log = AuditLog(path, noon)
        log.append(RECORD)
        fill(disk / "filler")
        room = 4096 - path.stat().st_size
        assert room > 0  # so that the disk takes a part of the line before it refuses
        with unchanged(path):
            with pytest.raises(AuditError, match="the disk is full; nothing was changed"):
                log.append(LONG)
            with pytest.raises(AuditError, match="the disk is full"):
                log.check()
        (disk / "filler").unlink()
        log.check()
        log.append(LONG)
        assert findings(path.read_bytes()) == []


@pytest.mark.parametrize("room", [0, 1, 100])
def test_limit_on_the_size_of_files_takes_no_part_of_a_line(log: AuditLog, path: Path, room: int) -> None:
    log.append(RECORD)
    limited, words = files_limited_to(path.stat().st_size + room), "no file of that size; nothing was changed"
    with unchanged(path), limited, pytest.raises(AuditError, match=words):
        log.append(RECORD)
    log.append(RECORD)

    assert findings(path.read_bytes()) == []


# What a crash leaves


def test_line_torn_anywhere_stays_and_the_next_one_tells_of_it(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    whole = path.read_bytes()
    log.append(RECORD)
    second = path.read_bytes()[len(whole) : -1]
    for length in range(1, len(second)):
        torn = second[:length]
        path.write_bytes(whole + torn)
        log.append(RECORD)

        data = path.read_bytes()
        assert data.startswith(whole + torn + b"\n")
        told = json.loads(data.split(b"\n")[2])
        assert told["after_torn"] == {"bytes": length + 1, "sha256": hashlib.sha256(torn + b"\n").hexdigest()}
        assert (told["sequence"], told["previous"]) == (2, json.loads(whole)["hash"])
        (finding,) = findings(data)
        assert (finding.kind, finding.line, finding.last_line) == (FindingKind.TORN, 2, 2)


def test_line_that_lacks_only_its_line_feed_is_kept(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    head = log.append(RECORD)
    path.write_bytes(path.read_bytes()[:-1])
    log.append(RECORD)

    assert [record["sequence"] for record in records(path)] == [1, 2, 3]
    assert records(path)[2]["previous"] == head
    assert findings(path.read_bytes()) == []


def test_crash_while_mending_a_crash_is_mended_too(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    torn = path.read_bytes() + b'{"hash":"12'
    path.write_bytes(torn)
    log.append(RECORD)
    mended = path.read_bytes()
    for length in range(len(torn), len(mended)):
        path.write_bytes(mended[:length])
        log.append(RECORD)

        assert path.read_bytes().startswith(mended[:length])
        assert set(kinds(path.read_bytes())) == {FindingKind.TORN}
        assert records_readable(path)[-1]["previous"] in {record["hash"] for record in records_readable(path)}


def records_readable(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines if isinstance(read_audit_line(line), AuditEntry)]


def test_first_line_torn_begins_the_chain_behind_it(log: AuditLog, path: Path) -> None:
    path.write_bytes(b'{"code')
    log.append(RECORD)

    assert json.loads(path.read_bytes().split(b"\n")[1])["sequence"] == 1
    assert kinds(path.read_bytes()) == [FindingKind.TORN]


def test_zeros_that_a_power_cut_left_are_passed_over(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    path.write_bytes(path.read_bytes() + b"\0" * 700)
    log.append(RECORD)

    assert kinds(path.read_bytes()) == [FindingKind.TORN]


def test_writers_killed_at_any_moment_leave_one_chain(path: Path) -> None:
    for milliseconds in range(0, 60, 5):
        before = path.stat().st_size if path.exists() else 0
        killed = writer("while True: log.append({'notices': ['x' * 15_000]})", path)
        while not path.exists() or path.stat().st_size == before:
            time.sleep(0.001)
        time.sleep(milliseconds / 1000)
        killed.kill()
        assert killed.wait(20) == -signal.SIGKILL
    AuditLog(path, noon).append(RECORD)

    assert set(kinds(path.read_bytes())) <= {FindingKind.TORN}
    kept = records_readable(path)
    assert [record["sequence"] for record in kept] == list(range(1, len(kept) + 1))


def test_writer_that_the_kernel_ends_in_the_middle_of_a_line_leaves_it_torn_and_told(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    size = path.stat().st_size
    # Writing beyond the limit is what ends it, between the part that fitted and the clean-up.
    script = "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nlog.append({'notices': ['x' * 9_000]})"
    limited = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size + 5_000},) * 2)\n"
    core = "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    killed = writer(limited + core + script, path)
    assert killed.wait(20) == -signal.SIGXFSZ
    assert path.stat().st_size == size + 5_000

    log.check()
    log.append(RECORD)

    assert records_readable(path)[-1]["after_torn"]["bytes"] == 5_001
    assert kinds(path.read_bytes()) == [FindingKind.TORN]


# An end that no crash leaves


@pytest.mark.parametrize(
    "end",
    [
        b"\n",
        b"}\n",
        b"{}\n",
        b"[1]\n",
        b"schema = 1\n",
        b"\xff\xfe\n",
        b'{"id": "a"}',
        b"[" * 9_000,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"\n",
        b'{"' + b"x" * AUDIT_LINE_MAX_BYTES,
    ],
    ids=lambda end: ascii(end[:12]),
)
@pytest.mark.parametrize("begun", [True, False], ids=["behind a chain", "alone"])
def test_log_whose_end_is_garbage_is_not_built_upon(log: AuditLog, path: Path, end: bytes, *, begun: bool) -> None:
    if begun:
        log.append(RECORD)
    path.write_bytes((path.read_bytes() if begun else b"") + end)
    with unchanged(path):
        refused(log, "its end is no audit log as it was written")


def test_log_whose_last_line_was_edited_is_not_built_upon(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    path.write_bytes(path.read_bytes().replace(b'"outcome":"ok"', b'"outcome":"no"'))
    with unchanged(path):
        refused(log, "its hash is not that of what it says")


def test_end_without_a_whole_line_in_reach_is_not_built_upon(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    path.write_bytes(path.read_bytes() + b'{"torn\n' * (AUDIT_TAIL_BYTES // 7 + 1))
    with unchanged(path):
        refused(log, f"its last {AUDIT_TAIL_BYTES} bytes hold no whole line")


def test_only_the_end_of_a_log_is_read(log: AuditLog, path: Path) -> None:
    log.append(RECORD)
    line = path.read_bytes()
    with path.open("wb") as file:
        file.truncate(1 << 36)  # a hole that takes no room, and an hour to read
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line)
    log.append(RECORD)

    with path.open("rb") as file:
        file.seek((1 << 36) + 1 + len(line))
        assert json.loads(file.read())["sequence"] == 2


# Any record


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    many=st.lists(
        st.dictionaries(st.text(max_size=8).filter(lambda key: key not in ADDED_FIELDS), JSON, max_size=5), max_size=4
    )
)
def test_any_records_make_a_chain_that_verifies(tmp_path_factory: pytest.TempPathFactory, many: list[Any]) -> None:
    path = tmp_path_factory.mktemp("any") / "audit.jsonl"
    log = AuditLog(path, noon)
    heads = [log.append(record) for record in many]

    data = path.read_bytes() if many else b""
    assert findings(data) == []
    assert [json.loads(line)["hash"] for line in data.split(b"\n")[:-1]] == heads


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", True),
        ("sequence", 0),
        ("sequence", 1.0),
        ("sequence", "1"),
        ("previous", "0" * 63),
        ("previous", None),
        ("time", "2026-11-01"),
        ("time", "2026-11-01T12:00:00.987Z\n"),
        ("after_torn", None),
        ("after_torn", {"bytes": True, "sha256": "0" * 64}),
        ("after_torn", {"bytes": 1, "sha256": "0"}),
    ],
)
def test_line_whose_own_fields_are_odd_is_foreign_although_its_hash_is_right(field: str, value: object) -> None:
    fields = {"sequence": 1, "previous": GENESIS_HASH, "time": "2026-11-01T12:00:00.987Z"}
    assert isinstance(read_audit_line(hashed(fields)), AuditEntry)
    assert read_audit_line(hashed({**fields, field: value})) is LineFault.FOREIGN


def hashed(fields: dict[str, Any]) -> bytes:
    """A line as somebody else would make it."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return json.dumps({**fields, "hash": digest}, sort_keys=True, separators=(",", ":")).encode()


@given(text=st.binary(max_size=80) | st.text().map(str.encode))
def test_no_bytes_are_a_line_but_those_of_the_log(text: bytes) -> None:
    assert read_audit_line(text) in {LineFault.UNREADABLE, LineFault.FOREIGN}
