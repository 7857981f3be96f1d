"""What the end-to-end run says: headings, one line for each assertion, and the count at the end.

A failed assertion is written down and the run goes on, so that one run shows all that is wrong. What makes the rest
of a scenario impossible is raised as `ScenarioError` instead.
"""

import time
from typing import TextIO


class ScenarioError(Exception):
    """A step could not be done at all, so the rest of its scenario has no meaning."""


class Report:
    """Counts assertions and writes each as one sentence the moment it is decided."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._started = time.monotonic()
        self.passed = 0
        self.failed = 0

    def heading(self, text: str) -> None:
        """Begin a part of the run."""
        self._write(f"\n{text}")

    def note(self, text: str) -> None:
        """Tell what is being done or was measured; nothing is asserted."""
        self._write(f"  [{time.monotonic() - self._started:5.0f} s] {text}")

    def check(self, sentence: str, passed: bool, detail: object = "") -> None:  # noqa: FBT001 - reads like assert
        """Write whether the sentence holds; the detail says what was seen."""
        if passed:
            self.passed += 1
        else:
            self.failed += 1
        seen = f" ({_shortened(detail)})" if detail != "" else ""
        self._write(f"  {'ok    ' if passed else 'FAILED'} {sentence}{seen}")

    def fail(self, sentence: str, detail: object) -> None:
        """Write that the sentence does not hold."""
        self.check(sentence, passed=False, detail=detail)

    def close(self) -> int:
        """Write the count and give the exit code: 0 where all passed, 1 otherwise, also where nothing was asserted."""
        self._write(f"\n{self.passed} passed, {self.failed} failed")
        return 0 if self.passed and not self.failed else 1

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


def _shortened(detail: object, limit: int = 240) -> str:
    text = " ".join(str(detail).split())
    return text if len(text) <= limit else f"{text[:limit]}…"
