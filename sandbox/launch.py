"""How boxes start on this host: with which flags, on which platform, as root or rootless. Found by starting some.

Nothing is believed of a host that a small box can show: each way is tried in turn, within a deadline, and the first
that brings a box up is taken. What hangs is killed with all that it started. The platform `kvm` hangs on some virtual
machines and is tried only where the administrator names it.
Source: runsc/config/flags.go and runsc/specutils/namespace.go; measured with gVisor 20221219 and 20240729.
"""

import os
import secrets
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sandbox.box import BoxFolder
from sandbox.control import control_socket_files
from sandbox.ended_family import ended_family
from sandbox.errors import SandboxError, StartError
from sandbox.gvisor import Runsc
from sandbox.leases import RUNS_FOLDER, leased_folder
from sandbox.runsc_program import runsc_flags
from sandbox.tree import FileTree
from sandbox.tree_build import BOX_UID

LAUNCH_PROBE_SECONDS = 30.0
"""How long one way of starting may take; a machine that is emulated needs ten."""
_ALL_LAUNCH_PROBES_SECONDS = 90.0
_MOST_PROBE_WORDS = 1 << 14
_PROBE_SIGN = b"a box starts here"
_FALLBACK_PLATFORMS = ("systrap", "ptrace")
_NEVER_BY_ITSELF = "kvm"
_SYS_ADMIN_BIT = 21

LAUNCH_FLAGS = {
    # sockets and pipes of the host stay out of reach, whatever a later release takes for its default
    "host-uds": "none",
    "host-fifo": "none",
    # the root is read-only, and what is writable is limited; an overlay would be one more writable place, outside both
    "overlay2": "none",
    # should a spec ever carry a filter of system calls, it is never silently ignored
    "oci-seccomp": "true",
}
"""Flags that every box gets where its gVisor knows them."""
_WITHOUT_HOST_FILES = "--directfs=false"
"""gVisor's kernel then runs as nobody, without capabilities, and opens no file of the host itself. It costs a sixth at
imports, and does not work where nobody may not enter the folder of `runsc` and its sidecars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One way to start boxes."""

    arguments: tuple[str, ...]
    """All flags that stand before every subcommand, but for those that follow from a run's limits."""
    rootless: bool
    """Whether gVisor makes a user namespace first, and works with no more rights than the running user has."""
    platform: str
    """How system calls are caught: `systrap`, `ptrace`, `kvm`; `default` where this gVisor does not name its own."""

    @property
    def words(self) -> str:
        """For people."""
        files = " without host files" if _WITHOUT_HOST_FILES in self.arguments else ""
        return f"{'rootless' if self.rootless else 'as root'} on {self.platform}{files}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchAttempt:
    """One way that did not work."""

    launch: Launch
    """Which."""
    said: str
    """What gVisor said, or why it was given up, in one line."""


class LaunchError(StartError):
    """No way of starting boxes works here.

    Args:
        attempts: what was tried.
        internals: whether the text tells what gVisor said, for whoever may see that.
    """

    def __init__(self, attempts: Sequence[LaunchAttempt], *, internals: bool = False) -> None:
        self.attempts = tuple(attempts)
        said = dict.fromkeys(attempt.said for attempt in self.attempts)
        tried = "; ".join(f"{self._ways(words)}: {words}" for words in said)
        ways = tried if internals else self._ways(None)
        super().__init__(reason=f"no box starts on this host, tried {ways}", detail="" if internals else tried)

    def _ways(self, said: str | None) -> str:
        """The ways that gVisor answered with these words, or all."""
        return ", ".join(attempt.launch.words for attempt in self.attempts if said in {None, attempt.said})

    def with_internals(self) -> Self:
        """The same error, with what gVisor said."""
        return type(self)(self.attempts, internals=True)


def found_launch(
    runsc: Runsc,
    tree: FileTree,
    folder: Path,
    *,
    platform: str | None = None,
    within_seconds: float = LAUNCH_PROBE_SECONDS,
) -> Launch:
    """The first way in which a box starts here; blocks for a third of a second where that is the first tried.

    Args:
        runsc: the gVisor.
        tree: what boxes see.
        folder: the private folder.
        platform: the only one to try, where the administrator named one.
        within_seconds: deadline of each try.

    Raises:
        LaunchError: there is none.
        InstallError: this `runsc` does not even print its flags.
    """
    given_up = time.monotonic() + _ALL_LAUNCH_PROBES_SECONDS
    attempts: list[LaunchAttempt] = []
    for launch in launch_candidates(
        runsc.arguments, runsc_flags(runsc.path), platform=platform, as_root=_may_start_as_root()
    ):
        seconds = min(within_seconds, max(given_up - time.monotonic(), 0.0))
        said = _why_no_box(runsc, launch, tree, folder, seconds)
        if not said:
            return launch
        attempts.append(LaunchAttempt(launch=launch, said=said))
    raise LaunchError(attempts)


