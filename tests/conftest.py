"""Holds for all tests: a test that needs real gVisor may not be skipped unseen where CI says so."""

from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refuse-gvisor-skips", action="store_true", help="fail where a test that needs real gVisor was skipped"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refused = item.config.getoption("--refuse-gvisor-skips") and item.get_closest_marker("gvisor")
    if refused and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"this test needs real gVisor, and was skipped in {call.when}: {call.excinfo}"
    return report
