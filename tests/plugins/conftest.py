"""What the tests of the plugins share: no variables of ours, real gVisor in a private folder, a bare environment.

The plugins read the process's own environment, as they do inside Open WebUI, so that is what tests set.
"""

import asyncio
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from policy.limits import VARIABLE_PREFIX
from sandbox.equipment import found_runsc, prepared
from sandbox.errors import SandboxError
from sandbox.folders import private_folder
from sandbox.proving import with_new_proof
from sandbox.release import release_source
from tests.policy.factories import text_of

ROOT = Path(__file__).parents[2]
BARE_DISTRIBUTIONS = ("pydantic", "pydantic-settings", "jsonschema", "cryptography", "h11")


@dataclass(slots=True)
class Events:
    """Stands in for Open WebUI's event emitter: keeps what it is told."""

    seen: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, event: dict[str, Any]) -> None:
        self.seen.append(event)

    @property
    def descriptions(self) -> list[str]:
        return [event["data"]["description"] for event in self.seen]

    @property
    def statuses(self) -> list[tuple[str, bool]]:
        return [(event["data"]["status"], event["data"]["done"]) for event in self.seen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Where the plugins' boxes of one test run."""

    folder: Path
    """The private folder, which nobody else uses meanwhile."""

    async def until_one_stands(self) -> None:
        async with asyncio.timeout(60):
            while not self.processes():  # noqa: ASYNC110 -- what happens outside this process sets no event
                await asyncio.sleep(0.02)

    def running(self) -> list[Path]:
        """The folders of the runs under way, each named like its box and its cgroups."""
        runs = self.folder / "runs"
        return list(runs.iterdir()) if runs.exists() else []

    def processes(self) -> list[int]:
        """The processes whose command line names a run of this test."""
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if self._names_run(path)]

    def cgroups(self, name: str) -> list[Path]:
        """The cgroups of one run."""
        return [path for path in Path("/sys/fs/cgroup").rglob("*") if name in path.name and path.is_dir()]

    def _names_run(self, command_line: Path) -> bool:
        try:
            return f"{self.folder}/runs/".encode() in command_line.read_bytes()
        except OSError:
            return False


def scoped_variables(folder: Path, *scopes: dict[str, Any]) -> dict[str, str]:
    """Variables that name a policy file with these scopes, and nothing that holds for everybody but a runtime limit."""
    now = datetime.now(UTC).replace(microsecond=0)
    dates = {"issued_at": now - timedelta(hours=1), "expires_at": now + timedelta(days=1)}
    path = folder / "acme.toml"
    path.write_text(text_of({"max_runtime_seconds": 20}, audience=["*"], scope=list(scopes), **dates))
    path.chmod(0o600)
    return {
        "SANDBOX_POLICY_PATH": str(path),
        "SANDBOX_POLICY_UNSIGNED_ALLOWED": "true",
        "SANDBOX_POLICY_STATE": str(folder / "state"),
    }


@pytest.fixture(autouse=True)
def _no_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(VARIABLE_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture(scope="session")
def installed_gvisor() -> Path:
    """The folder of gVisor installations of the running user, which may be empty where one is pre-installed."""
    if os.geteuid() != 0:
        pytest.skip("boxes with all limits need root")
    try:
        if found_runsc(release_source(machine=platform.machine()), os.environ) is None:
            pytest.skip("gVisor is not installed here; `sandbox install` does it")
    except SandboxError as error:
        pytest.skip(f"no box can be started here: {error}")
    return private_folder(os.environ) / "gvisor"


@pytest.fixture(scope="session")
def new_cache_home(installed_gvisor: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders for XDG_CACHE_HOME that hold gVisor and nothing else, so that all else has to be prepared."""

    def make() -> Path:
        home = tmp_path_factory.mktemp("cache")
        if installed_gvisor.exists():
            target = private_folder({"XDG_CACHE_HOME": str(home)}) / "gvisor"
            shutil.copytree(installed_gvisor, target, symlinks=True)
        return home

    return make


@pytest.fixture(scope="session")
def cache_home(new_cache_home: Callable[[], Path]) -> Path:
    """One such folder where everything is prepared."""
    home = new_cache_home()
    environ = {**os.environ, "XDG_CACHE_HOME": str(home)}
    runsc = found_runsc(release_source(machine=platform.machine()), environ)
    assert runsc is not None
    asyncio.run(with_new_proof(prepared(runsc, environ, print)))
    return home


@pytest.fixture
def boxes(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boxes]:
    """Lets plugins run boxes, of which nothing may be left at the end of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("SANDBOX_POOL_SIZE", "0")  # each of these runs has an event loop of its own
    made = Boxes(folder=private_folder({"XDG_CACHE_HOME": str(cache_home)}))
    yield made
    assert made.running() == []
    assert made.processes() == []


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has nothing but what the plugins may import, in the locked versions."""
    folder = tmp_path_factory.mktemp("bare")
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    locked = _locked_requirements((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    wanted = folder / "requirements.txt"
    wanted.write_text("".join(locked[name] for name in sorted(_with_dependencies(BARE_DISTRIBUTIONS))))
    python = folder / "venv/bin/python"
    subprocess.run([base, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60)
    command = [str(base), "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--require-hashes", "-r", str(wanted)], check=True, timeout=300)
    return python


def _locked_requirements(lock: str) -> dict[str, str]:
    """Each requirement of the lock with its hashes, by name."""
    found = re.finditer(r"^([A-Za-z0-9._-]+)==[^\n]*\n(?:    --hash[^\n]*\n)+", lock, re.MULTILINE)
    return {canonicalize_name(each[1]): each[0] for each in found}


def _with_dependencies(names: tuple[str, ...]) -> set[str]:
    """These distributions and all they need, as this environment has them."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            requirements = map(Requirement, distribution(name).requires or ())
            needed = (each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""}))
            waiting.extend(canonicalize_name(each.name) for each in needed)
    return found
