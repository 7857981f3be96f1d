"""Calls the command `policy` as people do: in this process, or as a program; in a folder of the test's own."""

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policy.main import main

GOLDENS = Path(__file__).parents[1] / "goldens"
PROGRAM = str(Path(sys.executable).with_name("policy"))
POLICY = """schema = 1
id = "acme-prod"
serial = 7
issued_at = 2020-01-01T00:00:00Z
expires_at = 9999-01-01T00:00:00Z
audience = ["*"]

[limits]
networking_allowed = false

[limits.max_runtime_seconds]
default = 20
ceiling = 60
reason = "shared host [bold]with[/bold] :warning: \\\\[/x]"

[limits.max_cpus]
ceiling = 0.5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Command:
    """Calls the command in this process, in a folder of the test's own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        code = 0
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ended(code=code, out=captured.out, err=captured.err)

    def good(self, *arguments: str) -> str:
        """Call it where it must succeed, and give its output."""
        ended = self(*arguments)
        assert (ended.code, ended.err) == (0, "")
        return ended.out

    def told(self, *arguments: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.good("explain", "--json", *arguments))
        return told


@pytest.fixture
def policy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    for name in [name for name in os.environ if name.startswith("SANDBOX_")]:
        monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    Path("acme.toml").write_text(POLICY)
    return Command(capsys)


@pytest.fixture
def keys(policy: Command) -> tuple[str, str]:
    """Two key pairs, ops and sec; the ids of their keys."""
    found = [re.search(r"sha256:[0-9a-f]{64}", policy.good("keygen", name)) for name in ("ops", "sec")]
    ops, sec = (match[0] for match in found if match)
    return ops, sec


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401 -- of subprocess
    return subprocess.run(
        [PROGRAM, *arguments], text=True, timeout=60, check=False, **({"capture_output": True} | options)
    )


def on_terminal(*arguments: str, **variables: str) -> str:
    """What the program writes where its output is a terminal."""
    here, there = pty.openpty()
    try:
        environ = {**os.environ, "TERM": "xterm-256color", **variables}
        subprocess.run([PROGRAM, *arguments], stdout=there, env=environ, timeout=60, check=True)
        return os.read(here, 1 << 20).decode()
    finally:
        os.close(here)
        os.close(there)


def signature_lines(path: str = "acme.toml") -> list[str]:
    return [line for line in Path(path).read_text().splitlines() if line.startswith("# ed25519 ")]
