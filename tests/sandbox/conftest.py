"""What the tests of running code share: real gVisor, and a place of its own for each test.

A `Place` has a private folder and a cgroup that nothing else uses, so what a run leaves behind is seen at once,
whoever else runs boxes on this host. Each test that uses one fails if anything is left there at its end.
"""

import asyncio
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from policy.effective import EffectiveLimits, fixed_limits
from policy.values import UNLIMITED
from sandbox.box import STARTUP_SECONDS
from sandbox.cgroup_discovery import find_cgroup_parent
from sandbox.cgroup_limits import CgroupLimits
from sandbox.cgroups import CgroupParent, RunCgroup, make_cgroup
from sandbox.equipment import Equipment, found_runsc, installed_runsc, prepared
from sandbox.errors import SandboxError
from sandbox.folders import private_folder
from sandbox.outcome import RunResult
from sandbox.proving import with_new_proof
from sandbox.release import release_source
from sandbox.request import RunRequest
from sandbox.runner import Runner
from sandbox.tree import FileTree, build_tree
from sandbox.tree_plan import Interpreter
from tests.sandbox.trees import copied_interpreter, silent

NO_LIMITS = CgroupLimits(memory_bytes=None, cpu_thousandths=None, processes_hard_stop=None)
PATIENCE = int(os.environ.get("TESTS_PATIENCE", "1"))
"""How many times longer everything may take than on real hardware; the virtual machine of `make vm` sets it."""
GONE_SECONDS = 2.0 * PATIENCE
CALM = {"networking_allowed": False, "max_runtime_seconds": 20 * PATIENCE, "max_instance_runs": UNLIMITED}


def limits_of(**values: object) -> EffectiveLimits:
    return fixed_limits({**CALM, **values}, "test")


def request_of(code: str, language: str = "python", **values: object) -> RunRequest:
    return RunRequest(language=language, code=code, limits=limits_of(**values), person="somebody")


async def ran(equipment: Equipment, request: RunRequest) -> RunResult:
    """Run one request, and wait until nothing of it is left."""
    async with Runner(equipment, startup_seconds=STARTUP_SECONDS * PATIENCE) as runner:
        return await runner.run(request)


async def eventually(condition: Callable[[], bool], within_seconds: float = 2.0) -> float:
    """Wait until something holds; returns how long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < within_seconds * PATIENCE, condition
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


def command_lines_with(text: str) -> dict[int, str]:
    """The processes of this host whose command line holds a text, by their numbers."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(folder.name) != os.getpid():
            found[int(folder.name)] = line
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one test runs its boxes."""

    equipment: Equipment
    """Real gVisor and file tree; folder and cgroups are the test's own."""

    @property
    def runs(self) -> Path:
        return self.equipment.folder / "runs"

    @property
    def cgroups(self) -> CgroupParent:
        assert isinstance(self.equipment.cgroups, CgroupParent)
        return self.equipment.cgroups

    async def run(self, code: str, language: str = "python", **values: object) -> RunResult:
        return await ran(self.equipment, request_of(code, language, **values))

    def processes(self) -> dict[int, str]:
        """The processes of boxes that this test started: each names its folder."""
        return command_lines_with(f"{self.runs}/")

    def leftovers(self) -> list[str]:
        """Everything that a run should not have left behind."""
        folders = [*(self.runs.iterdir() if self.runs.exists() else ()), *self._cgroup_folders()]
        return [*map(str, folders), *(f"process {number}: {line}" for number, line in self.processes().items())]

    def _cgroup_folders(self) -> list[Path]:
        return [folder for place in self.cgroups.places for folder in place.folder.iterdir() if folder.is_dir()]


@pytest.fixture(scope="session")
def equipment() -> Equipment:
    """What this host has for running boxes; gVisor is installed where it is missing."""
    cgroups = find_cgroup_parent()
    if not isinstance(cgroups, CgroupParent) or cgroups.missing:
        pytest.skip(f"this host cannot enforce all limits: {cgroups}")
    try:
        source = release_source(machine=platform.machine())
        runsc = found_runsc(source, os.environ) or installed_runsc(source, os.environ, limits_of(), print)
        return prepared(runsc, os.environ, print)
    except SandboxError as error:
        pytest.skip(f"no box can be started here: {error}")


@pytest.fixture
def place(equipment: Equipment, tmp_path: Path) -> Iterator[Place]:
    """A folder and a cgroup of the test's own, in which nothing is left at its end."""
    assert isinstance(equipment.cgroups, CgroupParent)
    own = make_cgroup(equipment.cgroups, secrets.token_hex(16), NO_LIMITS)
    inside = CgroupParent(places=own.places, missing=())
    made = Place(equipment=replace(equipment, folder=tmp_path / "private", cgroups=inside))
    try:
        yield made
        assert made.leftovers() == []
    finally:
        asyncio.run(_remove(own, inside))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets, which a kernel bounds. Source: unix(7)."""
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def cache_home(equipment: Equipment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for XDG_CACHE_HOME with this host's gVisor and file tree in it, and slots that nobody else takes."""
    home = tmp_path_factory.mktemp("cache")
    target = private_folder({"XDG_CACHE_HOME": str(home)})
    for name in ("gvisor", "trees"):
        if (source := equipment.folder / name).exists():
            shutil.copytree(source, target / name, symlinks=True, copy_function=linked)
    asyncio.run(_proved({**os.environ, "XDG_CACHE_HOME": str(home)}))
    return home


@pytest.fixture
def environ(cache_home: Path) -> Mapping[str, str]:
    """An environment that says nothing of limits."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "XDG_CACHE_HOME": str(cache_home)}


async def _proved(environ: Mapping[str, str]) -> None:
    """Prove this host once, so that no single test has to wait for it."""
    runsc = found_runsc(release_source(machine=platform.machine()), environ)
    assert runsc is not None
    await with_new_proof(prepared(runsc, environ, print))


def linked(source: str, target: str) -> None:
    """Copy a file by a second name for it, where that can be."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private folder with a file tree in it."""
    return tmp_path_factory.mktemp("private", numbered=True)


@pytest.fixture(scope="session")
def tree(private: Path) -> FileTree:
    """The file tree of the interpreter that runs the tests."""
    return build_tree(private, Interpreter.current(), silent)


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    """An interpreter whose library a test may spoil."""
    return copied_interpreter(tmp_path)


async def _remove(own: RunCgroup, inside: CgroupParent) -> None:
    """Remove a test's cgroup, with whatever a failed test left in it."""
    for run in (*inside.existing_runs(), own):
        await run.kill()
        await run.remove()
