import json
import os
from pathlib import Path

import pytest

from tests.policy.commands.conftest import Command, policy  # noqa: F401 -- a fixture


@pytest.fixture(autouse=True)
def _unreadable(policy: Command) -> Command:  # noqa: F811 -- the fixture of that name
    Path("prod.toml").symlink_to("prod.toml")
    os.mkfifo("pipe.toml")
    return policy


@pytest.mark.parametrize("name", ["prod.toml", "pipe.toml"])
@pytest.mark.parametrize("form", ["text", "json", "sarif", "junit", "github", "gitlab"])
def test_no_report_looks_as_if_all_were_well(policy: Command, name: str, form: str) -> None:  # noqa: F811
    ended = policy("lint", "--format", form, name)

    assert ended.code == 2
    assert "SBP022" in ended.out or "unreadable-file" in ended.out


def test_a_sarif_log_says_that_the_run_was_not_whole(policy: Command) -> None:  # noqa: F811
    log = json.loads(policy("lint", "--format", "sarif", "prod.toml").out)

    assert log["runs"][0]["invocations"] == [{"executionSuccessful": False}]


def test_no_fail_level_makes_it_a_success(policy: Command) -> None:  # noqa: F811
    assert policy("lint", "--fail-level", "error", "pipe.toml").code == 2


def test_the_good_example_has_nothing_unreadable(policy: Command) -> None:  # noqa: F811
    policy("init", "--profile", "single-user", "--output", "new.toml")

    assert "SBP022" not in policy("lint", "new.toml").out
