"""Container engines, and what a container of docs/setup.md's checks sees.

That is a skeleton of empty folders, with the host's /usr, /etc, this checkout and its Python mounted read-only:
nothing is pulled, and nothing of the host can be written but what a case asks for.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.sandbox.gvisor_versions import GVISOR_OF_SUITE, debians_runsc

REPOSITORY = Path(__file__).parents[2]
IMAGE = "sandbox-lockdown-containers"
DOCTOR = (sys.executable, "-c", "from sandbox.main import main; main()", "doctor", "--json")
FIRST_SHIFTED_ID = 100_000
"""What root of a user namespace is on the host."""
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
class Failure:
    """One failed check of the doctor's."""

    detail: str
    """In what state it is."""
    remedy: str
    """What the doctor advises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One container engine, and what every container of it is started with."""

    name: str
    """`podman` or `docker`."""
    command: tuple[str, ...]
    """The engine with its options, up to and including `run`."""
    folder: Path
    """Where the folders that containers see are."""
    gvisor: str
    """The version of gVisor in it, `YYYYMMDD…`."""
    suite: str
    """Debian's suite that this gVisor is of."""
    owner: int = 0
    """Who owns the container's files, on the host."""
    user: int = 0
    """Who runs in it, on the host."""

    def run(self, flags: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container without network."""
        environ = ("--env=XDG_CACHE_HOME=/cache", "--env=PATH=/opt/gvisor:/usr/sbin:/usr/bin:/sbin:/bin")
        return subprocess.run(
            [*self.command, "--rm", "--network=none", *environ, *self._mounts, *flags, *self._image, *arguments],
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )

    def failures(self, flags: Sequence[str], *command: str) -> Mapping[str, Failure]:
        """What failed in a container started with these flags: the doctor's checks by name."""
        result = self.run(flags, *(command or DOCTOR))
        if not result.stdout.startswith("{"):
            raise EngineError(f"the doctor did not start: {result.stdout[-300:]}{result.stderr[-600:]}")
        return {
            check["name"]: Failure(detail=check["detail"], remedy=check["remedy"])
            for check in json.loads(result.stdout)["checks"]
            if check["verdict"] == "failed"
        }

    def as_user(self, user: int) -> "Engine":
        """The same with the flag for another user in the container, who has a private folder."""
        return replace(self, command=(*self.command, f"--user={user}:{user}"), user=user)

    def in_user_namespace(self) -> "Engine":
        """The same with containers whose root is nobody on the host, as Kubernetes' `hostUsers: false` has it."""
        shift = (f"--uidmap=0:{FIRST_SHIFTED_ID}:65536", f"--gidmap=0:{FIRST_SHIFTED_ID}:65536")
        return replace(self, command=(*self.command, *shift), owner=FIRST_SHIFTED_ID, user=FIRST_SHIFTED_ID)

    @property
    def _image(self) -> tuple[str, ...]:
        """What stands between flags and command."""
        if self.name == "docker":
            return (IMAGE,)
        skeleton = self.folder / f"skeleton-{self.owner}"
        if not skeleton.exists():
            make_skeleton(skeleton, self.owner)
        return ("--rootfs", f"{skeleton}:O")

    @property
    def _mounts(self) -> tuple[str, ...]:
        """The private folder, gVisor, and read-only what the doctor itself needs."""
        cache = self.folder / f"cache-{self.user}"
        cache.mkdir(mode=0o700, exist_ok=True)
        os.chown(cache, self.user, self.user)
        readable = {Path("/usr"), Path("/etc"), REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}
        outermost = sorted(path for path in readable if not any(path.is_relative_to(o) for o in readable - {path}))
        return (
            f"--volume={cache}:/cache:rw",
            f"--volume={self._gvisor_folder()}:/opt/gvisor:ro",
            *(f"--volume={path}:{path}:ro" for path in outermost),
            f"--workdir={REPOSITORY}",
        )

    def _gvisor_folder(self) -> Path:
        """gVisor, owned by the container's root as it would be in an image."""
        place = self.folder / f"gvisor-{self.suite}-{self.owner}"
        if not place.exists():
            place.mkdir(mode=0o755)
            runsc = Path(shutil.copy(debians_runsc(self.suite).path, place))
            for path in (place, runsc):
                os.chown(path, self.owner, self.owner)
        return place


class EngineError(Exception):
    """A container could not be started at all."""


def made_engine(name: str, suite: str, folder: Path) -> Engine:
    """Podman over the skeleton itself, or Docker with the skeleton imported as an image."""
    program = shutil.which(name)
    if program is None or shutil.which("runc") is None:
        raise EngineError(f"{name} or runc is not installed: apt-get install podman runc")
    if name == "docker":
        _import_image(program, folder)
    command = (program, *_PODMAN_OPTIONS) if name == "podman" else (program, "run")
    return Engine(name=name, command=command, folder=folder, gvisor=GVISOR_OF_SUITE[suite], suite=suite)


def docker_answers() -> bool:
    """Whether there is a Docker daemon to try."""
    program = shutil.which("docker")
    return program is not None and subprocess.run([program, "info"], capture_output=True, check=False).returncode == 0


def make_skeleton(root: Path, owner: int) -> None:
    """A root folder with nothing in it but mount points."""
    for name in _FOLDERS:
        (root / name).mkdir(parents=True)
    for name in _LINKS:
        (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").chmod(0o1777)
    for path in (root, *root.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)


def _import_image(program: str, folder: Path) -> None:
    skeleton, archive = folder / "image", folder / "image.tar"
    if archive.exists():
        return
    make_skeleton(skeleton, 0)
    with tarfile.open(archive, "w") as tar:
        tar.add(skeleton, ".")
    subprocess.run([program, "import", str(archive), IMAGE], capture_output=True, check=True)
