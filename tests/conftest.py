"""Holds for all tests: no test that needs real gVisor is skipped unseen, and no law fails for a busy machine's sake."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

PERMITTED_SKIPS = (
    "Docker's Compose plugin is not installed",  # the file's structure is checked all the same
    "v2 allows a child more than its parent",  # a test of cgroup v1 alone
    "no writable cgroup v2 hierarchy here",  # a test of cgroup v2 alone
    "this kernel has no AppArmor",
    "this kernel does not enforce SELinux",
    "cgroup v1 gives containers the host's cgroup namespace by default",
)
"""Reasons for which CI lets a test be skipped: those of a host's kind, never of something that can be installed."""

settings.register_profile(
    "busy-machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(
        os.environ.get("CI")
    ),  # CI judges a change by the same examples each time; people look for new ones
)
settings.load_profile("busy-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--refuse-skips", action="store_true", help="fail where a test was skipped unforeseen")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--refuse-skips") and not hasattr(report, "wasxfail"):
        reason = str(call.excinfo.value) if call.excinfo else ""
        if item.get_closest_marker("gvisor") or not any(known in reason for known in PERMITTED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"this test was skipped in {call.when}: {reason}"
    return report
