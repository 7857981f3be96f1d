"""Wherever the caller's Python lies, a box runs it from a tree of its own, with nothing else of the caller's.

Each layout is tried by a script of its own process under that very interpreter: a virtual environment, pyenv's, the
distribution's, and that of Open WebUI's image, which is modelled here: an interpreter that is a small program beside
`lib/libpython3.X.so`, found by `$ORIGIN/../lib`, in a prefix of its own.

Source: the Dockerfile of Docker's official `python` image, on which Open WebUI's is built (`--enable-shared`).
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.equipment import Equipment

REPOSITORY = Path(__file__).parents[2]
CANARY = "canary_2b90"
TRY_SECONDS = 100
LAUNCHER = "int Py_BytesMain(int, char **);\nint main(int count, char **words) { return Py_BytesMain(count, words); }\n"
LEFT_OUT = shutil.ignore_patterns("site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__", "*.a")
CODE = """
import ctypes, json, sqlite3, ssl, sys
try:
    import canary_2b90
    found = True
except ImportError:
    found = False
print(json.dumps([list(sys.version_info[:2]), sys.prefix, found]))
"""
SCRIPT = """
import asyncio, json, os, platform, sys
from policy.effective import fixed_limits
from sandbox.equipment import found_runsc, prepared
from sandbox.release import release_source
from sandbox.request import RunRequest
from sandbox.runner import Runner

async def main():
    runsc = found_runsc(release_source(machine=platform.machine()), os.environ)
    equipment = prepared(runsc, {**os.environ, "XDG_CACHE_HOME": sys.argv[1]}, lambda sentence: None)
    limits = fixed_limits({"networking_allowed": False, "max_runtime_seconds": 30}, "test")
    async with Runner(equipment) as runner:
        result = await runner.run(RunRequest(language="python", code=sys.argv[2], limits=limits, person="somebody"))
    print(json.dumps([list(sys.version_info[:2]), sys.prefix, result.output]))

asyncio.run(main())
"""

LayOut = Callable[[Path], Path]


def base_python() -> Path:
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def own(_folder: Path) -> Path:
    return base_python()


def virtual_environment(folder: Path) -> Path:
    subprocess.run([base_python(), "-m", "venv", "--without-pip", folder], check=True, capture_output=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / f"{CANARY}.py").write_text("")
    return folder / "bin" / "python"


def pyenv(_folder: Path) -> Path:
    """The newest one that pyenv has."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    versions = {
        tuple(map(int, path.name.split("."))): path
        for path in root.glob("versions/3.*")
        if re.fullmatch(r"3\.(1[1-9])\.\d+", path.name)
    }
    if not versions:
        pytest.skip("pyenv has no Python of 3.11 or newer here")
    newest = max(versions)
    return versions[newest] / "bin" / f"python{newest[0]}.{newest[1]}"


def distribution(_folder: Path) -> Path:
    """Debian's `/usr/bin/python3.X`, whose library lies in `/usr/lib` and whose packages in `dist-packages`."""
    found = sorted(path for path in Path("/usr/bin").glob("python3.1[1-9]") if path.is_file())
    if not found:
        pytest.skip("the distribution has no Python of 3.11 or newer")
    return found[-1]


def image(folder: Path) -> Path:
    """As `/usr/local` looks in Docker's `python` images."""
    shared = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("INSTSONAME")))
    compiler = shutil.which("cc", path="/usr/bin:/usr/local/bin")
    if compiler is None or not shared.is_file():
        pytest.skip(f"the model of the image needs a C compiler and {shared} (Debian: gcc, libc6-dev, libpython3-dev)")
    name = f"python3.{sys.version_info.minor}"
    (folder / "bin").mkdir(parents=True)
    home = folder / "lib" / name
    shutil.copytree(sysconfig.get_path("stdlib"), home, ignore=LEFT_OUT)
    shutil.copy2(shared, folder / "lib" / shared.name)
    (home / "site-packages" / "open_webui").mkdir(parents=True)
    (home / "site-packages" / f"{CANARY}.py").write_text("")
    source = folder / "launcher.c"
    source.write_text(LAUNCHER)
    linking = [f"-L{folder / 'lib'}", f"-l:{shared.name}", "-Wl,-rpath,$ORIGIN/../lib"]
    subprocess.run([compiler, source, *linking, "-o", folder / "bin" / name], check=True, capture_output=True)
    return folder / "bin" / name


def what_the_runner_imports(folder: Path) -> Path:
    """A folder with the one package that running code needs beside the standard library."""
    folder.mkdir()
    found = importlib.util.find_spec("h11")
    assert found is not None
    assert found.origin is not None
    shutil.copytree(Path(found.origin).parent, folder / "h11")
    return folder


@pytest.mark.gvisor
@pytest.mark.parametrize("lay_out", [own, virtual_environment, pyenv, distribution, image])
def test_a_box_runs_the_callers_python_wherever_it_lies(tmp_path: Path, equipment: Equipment, lay_out: LayOut) -> None:
    python = lay_out(tmp_path / "place")
    paths = f"{REPOSITORY}:{what_the_runner_imports(tmp_path / 'imported')}"
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home()), "PYTHONPATH": paths}
    (tmp_path / "cache").mkdir(mode=0o700)
    if "XDG_CACHE_HOME" in os.environ:
        environment["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"]

    done = subprocess.run(
        [python, "-c", SCRIPT, tmp_path / "cache", CODE],
        env=environment,
        cwd="/",
        capture_output=True,
        check=False,
        timeout=TRY_SECONDS,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    version, prefix, output = json.loads(done.stdout)
    assert json.loads(output) == [version, "/usr", False]
    assert str(tmp_path / "place") in prefix or lay_out in {own, pyenv, distribution}
    assert equipment.tree.root.exists()
