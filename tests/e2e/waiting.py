"""Waiting with a limit: nothing in the end-to-end run may hang."""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.e2e.report import ScenarioError

Result = TypeVar("Result")


def wait_for(probe: Callable[[], Result | None], *, what: str, seconds: float, pause_seconds: float = 0.1) -> Result:
    """Give the first result that is not None.

    Raises:
        ScenarioError: None came before the time was over.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = probe()
        if result is not None:
            return result
        if time.monotonic() > deadline:
            raise ScenarioError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(pause_seconds)
