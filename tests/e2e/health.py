"""How fast Open WebUI answers others while a plugin works."""

import http.client
import threading
import time
from types import TracebackType
from typing import Self

from tests.e2e.client import Client

_PAUSE_SECONDS = 0.05


class HealthWatch:
    """Asks GET /health over and over, inside a `with` block, and keeps how long each answer took."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self.latencies_seconds: list[float] = []
        self.failures: list[str] = []

    @property
    def worst_seconds(self) -> float:
        """The slowest answer; infinite where there was none."""
        return max(self.latencies_seconds, default=float("inf"))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._thread.join()

    def _ask_on(self) -> None:
        while not self._leaving.wait(_PAUSE_SECONDS):
            asked = time.monotonic()
            try:
                status = self._client.request("GET", "/health", seconds=30).status
            except OSError as error:
                self.failures.append(str(error))
                continue
            self.latencies_seconds.append(time.monotonic() - asked)
            if status != http.client.OK:
                self.failures.append(f"status {status}")
