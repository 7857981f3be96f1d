"""A git repository of a test's own, whose policies change: for tests of what `--base` shows."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_USER = ("-c", "user.name=test", "-c", "user.email=test@acme.example", "-c", "commit.gpgsign=false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One with a first commit that may be empty."""

    root: Path

    def git(self, *arguments: str) -> str:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-C", str(self.root), *_USER, *arguments]
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=30).stdout

    def write(self, name: str, text: str) -> str:
        """Write a file; its path as the command line would name it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def commit(self, **files: str) -> str:
        """Write policies/NAME.toml for each, and commit everything: the revision."""
        for name, text in files.items():
            self.write(f"policies/{name}.toml", text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        return self.git("rev-parse", "HEAD").strip()

    def path(self, name: str) -> str:
        return str(self.root / "policies" / f"{name}.toml")


def new_repository(root: Path) -> Repository:
    repository = Repository(root=root)
    root.mkdir(parents=True, exist_ok=True)
    repository.git("init", "--quiet")
    return repository
