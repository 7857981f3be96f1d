"""The audit log: one line for each run, chained by hash, so that a line edited, removed or moved is noticed.

A line is canonical JSON: keys sorted, no spaces, UTF-8. `hash` is the SHA-256 of the record without it, `previous` the
`hash` of the line before, `sequence` counts from 1, `time` is UTC. The code that ran never stands in it. Appending
takes the lock, a file beside the log that its readers cannot open, checks the last line, and leaves a whole line on
the disk, or the log as it was. A line that a crash cut short stays; the next tells its size and SHA-256 under
`after_torn`. Whoever may write the log can compute a chain anew: only a head kept elsewhere shows that.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from policy.errors import AuditError, Problem
from policy.locks import locked_file
from policy.settings import AUDIT_LOG
from policy.trusted_files import FileRule, opened_to_append

AUDIT_LINE_MAX_BYTES = 16 * 1024
"""The longest line, its line feed included; a longer record is shortened."""

AUDIT_TAIL_BYTES = 4 * AUDIT_LINE_MAX_BYTES
"""How much of the log's end is read before a line is added: a whole line, and what crashes may have left behind it."""

AUDIT_LOCK_SECONDS = 5.0
"""How long a run waits for the log's lock: a line takes milliseconds, so a neighbour who holds it longer is stuck."""

GENESIS_HASH = "0" * 64
"""What the first line of a chain names as the one before it."""

ADDED_FIELDS = frozenset({"time", "sequence", "previous", "hash", "after_torn", "shortened"})
"""What the log says itself; a record may not."""

SHORTENING_STEPS = ((1024, 64), (256, 16), (128, 4))
"""Characters of a text and items of a list that a record too long keeps, tried in turn; a SHA-256 always fits."""

AUDIT_LOG_FILE = FileRule(
    kind=AUDIT_LOG.variable,
    max_bytes=AUDIT_TAIL_BYTES,
    owner_checked=True,
    secret=False,
    error=AuditError,
)
"""A file that only root and the running user can have written; it may be read by others, such as a log shipper."""

AUDIT_LOCK_FILE = FileRule(
    kind=f"lock of {AUDIT_LOG.variable}",
    max_bytes=0,
    owner_checked=True,
    secret=True,
    error=AuditError,
)
"""The empty file that is locked in the log's stead: whoever may open a file, if only to read it, can lock it for ever.

Source: flock(2), which asks for no permission to write."""

_AUDIT_HASH = re.compile(r"[0-9a-f]{64}")
_AUDIT_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_MOVE_AWAY = "Look at it with `policy audit verify`, then move it away; the next run begins a new log"


class LineFault(Enum):
    """Why a line is no record of a run at all."""

    UNREADABLE = "it is no JSON: cut short or overwritten"
    """A crash may leave that."""
    FOREIGN = "it lacks what every line of a log has: sequence, previous, hash and time"
    """It is JSON that no log wrote."""
    TOO_LONG = f"it is longer than {AUDIT_LINE_MAX_BYTES} bytes"
    """No line of a log is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TornBytes:
    """What crashes left of lines before a line, as that line tells it."""

    size: int
    """Bytes from the end of the last whole line to the beginning of this one, line feeds included."""
    sha256: str
    """Their SHA-256, in hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What one line says of its place in the chain."""

    sequence: int
    """Which run of the chain it is, from 1."""
    previous: str
    """The hash of the line before."""
    digest: str
    """Its own hash."""
    time: str
    """When it was written."""
    after_torn: TornBytes | None
    """What crashes left before it."""
    edit: str
    """What shows that it is not as it was written, in words; empty where nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTail:
    """Where the next line goes."""

    size: int
    """The file's size in bytes."""
    sequence: int
    """Of the last whole line; 0 where there is none."""
    head: str
    """The hash of the last whole line."""
    torn: bytes
    """What crashes left behind that line, with the line feed that will end it."""
    line_feed: bytes
    """What ends the line that the file ends in: nothing, where it is ended."""


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Adds lines to one log; blocks while it writes, so an event loop calls it in a thread."""

    path: Path
    """Where it is; the file is made where it is missing, its folder is not."""
    clock: Callable[[], datetime]
    """What time it is, with an offset."""
    lock_seconds: float = AUDIT_LOCK_SECONDS
    """How long to wait for other processes."""

    def check(self) -> None:
        """Find out before a run, without a line, whether its line could be written after it.

        Raises:
            AuditError: the log cannot be opened, locked, trusted or continued, or its disk is full.
        """
        with self._locked() as descriptor:
            _audit_tail(descriptor, self.path)
            _refuse_full_disk(descriptor)

    def append(self, record: Mapping[str, Any]) -> str:
        """Write one run's line down to the disk, and return its hash: the new head of the chain.

        A record too long for a line is shortened: long texts and lists keep their beginning, and `shortened` tells
        the length of each.

        Args:
            record: what is to be said of the run, in JSON's own types; none of the log's own fields.

        Raises:
            AuditError: it was not written; the log is as it was, or ends in a line cut short that the next tells of.
            ValueError: the record is none.
        """
        if not ADDED_FIELDS.isdisjoint(record):
            raise ValueError(f"a record may not have the log's own fields {sorted(ADDED_FIELDS)}")
        with self._locked() as descriptor:
            tail = _audit_tail(descriptor, self.path)
            line, head = _chained_line(record, tail, self.clock(), self.path)
            _append_whole(descriptor, tail.line_feed + line, tail.size)
        return head

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The log's descriptor, while no other process adds a line."""
        while True:
            with opened_to_append(self.path, AUDIT_LOG_FILE) as (_, place):
                pass  # only its real path is wanted: those who name it through a link must take the same lock
            with (
                locked_file(audit_lock_path(place), AUDIT_LOCK_FILE, self.lock_seconds),
                opened_to_append(self.path, AUDIT_LOG_FILE) as (descriptor, place_now),
            ):
                if place_now == place:  # else a link was turned to another log, which has another lock
                    yield descriptor
                    return


