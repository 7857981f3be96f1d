"""The reference: `runsc run` as somebody would write it by hand, with the very spec, tree, flags and cgroup limits.

Folder and cgroups are made and removed around it, off the clock or on it, as whoever measures wants to have it.
"""

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.cgroups import RunCgroup, make_cgroup
from sandbox.control import control_socket_files
from sandbox.ready_box import BoxPlan
from sandbox.starters import READY
from tests.bench.place import BenchPlace

BOX_SECONDS = 60.0
"""A box that takes longer than this hangs."""
_REMOVAL_SECONDS = 5.0
_JOIN_AND_BECOME = 'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything that one `runsc run` needs."""

    command: tuple[str, ...]
    """The whole command line."""
    cgroup: RunCgroup
    """Which its first process joins."""


@contextmanager
def bundle_by_hand(place: BenchPlace, plan: BoxPlan) -> Iterator[Bundle]:
    """Make what a box of this plan needs, and remove it."""
    name = secrets.token_hex(16)
    folder, state = place.folder / name, place.folder / name / "state"
    state.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(plan.compiled.spec))
    cgroup = make_cgroup(place.cgroups, name, plan.cgroup_limits)
    runsc = plan.equipment.runsc
    run = (str(runsc.path), *runsc.arguments, *plan.compiled.runsc_flags, "--ignore-cgroups", f"--root={state}", "run")
    joining = ("/bin/sh", "-c", _JOIN_AND_BECOME, "sh", *map(str, cgroup.procs_files), "--")
    try:
        yield Bundle(command=(*joining, *run, f"--bundle={folder}", name), cgroup=cgroup)
    finally:
        _removed(cgroup)
        for left in control_socket_files(state, name):
            left.unlink(missing_ok=True)
        shutil.rmtree(folder)


def run_by_hand(bundle: Bundle, code: bytes) -> bytes:
    """Run code in a fresh box, from the start of the process to its end; what it printed.

    Raises:
        RuntimeError: it did not come to a good end.
    """
    done = subprocess.run(
        bundle.command, input=code, capture_output=True, check=False, env={}, cwd="/", timeout=BOX_SECONDS
    )
    if done.returncode or not done.stdout.startswith(READY):
        raise RuntimeError(f"runsc by hand ended with {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}")
    return done.stdout.removeprefix(READY)


class WaitingByHand:
    """A box whose interpreter waits for code."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def served(self, code: bytes) -> tuple[float, float]:
        """Hand code over that prints a line; seconds until that line is here, and until the box has ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("it is started with pipes")
        begun = time.perf_counter()
        stdin.write(code)
        stdin.close()
        line = stdout.readline()
        told = time.perf_counter() - begun
        self._process.wait(BOX_SECONDS)
        ended = time.perf_counter() - begun
        if self._process.returncode or not line.endswith(b"\n"):
            raise RuntimeError(f"the box by hand ended with {self._process.returncode} and said {line[:100]!r}")
        return told, ended


@contextmanager
def waiting_by_hand(bundle: Bundle) -> Iterator[WaitingByHand]:
    """Start a box, and have its interpreter wait until the context ends."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(bundle.command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env={}, cwd="/")
    with process:
        try:
            if process.stdout is None or process.stdout.read(len(READY)) != READY:
                raise RuntimeError("the box by hand did not come up")
            yield WaitingByHand(process)
        finally:
            bundle.cgroup.kill_once()


def _removed(cgroup: RunCgroup) -> None:
    """End what is left in cgroups and remove them."""
    deadline = time.monotonic() + _REMOVAL_SECONDS
    while cgroup.kill_once() or cgroup.remove_once():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the cgroups of {cgroup.run_name} cannot be removed")
        time.sleep(0.002)


def memory_bytes(cgroup: RunCgroup) -> int:
    """What all processes of a cgroup have, pages shared with others in part. Source: proc(5), `Pss`."""
    return sum(_proportional_bytes(process) for process in cgroup.processes())


def _proportional_bytes(process_id: int) -> int:
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
