"""An ordinary user runs code rootless: what cannot be enforced is refused or named, and nothing is left when killed."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.sandbox.conftest import command_lines_with, eventually
from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE, debians_runsc

SOMEBODY = 54_321
NOT_ENFORCED = ["max_ram_megabytes", "max_cpus", "max_processes"]
WITHOUT_CGROUPS = {"SANDBOX_REQUIRE_RESOURCE_LIMITING": "false"}
REPOSITORY = Path(__file__).parents[2]
MAIN = "from sandbox.main import main; main()"
AS_SOMEBODY = ("setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups", "--")
SECONDS = 90

pytestmark = [
    pytest.mark.gvisor,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A private folder of an ordinary user; pytest's own lie below folders that only root enters."""
    folder = Path("/var/tmp") / f"sandbox-lockdown-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    for suite in GVISOR_OF_SUITE:
        (folder / suite).mkdir()
        shutil.copy(debians_runsc(suite).path, folder / suite)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    yield folder
    assert command_lines_with(str(folder)) == {}
    shutil.rmtree(folder)


@pytest.fixture(params=GVISOR_OF_SUITE)
def suite(request: pytest.FixtureRequest) -> str:
    """Each gVisor that Debian ships."""
    name: str = request.param
    return name


def python_of_everybody() -> str:
    """A Python that an ordinary user may start; setpriv finds programs with root's rights, so it has to look itself."""
    look = "import os, sys; os.stat(os.path.realpath(sys.executable))"
    for path in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([*AS_SOMEBODY, path, "-c", look], check=False, capture_output=True).returncode == 0:
            return path
    pytest.skip("no Python here that an ordinary user may start")


def command(home: Path, suite: str, *arguments: str) -> tuple[Sequence[str], Mapping[str, str]]:
    environ = {
        "XDG_CACHE_HOME": str(home),
        "PATH": f"{home / suite}:/usr/bin:/bin",
        "PYTHONPATH": ":".join([str(REPOSITORY), *(path for path in sys.path if path.endswith("-packages"))]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return [*AS_SOMEBODY, python_of_everybody(), "-c", MAIN, *arguments], environ


def sandbox_as_somebody(
    home: Path, suite: str, *arguments: str, code: str = "", variables: Mapping[str, str] = WITHOUT_CGROUPS
) -> subprocess.CompletedProcess[str]:
    line, environ = command(home, suite, *arguments)
    return subprocess.run(
        line, input=code, capture_output=True, text=True, timeout=SECONDS, check=False, env={**environ, **variables}
    )


def test_code_runs_and_the_record_names_what_was_not_enforced(home: Path, suite: str) -> None:
    code = "import os, socket\nprint(os.getuid(), [name for _, name in socket.if_nameindex()])"

    done = sandbox_as_somebody(home, suite, "run", "--json", "--valve", "NETWORKING_ALLOWED=false", "-", code=code)

    record = json.loads(done.stdout)
    assert (record["output"], record["unenforced"]) == ("1000 ['lo']\n", NOT_ENFORCED)
    assert done.returncode == 0


def test_where_cgroups_are_required_nothing_runs(home: Path, suite: str) -> None:
    done = sandbox_as_somebody(home, suite, "run", "-", code="print(1)", variables={})

    assert (done.returncode, done.stdout) == (125, "")
    assert "this host cannot enforce it" in done.stderr
    assert "SANDBOX_REQUIRE_RESOURCE_LIMITING=false" in done.stderr


def test_the_doctor_fails_the_three_limits_and_proves_the_rest(home: Path, suite: str) -> None:
    checks = json.loads(sandbox_as_somebody(home, suite, "doctor", "--json").stdout)["checks"]

    failed = [check["name"] for check in checks if check["verdict"] == "failed"]
    both_probes_of_processes = (*NOT_ENFORCED, NOT_ENFORCED[-1])
    assert failed == ["cgroup memory", "cgroup cpu", "cgroup pids", *both_probes_of_processes]
    gvisor = next(check for check in checks if check["name"] == "gVisor")
    assert gvisor["verdict"] == "warning"
    assert f"{GVISOR_OF_SUITE[suite]}.0 (preinstalled, " in gvisor["detail"]
    assert "rootless on " in gvisor["detail"]
    assert "newer release" in gvisor["remedy"]


@pytest.mark.parametrize("victim", ["caller", "runsc"])
def test_nothing_is_left_after_a_kill(home: Path, suite: str, victim: str) -> None:
    line, environ = command(home, suite, "run", "-")
    with subprocess.Popen(line, stdin=subprocess.PIPE, env={**environ, **WITHOUT_CGROUPS}) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(b"import time\ntime.sleep(600)\n")
            process.stdin.close()
            asyncio.run(eventually(lambda: runsc_run(home) is not None, within_seconds=SECONDS))

            os.kill(process.pid if victim == "caller" else runsc_run(home) or 0, signal.SIGKILL)

            asyncio.run(eventually(lambda: boxes_of(home) == {}, within_seconds=20))
        finally:
            process.kill()


def boxes_of(home: Path) -> dict[int, str]:
    """The processes of this user's boxes: each names its folder."""
    return command_lines_with(f"{home}/sandbox-lockdown/runs/")


def runsc_run(home: Path) -> int | None:
    """The process that everything else of a box is below, once it is there with its sandbox."""
    boxes = boxes_of(home)
    booted = any(" boot " in line for line in boxes.values())
    tops = [number for number, line in boxes.items() if " run --bundle" in line and line.startswith(str(home))]
    return min(tops) if booted and tops else None