def audit_lock_path(place: Path) -> Path:
    """Where the lock of a log is, given the log's real path."""
    return place.with_name(f"{place.name}.lock")


def read_audit_line(text: bytes) -> AuditEntry | LineFault:
    """Read one line, without its line feed, and check it by itself."""
    if len(text) >= AUDIT_LINE_MAX_BYTES:
        return LineFault.TOO_LONG
    try:
        record = json.loads(text.decode())
    except ValueError:
        return LineFault.UNREADABLE
    except RecursionError:
        return LineFault.FOREIGN
    match record:
        case {"sequence": int(sequence), "previous": str(previous), "hash": str(digest), "time": str(moment)}:
            torn = _torn_bytes(record.get("after_torn"))
            shapes = (_AUDIT_HASH.fullmatch(previous), _AUDIT_HASH.fullmatch(digest), _AUDIT_TIME.fullmatch(moment))
            if not all(shapes) or not _is_count(sequence) or ("after_torn" in record and torn is None):
                return LineFault.FOREIGN
            edit = _edit_in(text, record)
            return AuditEntry(
                sequence=sequence, previous=previous, digest=digest, time=moment, after_torn=torn, edit=edit
            )
        case _:
            return LineFault.FOREIGN


def _edit_in(text: bytes, record: Mapping[str, Any]) -> str:
    """What shows that a line was edited, in words; empty where nothing does."""
    try:
        written = _canonical_bytes(record)
        hashed = _canonical_bytes({key: value for key, value in record.items() if key != "hash"})
    except (ValueError, RecursionError):
        return "it holds what no line of a log holds"
    if hashlib.sha256(hashed).hexdigest() != record["hash"]:
        return "its hash is not that of what it says"
    return "" if written == text else "it is not written as a log writes it"


