"""Somebody's repository with policies, the commands run in it, and what the guide shows: for tests of integrations."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
INTERPRETER = Path(sys.executable).resolve()
"""The Python behind the environment that the tests run in: it has pip, where the environment has none."""
_UNLIKE_ELSEWHERE = ("GIT_", "SANDBOX_", "PYTEST_", "PYTHON")
GUIDE = REPOSITORY / "docs" / "lint.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone:
    """A repository that holds policies, one good and one bad."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return ran(*command, cwd=self.path, environ={**self.environ, **variables})

    def git(self, *arguments: str) -> str:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")


def ran(
    *command: str | Path, cwd: Path, environ: Mapping[str, str], text: str | None = None
) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=cwd, env=environ, input=text, capture_output=True, text=True, timeout=100, check=False
    )


def plain_environ() -> dict[str, str]:
    """This environment without what would change how the commands behave; git knows who commits."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_UNLIKE_ELSEWHERE)}
    who = {f"GIT_{role}_{part}": "ops@acme.example" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    return {**kept, **who, "GIT_CONFIG_GLOBAL": os.devnull, "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1"}


def copied(clone: Clone, path: Path) -> Clone:
    """The same repository in another folder."""
    shutil.copytree(clone.path, path)
    return Clone(path=path, environ=clone.environ)


def spoil(clone: Clone, name: str = "bad") -> Path:
    """A second policy with a misspelt key and a word where a number belongs."""
    good = (clone.path / "policies" / "good.toml").read_text()
    bad = good.replace('id = "good"', f'id = "{name}"').replace("ceiling = 60", 'ceiling = "sixty"')
    path = clone.path / "policies" / f"{name}.toml"
    path.write_text(bad.replace("\nowner = ", "\nonwer = "))
    assert path.read_text() not in {good, bad}
    return path


def shown_block(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    return str(block)
