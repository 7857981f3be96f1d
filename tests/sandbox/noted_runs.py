"""Runs for the tests of `sandbox ps` and `sandbox kill`: leases held by the test, notes, and processes as stand-ins."""

import asyncio
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.cgroup_discovery import find_cgroup_parent
from sandbox.cgroups import CgroupParent, RunCgroup, make_cgroup
from sandbox.leases import leased_folder
from sandbox.run_notes import RunNote, RunState, write_run_note
from tests.sandbox.conftest import NO_LIMITS

RUN = "0123456789abcdef" * 2
OTHER_RUN = "fedcba9876543210" * 2
THIRD_RUN = "0123ffffffffffff" * 2
BUSY_FOR_A_MOMENT = "n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done"


def note_of(**said: Any) -> RunNote:  # noqa: ANN401 -- fields of a note
    """A note of a run under way, but for what is said of it."""
    now = time.time()
    usual = {
        "state": RunState.RUNNING,
        "language": "python",
        "person": "4f1c0d5e",
        "surface": "tool",
        "limits_digest": "ab" * 32,
        "box_digest": "cd" * 32,
        "caller_pid": 4242,
        "since": now,
        "started": now,
    }
    return RunNote(**{**usual, **said})


@contextmanager
def noted_run(runs: Path, name: str = RUN, **said: Any) -> Iterator[Path]:  # noqa: ANN401 -- as above
    """A run whose caller is this test, for as long as the context lasts; its folder stays."""
    with leased_folder(runs, name) as folder:
        write_run_note(folder, note_of(**said))
        yield folder


def abandoned_run(runs: Path, name: str = RUN, **said: Any) -> Path:  # noqa: ANN401 -- as above
    """A run of which nobody holds the lease any more."""
    with noted_run(runs, name, **said) as folder:
        return folder


@contextmanager
def own_cgroup_parent() -> Iterator[CgroupParent]:
    """Where only this test makes cgroups; gone at its end with all that is in it."""
    found = find_cgroup_parent()
    if not isinstance(found, CgroupParent):
        pytest.skip(f"no cgroup can be made here: {found.reason}")
    own = make_cgroup(found, secrets.token_hex(16), NO_LIMITS)
    inside = CgroupParent(places=own.places, missing=())
    try:
        yield inside
    finally:
        for run in (*inside.existing_runs(), own):
            asyncio.run(run.kill())
            asyncio.run(run.remove())


@contextmanager
def stand_in(*arguments: str, cgroup: RunCgroup | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with these words as its command line, which waits; born in a cgroup where one is given."""
    joined = [str(path) for path in cgroup.procs_files] if cgroup else []
    joining = "".join(f"echo $$ > {path}; " for path in joined)
    command: Sequence[str] = [arguments[0], "-c", f"{joining}{BUSY_FOR_A_MOMENT}; echo up; read line", *arguments[1:]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, executable="/bin/sh", stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield process
        finally:
            process.kill()


@contextmanager
def run_in_cgroup(runs: Path, parent: CgroupParent, name: str = RUN, **said: Any) -> Iterator[Path]:  # noqa: ANN401
    """A run with a waiting process in a cgroup of its own, which its note names."""
    cgroup = make_cgroup(parent, name, NO_LIMITS)
    folders = tuple(str(place.folder) for place in cgroup.places)
    with noted_run(runs, name, cgroup_folders=folders, **said) as folder, stand_in("box", cgroup=cgroup):
        yield folder
