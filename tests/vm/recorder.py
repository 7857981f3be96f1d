"""A plugin of pytest that reports what becomes of each test, over the machine's second serial port."""

import json
import os
import tty
from collections.abc import Mapping

import pytest

from tests.vm.machine import PORT

SESSION_VARIABLE = "VM_SESSION"
"""Names the session that is running."""


def say(report: Mapping[str, object]) -> None:
    """Write one report in one piece."""
    descriptor = os.open(PORT, os.O_WRONLY | os.O_NOCTTY)
    try:
        tty.setraw(descriptor)
        rest = json.dumps(report).encode() + b"\n"
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def pytest_runtest_logstart(nodeid: str) -> None:
    say({"kind": "begun", "session": os.environ[SESSION_VARIABLE], "test": nodeid})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or not report.passed:
        _say_ended(report.nodeid, report.outcome, report.duration, report.longreprtext)
    elif report.when == "setup":
        say({"kind": "prepared", "test": report.nodeid, "seconds": round(report.duration, 1)})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if not report.passed:
        _say_ended(report.nodeid, report.outcome, 0.0, report.longreprtext)


def _say_ended(test: str, outcome: str, seconds: float, text: str) -> None:
    say(
        {
            "kind": "ended",
            "session": os.environ[SESSION_VARIABLE],
            "test": test,
            "outcome": outcome,
            "seconds": round(seconds, 1),
            "text": text[-6000:],
        }
    )
