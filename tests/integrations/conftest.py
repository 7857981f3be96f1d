"""The repositories that the integrations meet: this one as somebody gets it, and somebody's own."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integrations.clones import BIN, INTERPRETER, REPOSITORY, Clone, copied, plain_environ, ran

BUILT_FROM = ("policy", "sandbox", "plugins", "pyproject.toml", "README.md", "LICENSE")
"""What of a clone an installation is made from."""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """This repository as somebody gets it who names its commit: what is here now, committed."""
    path = tmp_path_factory.mktemp("sandbox-lockdown")
    for name in (*BUILT_FROM, ".pre-commit-hooks.yaml", "action.yml", "requirements-run.lock"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, path / name)
    clone = Clone(path=path, environ=plain_environ())
    clone.git("init", "--quiet", "--initial-branch=main")
    clone.commit("everything")
    return clone


@pytest.fixture(scope="session")
def pip_variables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Has pip take the locked packages out of a folder, so that its index is asked for them once."""
    path = tmp_path_factory.mktemp("wheels")
    asked = ("--quiet", "--dest", path, "--no-deps", "--require-hashes", "-r", REPOSITORY / "requirements-run.lock")
    done = ran(INTERPRETER, "-m", "pip", "download", *asked, cwd=path, environ=plain_environ())
    assert done.returncode == 0, done.stderr
    return {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(path)}


@pytest.fixture(scope="session")
def first_clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Somebody's repository: policies/good.toml, and pyproject.toml, which is no policy."""
    path = tmp_path_factory.mktemp("first") / "clone"
    (path / "policies").mkdir(parents=True)
    made = Clone(path=path, environ=plain_environ())
    made.git("init", "--quiet", "--initial-branch=main")
    init = ("--profile", "production", "--audience", "prod-eu", "--owner", "ops@acme.example", "--id", "good")
    assert made.run(BIN / "policy", "init", *init, "--output", "policies/good.toml").returncode == 0
    (path / "pyproject.toml").write_text('[project]\nname = "no-policy"\n')
    made.commit("a policy")
    return made


@pytest.fixture
def clone(first_clone: Clone, tmp_path: Path) -> Clone:
    """A copy of it, to be changed."""
    return copied(first_clone, tmp_path / "clone")
