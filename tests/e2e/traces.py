"""What runs leave on this machine: processes, cgroups and run folders, read from outside of the plugins.

Other sandboxes may be running on the same machine. So only what was seen below the server is judged: its descendants,
and the names of runs that their cgroups bear.
Source: proc(5); where the runner puts things is told in sandbox/cgroups.py and sandbox/runner.py.
"""

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.run_notes import RunState, read_run_note

_SAMPLE_SECONDS = 0.05
_RUN_NAME = re.compile(r"/sandbox-lockdown/([0-9a-f]{32})\b")
_CGROUPS = Path("/sys/fs/cgroup")
_ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Process:
    """One process; a process id alone may be used again."""

    pid: int
    """Its id."""
    started: str
    """When it started, in clock ticks after boot."""


@dataclass(frozen=True, slots=True)
class _Stat:
    process: Process
    parent: int
    state: str


class Watch:
    """Looks at the server's descendants several times a second, and remembers every one, until `close`."""

    def __init__(self, server_pid: int) -> None:
        self._server_pid = server_pid
        self._seen: set[Process] = set()
        self._run_names: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()
        self._thread.join()

    def boxes(self) -> set[Process]:
        """Give the processes below the server whose box runs somebody's code now."""
        return self._boxes_that_are(RunState.RUNNING)

    def waiting_boxes(self) -> set[Process]:
        """Give the processes below the server whose box waits for code now."""
        return self._boxes_that_are(RunState.WAITING)

    def _boxes_that_are(self, state: RunState) -> set[Process]:
        notes = {name: read_run_note(_runs_folder() / name) for name in self._names_now()}
        named = {name for name, note in notes.items() if note is not None and note.state is state}
        return {process for process in _descendants(self._server_pid) if _run_names(process.pid) & named}

    def _names_now(self) -> set[str]:
        return {name for process in _descendants(self._server_pid) for name in _run_names(process.pid)}

    def run_names(self) -> set[str]:
        """Give the names of all runs seen so far."""
        with self._lock:
            return set(self._run_names)

    def left_processes(self) -> list[str]:
        """Describe each process ever seen below the server that still exists, unreaped ones included."""
        with self._lock:
            seen = set(self._seen)
        return [f"{stat.process.pid} {_command_line(stat.process.pid)}" for stat in _stats() if stat.process in seen]

    def left_cgroups(self) -> list[str]:
        """Give the cgroups of all runs seen that still exist, but for boxes that wait for code."""
        names = {name for name in self.run_names() if not _waits(name)}
        return [folder for folder, _, _ in os.walk(_CGROUPS) if Path(folder).name in names]

    def left_folders(self) -> list[str]:
        """Give the run folders of all runs seen that still exist, but for boxes that wait for code."""
        names = [name for name in self.run_names() if not _waits(name)]
        return [str(path) for name in names if (path := _runs_folder() / name).exists()]

    def _look_on(self) -> None:
        while not self._closing.wait(_SAMPLE_SECONDS):
            found = _descendants(self._server_pid)
            names = {name for process in found for name in _run_names(process.pid)}
            with self._lock:
                self._seen |= found
                self._run_names |= names


def alive(processes: set[Process]) -> set[Process]:
    """Give those that still run; a zombie does not."""
    return {stat.process for stat in _stats() if stat.process in processes and stat.state != _ZOMBIE}


def command_lines(processes: set[Process]) -> dict[Process, str]:
    """Give the command line of each process; empty where it has ended."""
    return {process: _command_line(process.pid) for process in processes}


def _runs_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache, "sandbox-lockdown", "runs")


def _waits(name: str) -> bool:
    """Whether a box is kept, or being started, by a server that lives."""
    note = read_run_note(_runs_folder() / name)
    if note is None or note.state is RunState.RUNNING:
        return False
    return Path(f"/proc/{note.caller_pid}").exists()


def _descendants(root: int) -> set[Process]:
    stats = list(_stats())
    family, found = {root}, set[Process]()
    # Parents need not come before children in /proc, so look until a whole round finds nothing new.
    while new := [stat for stat in stats if stat.parent in family and stat.process.pid not in family]:
        family |= {stat.process.pid for stat in new}
        found |= {stat.process for stat in new}
    return found


def _stats() -> Iterator[_Stat]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                yield _parsed_stat(int(folder.name), (folder / "stat").read_text(errors="replace"))


def _parsed_stat(pid: int, text: str) -> _Stat:
    # The name, second and in parentheses, may itself hold spaces and parentheses.
    state, parent, *rest = text[text.rindex(")") + 2 :].split()
    return _Stat(process=Process(pid=pid, started=rest[17]), parent=int(parent), state=state)


def _run_names(pid: int) -> set[str]:
    with contextlib.suppress(OSError):
        return set(_RUN_NAME.findall(Path(f"/proc/{pid}/cgroup").read_text()))
    return set()


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