def launch_candidates(
    offline: tuple[str, ...], flags: Mapping[str, str], *, platform: str | None, as_root: bool
) -> tuple[Launch, ...]:
    """The ways to try, best first: with most walls inside, then with the platform that this gVisor prefers.

    Args:
        offline: what keeps this gVisor from downloading.
        flags: what `runsc flags` says, by flag.
        platform: the only one to try.
        as_root: whether this process has the rights that starting without `--rootless` needs.
    """
    always = (*offline, *(f"--{name}={value}" for name, value in LAUNCH_FLAGS.items() if name in flags))
    modes = ((), ("--rootless",)) if "rootless" in flags else ((),)
    files = ((_WITHOUT_HOST_FILES,), ()) if "directfs" in flags else ((),)
    return tuple(
        Launch(arguments=(*always, *mode, *named, *file), rootless=bool(mode), platform=name)
        for mode in (modes if as_root else modes[-1:])
        for name, named in _launch_platforms(flags.get("platform", ""), platform)
        for file in files
    )


def _launch_platforms(platform_flag: str, wanted: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names and flags of the platforms to try; the version's own choice is tried without a flag."""
    if wanted is not None:
        yield wanted, (f"--platform={wanted}",)
        return
    preferred = platform_flag.rpartition('(default "')[2].removesuffix('")') if platform_flag.endswith('")') else ""
    if preferred != _NEVER_BY_ITSELF:
        yield preferred or "default", ()
    for name in _FALLBACK_PLATFORMS:
        if name != preferred and (name in platform_flag or not platform_flag):
            yield name, (f"--platform={name}",)


def own_network_command() -> tuple[str, ...]:
    """Goes before `runsc`: a network namespace of its own, out of reach of other users, whom its socket would obey.

    Without the right to make one there is no such word, and whoever is in the same namespace may reach that socket.
    """
    return ("unshare", "--net", "--") if _may_start_as_root() else ()


def _may_start_as_root() -> bool:
    """Whether this process is root and may make namespaces and mounts. Source: capabilities(7), proc(5)."""
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(effective >> _SYS_ADMIN_BIT & 1)


def _why_no_box(runsc: Runsc, launch: Launch, tree: FileTree, private: Path, seconds: float) -> str:
    """What gVisor said when it did not bring up a small box; empty where it did, and nothing is left of it."""
    try:
        with leased_folder(private / RUNS_FOLDER, secrets.token_hex(16)) as place:
            folder = BoxFolder(path=place, name=place.name)
            try:
                folder.write(_probe_spec(tree))
                return _refusal(_probe_command(runsc, launch, folder), seconds)
            finally:
                for socket_file in control_socket_files(folder.state, folder.name):
                    socket_file.unlink(missing_ok=True)  # what is killed leaves it behind
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise SandboxError(
            key="gVisor",
            origin=str(error.filename or private),
            reason=f"this host refused to try it: {error.strerror}",
            remedy="Free space there, or set XDG_CACHE_HOME to a folder with 1 GB free",
        ) from error


def _probe_command(runsc: Runsc, launch: Launch, folder: BoxFolder) -> tuple[str, ...]:
    """As boxes are started: tied to our life, with nothing in the environment, in a root of its own."""
    return (
        *("setpriv", "--pdeathsig", "KILL", "--", *own_network_command(), "env", "-i"),
        *(str(runsc.path), *launch.arguments),
        *("--network=none", "--ignore-cgroups", f"--root={folder.state}"),
        *("run", f"--bundle={folder.bundle}", folder.name),
    )


def _probe_spec(tree: FileTree) -> dict[str, Any]:
    """A box like any other, whose only deed is to say that it started."""
    nothing: list[str] = []
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": BOX_UID, "gid": BOX_UID},
            "args": [tree.bash, "--noprofile", "--norc", "-c", f"printf '{_PROBE_SIGN.decode()}'"],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), nothing),
            "noNewPrivileges": True,
        },
        "root": {"path": str(tree.root), "readonly": True},
        "hostname": "sandbox",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},  # noqa: S108 -- the box's own
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
    }


def _refusal(command: Sequence[str], seconds: float) -> str:
    """Run a command that should say its sign; in one line what it said instead, or that it hung."""
    deadline = time.monotonic() + seconds
    with ended_family(command) as process:
        said = _words_of_probe(process, deadline)
        try:
            code = process.wait(timeout=max(deadline - time.monotonic(), 0.001))
        except subprocess.TimeoutExpired:
            return f"it did not end within {seconds:.0f} seconds{_last_line(said, ' and said: ')}"
    if code == 0 and said == _PROBE_SIGN:
        return ""
    return _last_line(said) or f"it ended with exit code {code} and said nothing"


def _words_of_probe(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What a probe says until its output ends, the deadline passes, or it is more than anybody reads."""
    if process.stdout is None:
        raise ValueError("a probe is started with a pipe")
    pipe, poll, said = process.stdout.fileno(), select.poll(), b""
    poll.register(pipe, select.POLLIN)
    while len(said) < _MOST_PROBE_WORDS and poll.poll(max(deadline - time.monotonic(), 0.0) * 1_000):
        data = os.read(pipe, _MOST_PROBE_WORDS)
        if not data:
            break
        said += data
    return said


def _last_line(said: bytes, before: str = "") -> str:
    lines = [" ".join(line.split()) for line in said.decode(errors="replace").splitlines() if line.strip()]
    return f"{before}{lines[-1][:300]}" if lines else ""
