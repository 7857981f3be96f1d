"""Container engines, and what a container of docs/setup.md's checks sees.

That is a skeleton of empty folders, with the host's /usr, /etc, this checkout and its Python mounted read-only:
nothing is pulled, and nothing of the host can be written but what a case asks for.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.equipment import found_runsc
from sandbox.gvisor import Runsc
from sandbox.release import release_source

REPOSITORY = Path(__file__).parents[2]
IMAGE = "sandbox-lockdown-containers"
_FOLDERS = ("cache", "dev", "etc", "opt/gvisor", "proc", "root", "run", "sys", "tmp", "usr", "var/tmp")
_LINKS = ("bin", "lib", "lib64", "sbin")
_RUN_SECONDS = 240
# The limits that podman asks for by default are more than a machine inside another may give.
_PODMAN_OPTIONS = (
    "--cgroup-manager=cgroupfs",
    "--runtime=runc",
    "run",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=4096:4096",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One container engine, and what every container of it is started with."""

    name: str
    """`podman` or `docker`."""
    command: tuple[str, ...]
    """The engine with its options, up to and including `run`."""
    image: tuple[str, ...]
    """What stands between flags and command."""
    mounts: tuple[str, ...]
    """The mounts that every container has."""
    gvisor: str
    """The version of gVisor in it, `YYYYMMDD…`."""

    def run(self, flags: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container without network."""
        environ = ("--env=XDG_CACHE_HOME=/cache", "--env=PATH=/opt/gvisor:/usr/sbin:/usr/bin:/sbin:/bin")
        return subprocess.run(
            [*self.command, "--rm", "--network=none", *environ, *self.mounts, *flags, *self.image, *arguments],
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )

    def doctor_failures(self, flags: Sequence[str]) -> Mapping[str, str]:
        """What failed in a container started with these flags: the doctor's checks by name, with their details."""
        result = self.run(flags, sys.executable, "-c", "from sandbox.main import main; main()", "doctor", "--json")
        if not result.stdout.startswith("{"):
            raise EngineError(f"the doctor did not start: {result.stdout[-300:]}{result.stderr[-600:]}")
        checks = json.loads(result.stdout)["checks"]
        return {check["name"]: check["detail"] for check in checks if check["verdict"] == "failed"}


class EngineError(Exception):
    """A container could not be started at all."""


def podman(skeleton: Path, cache: Path) -> Engine:
    """Podman, over the skeleton itself."""
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            raise EngineError(f"{program} is not installed: apt-get install podman runc")
    runsc = _runsc()
    return Engine(
        name="podman",
        command=("podman", *_PODMAN_OPTIONS),
        image=("--rootfs", f"{skeleton}:O"),
        mounts=_mounts(cache, runsc),
        gvisor=runsc.version,
    )


def docker(skeleton: Path, cache: Path) -> Engine | None:
    """Docker, with the skeleton imported as an image; `None` where no daemon answers."""
    program = shutil.which("docker")
    if program is None or subprocess.run([program, "info"], capture_output=True, check=False).returncode != 0:
        return None
    archive = skeleton.parent / "skeleton.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(skeleton, ".")
    subprocess.run([program, "import", str(archive), IMAGE], capture_output=True, check=True)
    runsc = _runsc()
    return Engine(
        name="docker", command=(program, "run"), image=(IMAGE,), mounts=_mounts(cache, runsc), gvisor=runsc.version
    )


def make_skeleton(parent: Path) -> Path:
    """A root folder with nothing in it but mount points."""
    root = parent / "root"
    for name in _FOLDERS:
        (root / name).mkdir(parents=True)
    for name in _LINKS:
        (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").chmod(0o1777)
    return root


def _runsc() -> Runsc:
    source = release_source(machine=platform.machine(), url=None, version=None, sha512=None, min_version=None)
    runsc = found_runsc(source, os.environ)
    if runsc is None:
        raise EngineError("there is no gVisor here: run `sandbox install`")
    return runsc


def _mounts(cache: Path, runsc: Runsc) -> tuple[str, ...]:
    """The private folder, gVisor, and read-only what the doctor itself needs."""
    readable = {Path("/usr"), Path("/etc"), REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}
    outermost = sorted(path for path in readable if not any(path.is_relative_to(o) for o in readable - {path}))
    return (
        f"--volume={cache}:/cache:rw",
        f"--volume={runsc.path.parent}:/opt/gvisor:ro",
        *(f"--volume={path}:{path}:ro" for path in outermost),
        f"--workdir={REPOSITORY}",
    )
