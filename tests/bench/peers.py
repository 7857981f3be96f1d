"""Other ways to run the same code with the same Python: bubblewrap, and the `gvisor` wheel with the same `runsc`."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.ready_box import BoxPlan
from sandbox.starters import READY
from tests.bench.latency import CODE, PRINTED
from tests.bench.measuring import Row, Skip, Whose, counted, sample_of
from tests.bench.place import BenchPlace, limits_for_bench

WHEEL_PROGRAM = Path(__file__).with_name("wheel_runs.py")
_PEER_SECONDS = 30
_DEADLINE = ("timeout", "--signal=INT", "--kill-after=10", "120")


BUBBLEWRAP_TURNS = 30
WHEEL_TURNS = 6


class NoPeerError(Exception):
    """A peer that cannot be had, or does not work here."""


def peer_rows(place: BenchPlace, bench_python: Path) -> list[Row | Skip]:
    """How long the same code takes with them.

    Args:
        place: whose file tree and `runsc` to use.
        bench_python: of the environment that the wheel is installed in.
    """
    plan = place.plan(limits_for_bench())
    rows: list[Row | Skip] = []
    for what, measured in (("bubblewrap", _bubblewrap_rows), ("gvisor wheel", _wheel_rows)):
        try:
            rows.extend(measured(plan, bench_python))
        except NoPeerError as error:
            rows.append(Skip(what=what, reason=str(error)))
    return rows


class Bubblewrap:
    """Namespaces alone, around the same file tree and the same Python."""

    def __init__(self, plan: BoxPlan) -> None:
        """Find it.

        Raises:
            NoPeerError: it is not installed, or runs nothing here.
        """
        program = shutil.which("bwrap")
        if program is None:
            raise NoPeerError("bubblewrap is not installed")
        mounts = (
            "--ro-bind",
            str(plan.equipment.tree.root),
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
        )
        walls = ("--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--setenv", "PATH", "/usr/bin")
        args: list[str] = plan.compiled.spec["process"]["args"]
        self._command = (program, *walls, *mounts, "--chdir", "/tmp", "--", *args)

    def run(self, code: bytes) -> bytes:
        """What the code printed."""
        try:
            done = subprocess.run(
                self._command, input=code, capture_output=True, check=True, env={}, timeout=_PEER_SECONDS
            )
        except subprocess.CalledProcessError as error:
            raise NoPeerError(f"bubblewrap: {error.stderr.decode(errors='replace').strip()[-200:]}") from error
        except subprocess.TimeoutExpired as error:
            raise NoPeerError(f"bubblewrap did not end within {_PEER_SECONDS} seconds") from error
        return done.stdout.removeprefix(READY)


class Wheel:
    """The `gvisor` wheel, in a process of its own, since it is installed in an environment of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self) -> tuple[float, float]:
        """Seconds until the code has ended, and until the box is closed.

        Raises:
            NoPeerError: it does not work here.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("it is started with pipes")
        stdin.write("run\n")
        stdin.flush()
        answer = stdout.readline().split()
        if len(answer) != 2 or self._process.poll() is not None:
            raise NoPeerError(f"the gvisor wheel: {_last_words(self._process)}")
        return float(answer[0]), float(answer[1])


@contextmanager
def wheel_process(python: Path, plan: BoxPlan) -> Iterator[Wheel]:
    """Start it.

    Args:
        python: of the environment that the wheel is installed in.
        plan: whose file tree and `runsc` to use.

    Raises:
        NoPeerError: there is no such environment.
    """
    if not python.exists():
        raise NoPeerError("the gvisor wheel is not installed: `make bench` does it")
    tree = plan.equipment.tree
    command = [*_DEADLINE, str(python), str(WHEEL_PROGRAM), str(tree.root), tree.python]
    pipe = subprocess.PIPE
    environment = {"RUNSC_PATH": str(plan.equipment.runsc.path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
    with process:
        yield Wheel(process)
        if process.stdin is not None:
            process.stdin.close()


def _bubblewrap_rows(plan: BoxPlan, _: Path) -> list[Row]:
    peer = Bubblewrap(plan)
    seconds = []
    for _turn in counted("bubblewrap", BUBBLEWRAP_TURNS):
        begun = time.perf_counter()
        printed = peer.run(CODE.encode())
        seconds.append(time.perf_counter() - begun)
        if printed != PRINTED.encode():
            raise NoPeerError(f"bubblewrap printed {printed[:100]!r}")
    return [Row(what="bubblewrap (no gVisor)", sample=sample_of(seconds), whose=Whose.PEER)]


def _wheel_rows(plan: BoxPlan, bench_python: Path) -> list[Row]:
    with wheel_process(bench_python, plan) as wheel:
        taken = [wheel.run() for _ in counted("The gvisor wheel", WHEEL_TURNS)]
    ended, closed = zip(*taken, strict=True)
    return [
        Row(what="gvisor wheel: create, exec", sample=sample_of(ended), whose=Whose.PEER),
        Row(what="gvisor wheel: create, exec, close", sample=sample_of(closed), whose=Whose.PEER),
    ]


def _last_words(process: subprocess.Popen[str]) -> str:
    process.terminate()
    lines = (process.stderr.read() if process.stderr else "").strip().splitlines()
    return lines[-1][-200:] if lines else "it ended without a word"
