"""Holds for all tests: no test that needs real gVisor is skipped unseen, and no law fails for a busy machine's sake."""

from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("busy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy-machine")


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
