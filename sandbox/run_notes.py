"""What a run's folder says of the run, for `sandbox ps` and `sandbox kill`: a note, and the mark of an end by hand.

Whoever holds the folder's lease writes the note, whole or not at all; it decides nothing. Whoever reads it takes it for
untrusted text of this shape, and for nothing where it is not. Each state has a file of its own, the furthest counts:
a rename over an older file would have ext4 write it out (measured: 0.18 ms in place of 0.02). The mark is made before a
box is ended by hand, so that the caller can tell that end from any other.
Source: ext4(5), `auto_da_alloc`.
"""

import json
import math
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

ADMINISTRATOR_MARK_NAME = "ended-by-administrator"
_MOST_NOTE_BYTES = 1 << 16
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class RunState(Enum):
    """How far a run has come, in this order; none goes back."""

    STARTING = "starting"
    """Its box is being started."""
    WAITING = "waiting"
    """Its box waits, in a pool, for code."""
    RUNNING = "running"
    """Its box has the person's code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNote:
    """What the caller says of one run."""

    state: RunState
    """How far it has come."""
    language: str
    """`python` or `bash`."""
    person: str | None
    """Whose run it is; absent while it is nobody's."""
    surface: str | None
    """`tool` or `function`; absent where it came from neither."""
    limits_digest: str | None
    """Digest of the effective limits; absent while nobody's limits hold."""
    box_digest: str
    """Digest of what the box was made of."""
    caller_pid: int
    """The process that holds the lease, as it sees itself."""
    since: float
    """When it came into this state, in seconds since 1970."""
    started: float
    """When the run began, in seconds since 1970."""
    cgroup_folders: tuple[str, ...] = ()
    """The run's own cgroup in each hierarchy used, as absolute paths; none where there is none."""

    def __post_init__(self) -> None:
        """Refuse what no caller can mean."""
        if self.caller_pid < 1:
            raise ValueError("caller_pid is no process")
        if not (math.isfinite(self.since) and math.isfinite(self.started)):
            raise ValueError("since and started are seconds since 1970")
        if not all(folder.startswith("/") for folder in self.cgroup_folders):
            raise ValueError("cgroup_folders are absolute paths")


def write_run_note(folder: Path, note: RunNote) -> None:
    """Write the note into a run's folder in one step; for the one caller that holds its lease.

    Raises:
        OSError: it cannot be written.
    """
    said = {
        "state": note.state.value,
        "language": note.language,
        "person": note.person,
        "surface": note.surface,
        "limits_digest": note.limits_digest,
        "box_digest": note.box_digest,
        "caller_pid": note.caller_pid,
        "since": note.since,
        "started": note.started,
        "cgroup_folders": note.cgroup_folders,
    }
    path = run_note_path(folder, note.state)
    unfinished = path.with_suffix(".new")
    # Not flushed to disk: the note means nothing any more once the caller is dead.
    with os.fdopen(os.open(unfinished, _NEW_FILE_FLAGS, 0o600), "wb") as file:
        file.write(json.dumps(said).encode())
    unfinished.rename(path)


def remove_run_notes(folder: Path) -> None:
    """Remove the notes of a run that has ended: the furthest last, so that nobody reads that it went back."""
    for state in RunState:
        with suppress(OSError):
            run_note_path(folder, state).unlink()


def read_run_note(folder: Path) -> RunNote | None:
    """Read the note of a run; `None` where there is none, or something else in its place."""
    for state in reversed(RunState):
        with suppress(OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return _parsed_run_note(json.loads(_run_note_bytes(run_note_path(folder, state))))
    return None


def run_note_path(folder: Path, state: RunState) -> Path:
    """Where the note of one state is in a run's folder."""
    return folder / f"note-{state.value}.json"


def mark_ended_by_administrator(folder: Path) -> None:
    """Mark a run as ended by hand, before it is.

    Raises:
        OSError: the folder is gone, or the mark cannot be made.
    """
    os.close(os.open(folder / ADMINISTRATOR_MARK_NAME, _NEW_FILE_FLAGS, 0o600))


def unmark_ended_by_administrator(folder: Path) -> None:
    """Take the mark back, where the run was not ended after all."""
    with suppress(OSError):
        (folder / ADMINISTRATOR_MARK_NAME).unlink()


def ended_by_administrator(folder: Path) -> bool:
    """Whether somebody ended, or is about to end, this run by hand."""
    with suppress(OSError):
        return stat.S_ISREG((folder / ADMINISTRATOR_MARK_NAME).lstat().st_mode)
    return False


def _run_note_bytes(path: Path) -> bytes:
    descriptor = os.open(path, _READ_FILE_FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(_MOST_NOTE_BYTES + 1)
    if len(data) > _MOST_NOTE_BYTES:
        raise ValueError("it is too long")
    return data


def _parsed_run_note(said: dict[str, Any]) -> RunNote:
    """The note that JSON says.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it says none.
    """
    return RunNote(
        state=RunState(said["state"]),
        language=_noted_text(said["language"]),
        person=_noted_text_or_none(said["person"]),
        surface=_noted_text_or_none(said["surface"]),
        limits_digest=_noted_text_or_none(said["limits_digest"]),
        box_digest=_noted_text(said["box_digest"]),
        caller_pid=_noted_process(said["caller_pid"]),
        since=_noted_seconds(said["since"]),
        started=_noted_seconds(said["started"]),
        cgroup_folders=_noted_folders(said["cgroup_folders"]),
    )


def _noted_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("it is no text")
    return value


def _noted_text_or_none(value: object) -> str | None:
    return None if value is None else _noted_text(value)


def _noted_process(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("it is no process")
    return value


def _noted_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("it is no time")
    return float(value)


def _noted_folders(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("it is no list")
    return tuple(map(_noted_text, value))
