"""Tests of cgroup v2 in a virtual machine: run by `make vm`, and left alone by `make test`."""

from pathlib import Path

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Collect these only where somebody names this folder: one half needs the machine, the other starts it."""
    here = Path(__file__).parent
    named = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(here) for path in named) else True