def _canonical_bytes(record: Mapping[str, Any]) -> bytes:
    """The record as lines hold it; half a surrogate pair, which UTF-8 does not know, becomes a question mark."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="replace")


def _is_count(value: int) -> bool:
    return value >= 1 and value is not True


def _torn_bytes(value: object) -> TornBytes | None:
    match value:
        case {"bytes": int(size), "sha256": str(sha256)} if _is_count(size) and _AUDIT_HASH.fullmatch(sha256):
            return TornBytes(size=size, sha256=sha256)
        case _:
            return None


def _audit_tail(descriptor: int, path: Path) -> AuditTail:
    """Find the last whole line, from the end backwards, over what crashes left; the whole log is never read.

    Raises:
        AuditError: behind that line stands what no crash leaves, or there is no such line.
    """
    size = os.fstat(descriptor).st_size
    begin = max(0, size - AUDIT_TAIL_BYTES)
    data = os.pread(descriptor, AUDIT_TAIL_BYTES, begin)
    line_feed = b"\n" if data and not data.endswith(b"\n") else b""
    end = len(data)
    while end:
        stop = end - 1 if data.endswith(b"\n", 0, end) else end
        start = data.rfind(b"\n", 0, stop) + 1
        if start == 0 and begin > 0:
            raise _audit_error(path, f"its last {AUDIT_TAIL_BYTES} bytes hold no whole line", _MOVE_AWAY)
        line = read_audit_line(data[start:stop])
        if isinstance(line, AuditEntry) and not line.edit:
            torn = data[end:] + line_feed if data[end:] else b""
            return AuditTail(size=size, sequence=line.sequence, head=line.digest, torn=torn, line_feed=line_feed)
        if line is not LineFault.UNREADABLE or not _may_be_torn(data[start:stop]):
            reason = line.edit if isinstance(line, AuditEntry) else line.value
            raise _audit_error(path, f"its end is no audit log as it was written: {reason}", _MOVE_AWAY)
        end = start
    return AuditTail(size=size, sequence=0, head=GENESIS_HASH, torn=data + line_feed, line_feed=line_feed)


def _may_be_torn(text: bytes) -> bool:
    """Whether a crash can have left this of a line: its beginning, or zeros where its bytes did not reach the disk."""
    begins = b'{"'
    return bool(text) and (text.startswith(begins) or begins.startswith(text) or not text.strip(b"\0"))


def _chained_line(record: Mapping[str, Any], tail: AuditTail, now: datetime, path: Path) -> tuple[bytes, str]:
    """The line for a record, behind this tail, and its hash.

    Raises:
        AuditError: it is too long even when it is shortened.
    """
    added: dict[str, Any] = {
        "time": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "sequence": tail.sequence + 1,
        "previous": tail.head,
    }
    if tail.torn:
        added["after_torn"] = {"bytes": len(tail.torn), "sha256": hashlib.sha256(tail.torn).hexdigest()}
    for fields in _ever_shorter(record):
        body = {**fields, **added}
        digest = hashlib.sha256(_canonical_bytes(body)).hexdigest()
        text = _canonical_bytes({**body, "hash": digest})
        if len(text) < AUDIT_LINE_MAX_BYTES:
            entry = read_audit_line(text)
            if not isinstance(entry, AuditEntry) or entry.edit:  # a key that is no text, for instance
                raise ValueError("the record cannot be read back as it is: nobody could verify that line")
            return text + b"\n", digest
    reason = f"the run's record is longer than {AUDIT_LINE_MAX_BYTES} bytes, even when it is shortened"
    raise _audit_error(path, reason, "Please report this")


def _ever_shorter(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The record, then ever shorter ones, each telling what it leaves out."""
    yield record
    for step in SHORTENING_STEPS:
        lengths: dict[str, int] = {}
        fields = {key: _shortened(value, key, step, lengths) for key, value in record.items()}
        yield {**fields, "shortened": lengths}


def _shortened(value: object, key: str, step: tuple[int, int], lengths: dict[str, int]) -> object:
    """The value with the beginnings of its texts and lists; adds how long they were, by the path of their keys."""
    characters, items = step
    match value:
        case str() if len(value) > characters:
            lengths[key] = len(value)
            return value[:characters]
        case list() | tuple():
            if len(value) > items:
                lengths[key] = len(value)
            return [_shortened(each, f"{key}.{place}", step, lengths) for place, each in enumerate(value[:items])]
        case dict():
            return {name: _shortened(each, f"{key}.{name}", step, lengths) for name, each in value.items()}
        case _:
            return value


def _append_whole(descriptor: int, data: bytes, size: int) -> None:
    """Write all of this down to the disk, or take back what was written of it."""
    with ExitStack() as undo:
        undo.callback(os.ftruncate, descriptor, size)
        while data:  # a disk that fills up takes a part, and says why only when asked again
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
        undo.pop_all()


def _refuse_full_disk(descriptor: int) -> None:
    room = os.fstatvfs(descriptor)
    free = room.f_bfree if os.geteuid() == 0 else room.f_bavail
    if room.f_blocks and free * room.f_frsize < AUDIT_LINE_MAX_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _audit_error(path: Path, reason: str, remedy: str) -> AuditError:
    return AuditError((Problem(key=AUDIT_LOG.variable, origin=str(path), reason=reason, remedy=remedy),))
