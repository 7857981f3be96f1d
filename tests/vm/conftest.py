"""Tests of cgroup v2 in a virtual machine: run by `make vm`, and left alone by `make test`."""

import os
from pathlib import Path

import pytest

from tests.vm.recorder import SESSION_VARIABLE


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect these only where somebody names this folder, and what alters a whole hierarchy only in the machine."""
    if collection_path.name == "test_places.py" and SESSION_VARIABLE not in os.environ:
        return True
    here = Path(__file__).parent
    named = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(here) for path in named) else True
