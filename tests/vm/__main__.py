"""Starts the virtual machine, shows each test as it ends, and says 0 only where every session passed to its end.

python -m tests.vm [--deadline SECONDS] [--output FOLDER]
"""

import argparse
import compileall
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.machine import Machine, MachineError, newest_kernel
from tests.vm.sessions import SESSIONS

REPOSITORY = Path(__file__).parents[2]
COMPILED = ("policy", "sandbox", "tests")
_SLOW_SECONDS = 5.0


@dataclass(slots=True)
class Record:
    """What the machine has reported so far."""

    started: float = field(default_factory=time.monotonic)
    """When it was started."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many tests ended in each way."""
    exit_codes: dict[str, int] = field(default_factory=dict)
    """How each session ended."""
    begun: str = ""
    """The test that began last."""
    ended: bool = False
    """Whether all sessions are over."""
    reports: list[dict[str, object]] = field(default_factory=list)
    """Everything, for the file."""

    def add(self, report: dict[str, object]) -> None:
        """Take one report, and show what a person wants to see of it."""
        self.reports.append(report)
        match report:
            case {"kind": "begun", "test": str(test)}:
                self.begun = test
            case {"kind": "prepared", "test": test, "seconds": float(seconds)} if seconds >= _SLOW_SECONDS:
                self.show(f"set up in {seconds:.0f} s: {test}")
            case {"kind": "first box", "said": said}:
                self.show(f"the first box of all, run beside them: {said}")
            case {"kind": "ended", "session": session, "test": test, "outcome": str(outcome), "seconds": seconds}:
                self.counts[outcome] = self.counts.get(outcome, 0) + 1
                self.show(f"{outcome:7} {session}: {test} ({seconds} s)")
                if outcome == "failed":
                    self.show(str(report["text"]))
            case {"kind": "session", "session": str(session), "exit_code": int(code)}:
                self.exit_codes[session] = code
            case {"kind": "end"}:
                self.ended = True
            case _:
                pass

    def show(self, text: str) -> None:
        """Write something with the time since the start before it."""
        sys.stdout.write(f"[{time.monotonic() - self.started:4.0f} s] {text}\n")
        sys.stdout.flush()

    def faults(self) -> Iterator[str]:
        """Say what keeps this from being a success."""
        if not self.ended:
            yield f"the machine ended too early, after it began {self.begun or 'nothing'}"
        for name in (session.name for session in SESSIONS):
            code = self.exit_codes.get(name)
            if code is None:
                yield f"session {name}: it did not end"
            elif code != 0:
                yield f"session {name}: pytest ended with {code}"
        if not self.counts.get("passed"):
            yield "no test passed"


def main() -> int:
    """Run the tests in the machine; 0 all passed, 1 not."""
    options = _parser().parse_args()
    for name in COMPILED:
        # The machine would compile them anew each time, in emulation.
        compileall.compile_dir(REPOSITORY / name, quiet=2)
    record = Record()
    fault = _run(options.output, options.deadline, record)
    (options.output / "results.json").write_text(json.dumps(record.reports, indent=1))
    faults = [*([fault] if fault else []), *record.faults()]
    cpu_seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(record.counts.items())) or "no tests"
    record.show(f"{counted}; it took {cpu_seconds:.0f} s of CPU time")
    for text in faults:
        record.show(f"FAILED: {text}")
    return 1 if faults else 0


def _run(output: Path, deadline_seconds: float, record: Record) -> str:
    """Run the machine to its end; returns what went wrong with it, or nothing."""
    try:
        machine = Machine(
            kernel=newest_kernel(),
            command=(sys.executable, "-m", "tests.vm.inside"),
            folder=REPOSITORY,
            console=output / "console.log",
            deadline_seconds=deadline_seconds,
        )
    except MachineError as error:
        return str(error)
    record.show(f"starting {machine.kernel.image.name} in emulation; its console is in {machine.console}")
    fault = ""
    try:
        for report in machine.reports():
            record.add(report)
    except MachineError as error:
        fault = str(error)
    if record.ended and not fault:
        return ""
    return f"{fault or 'it went off by itself'}; the console's last lines:\n{machine.last_words()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description="Tests cgroup v2 in a virtual machine.")
    parser.add_argument("--deadline", type=float, default=1200.0, help="seconds until the machine is switched off")
    parser.add_argument("--output", type=Path, default=Path("build/vm"), help="folder for console and results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
