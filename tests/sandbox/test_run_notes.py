import json
import os
import statistics
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.run_notes import (
    RunNote,
    RunState,
    ended_by_administrator,
    mark_ended_by_administrator,
    read_run_note,
    remove_run_notes,
    run_note_path,
    unmark_ended_by_administrator,
    write_run_note,
)
from tests.sandbox.noted_runs import note_of

FULL = note_of(
    state=RunState.WAITING, person=None, surface=None, limits_digest=None, cgroup_folders=("/sys/a", "/sys/b")
)


@pytest.mark.parametrize(
    "note",
    [
        note_of(),
        FULL,
        note_of(person="naïve \x1b[31m\u202e 😀 \ud800"),
        note_of(state=RunState.STARTING, since=1.5, started=0.25),
    ],
    ids=["running", "waiting", "odd-person", "times"],
)
def test_note_reads_as_it_was_written(tmp_path: Path, note: RunNote) -> None:
    write_run_note(tmp_path, note)

    assert read_run_note(tmp_path) == note


def test_note_of_the_furthest_state_counts(tmp_path: Path) -> None:
    for state in RunState:
        write_run_note(tmp_path, note_of(state=state))

        found = read_run_note(tmp_path)
        assert found is not None
        assert found.state is state


def test_run_whose_notes_are_removed_is_never_read_to_have_gone_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[RunNote | None] = []
    unlink = Path.unlink

    def seen(path: Path) -> None:
        unlink(path)
        read.append(read_run_note(tmp_path))

    for state in RunState:
        write_run_note(tmp_path, note_of(state=state))
    monkeypatch.setattr(Path, "unlink", seen)

    remove_run_notes(tmp_path)

    assert [note.state if note else None for note in read] == [RunState.RUNNING, RunState.RUNNING, None]


def test_later_note_of_a_state_takes_the_place_of_the_earlier_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    for person in ("a", "b"):
        write_run_note(tmp_path, note_of(person=person))

    found = read_run_note(tmp_path)
    assert found is not None
    assert found.person == "b"
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_reader_never_sees_half_a_note(tmp_path: Path) -> None:
    notes = [note_of(person="a" * 30_000), note_of(person="b")]
    write_run_note(tmp_path, notes[0])
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for note in notes:
                write_run_note(tmp_path, note)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(read_run_note(tmp_path) in notes for _ in range(300))
    finally:
        done.set()
        writer.join()


def running_note(folder: Path) -> Path:
    return run_note_path(folder, RunState.RUNNING)


def said(**changes: Any) -> str:  # noqa: ANN401 -- JSON
    return json.dumps({**asdict(FULL), "state": "running", **changes})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut"),
        pytest.param("[]", id="list"),
        pytest.param("null", id="null"),
        pytest.param("{}", id="nothing-said"),
        pytest.param("[" * 60_000, id="deep"),
        pytest.param("1" * 60_000, id="long-number"),
        pytest.param(f"{said()}{' ' * 70_000}", id="too-long"),
        pytest.param(said(state="resting"), id="state"),
        pytest.param(said(state=["running"]), id="state-list"),
        pytest.param(said(language=None), id="language"),
        pytest.param(said(person=7), id="person"),
        pytest.param(said(caller_pid=True), id="caller-bool"),
        pytest.param(said(caller_pid=0), id="caller-zero"),
        pytest.param(said(caller_pid=1.5), id="caller-fraction"),
        pytest.param(said(since="now"), id="since"),
        pytest.param(said(since=float("nan")), id="since-nan"),
        pytest.param(said(started=10**400), id="started-huge"),
        pytest.param(said(cgroup_folders="/sys"), id="folders-text"),
        pytest.param(said(cgroup_folders=[1]), id="folders-number"),
        pytest.param(said(cgroup_folders=["sys/fs"]), id="folders-relative"),
    ],
)
def test_rubbish_is_no_note(tmp_path: Path, text: str) -> None:
    running_note(tmp_path).write_text(text)

    assert read_run_note(tmp_path) is None


def test_what_is_no_file_of_bytes_is_no_note(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("absent", "link", "pipe", "folder", "bytes")]
    for place in places:
        place.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(said())
    running_note(tmp_path / "link").symlink_to(elsewhere)
    os.mkfifo(running_note(tmp_path / "pipe"))
    running_note(tmp_path / "folder").mkdir()
    running_note(tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")

    assert [read_run_note(place) for place in places] == [None] * len(places)


def test_keys_of_a_later_version_do_no_harm(tmp_path: Path) -> None:
    running_note(tmp_path).write_text(said(colour="red"))

    assert read_run_note(tmp_path) == replace(FULL, state=RunState.RUNNING)


@pytest.mark.parametrize(
    "wrong",
    [{"caller_pid": 0}, {"since": float("inf")}, {"cgroup_folders": ("here",)}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_note_that_no_caller_can_mean_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        note_of(**wrong)


def test_mark_is_seen_until_it_is_taken_back(tmp_path: Path) -> None:
    assert not ended_by_administrator(tmp_path)

    mark_ended_by_administrator(tmp_path)
    mark_ended_by_administrator(tmp_path)
    assert ended_by_administrator(tmp_path)

    unmark_ended_by_administrator(tmp_path)
    unmark_ended_by_administrator(tmp_path)
    assert not ended_by_administrator(tmp_path)


def test_mark_in_a_folder_that_is_gone_is_an_error_and_is_not_seen(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mark_ended_by_administrator(tmp_path / "gone")

    assert not ended_by_administrator(tmp_path / "gone")


def test_writing_a_note_takes_no_time_to_speak_of(tmp_path: Path) -> None:
    note = note_of(cgroup_folders=tuple(f"/sys/fs/cgroup/{name}/{'x' * 100}" for name in ("memory", "cpu", "pids")))
    took = []
    for number in range(200):
        folder = tmp_path / str(number)
        folder.mkdir()
        begun = time.perf_counter()
        write_run_note(folder, note)
        took.append(time.perf_counter() - begun)

    assert statistics.median(took) < 0.005  # measured: 0.1 ms
