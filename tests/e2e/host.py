"""The real Open WebUI as a process of its own: fresh data folder, variables of ours in its environment.

The server keeps the caller's home and cache folder, so that a gVisor installed before is found again; all else it
writes stays in the folder it is given.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.e2e.report import Report, ScenarioError

LOCKED_RUNTIME_SECONDS = 5
"""What SANDBOX_MAX_RUNTIME_SECONDS is locked to in the server's environment."""

LOCKDOWN: Mapping[str, str] = {
    "SANDBOX_NETWORKING_ALLOWED": "false",
    "SANDBOX_MAX_RUNTIME_SECONDS": str(LOCKED_RUNTIME_SECONDS),
}
"""The variables of ours in the environment of the server that most scenarios use."""

READY_SECONDS = 300
"""Open WebUI imports torch and builds its database before it answers; 25 to 70 s were seen on two idle cores."""

STOP_SECONDS = 30
"""How long the server may take to end after SIGTERM."""

_PROGRESS_SECONDS = 10
_PASSED_THROUGH = ("PATH", "HOME", "LANG", "XDG_CACHE_HOME", "SANDBOX_AUTO_INSTALL")


class Host:
    """One running Open WebUI; `stop` ends it by its process id."""

    def __init__(self, *, folder: Path, log: Path, model_url: str, variables: Mapping[str, str]) -> None:
        self._log = log
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [_command(), "serve", "--host", "127.0.0.1", "--port", str(port)],
                cwd=folder,
                env={**_environment(folder, model_url), **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def wait_until_ready(self, report: Report, is_ready: Callable[[], bool]) -> None:
        """Wait until the server answers, with a line of progress every few seconds.

        Raises:
            ScenarioError: it ended or did not answer in time; the text holds the end of its log.
        """
        started = spoken = time.monotonic()
        while not is_ready():
            now = time.monotonic()
            if self._process.poll() is not None:
                raise ScenarioError(f"Open WebUI ended with code {self._process.returncode}: {self.log_end()}")
            if now - started > READY_SECONDS:
                raise ScenarioError(f"Open WebUI was not ready after {READY_SECONDS} s: {self.log_end()}")
            if now - spoken > _PROGRESS_SECONDS:
                report.note("waiting for Open WebUI to be ready …")
                spoken = now
            time.sleep(0.5)
        report.note(f"Open WebUI is ready at {self.url}, process {self.pid}")

    def stop(self) -> int:
        """End the server as a service does, by SIGTERM and later SIGKILL, and give its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def log_end(self, characters: int = 1500) -> str:
        """The end of what the server wrote."""
        return self._log.read_text(errors="replace")[-characters:]


def _command() -> str:
    """The server of the environment that this run uses, not whichever is first in PATH."""
    return str(Path(sys.executable).with_name("open-webui"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _environment(folder: Path, model_url: str) -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_THROUGH if name in os.environ} | {
        "DATA_DIR": str(folder / "data"),
        "WEBUI_SECRET_KEY": secrets.token_hex(16),
        "OPENAI_API_BASE_URLS": model_url,
        "OPENAI_API_KEYS": "none",
        "ENABLE_OLLAMA_API": "false",
        # Nothing is downloaded: no embedding model, no pip install of a plugin's requirements.
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
        "RAG_EMBEDDING_ENGINE": "openai",
        # Background requests would reach the stand-in between the scenarios' own.
        "ENABLE_TITLE_GENERATION": "false",
        "ENABLE_TAGS_GENERATION": "false",
        "ENABLE_FOLLOW_UP_GENERATION": "false",
        "ANONYMIZED_TELEMETRY": "false",
    }
