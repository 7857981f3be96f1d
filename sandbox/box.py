"""One gVisor box: started, waiting, handed its one piece of code, and ended. It serves once and is then used up.

`runsc run` stays in the foreground with a private `--root`, in cgroups made beforehand, with an empty environment and
three pipes. It dies with the thread that started it (`PR_SET_PDEATHSIG`), so a killed caller leaves no box running.

Source: prctl(2), setpriv(1); measured: SIGKILL of a foreground `runsc run` ends the whole box within 60 ms.
"""

import asyncio
import json
import os
import select
import signal
from asyncio.subprocess import Process
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox.errors import StartError
from sandbox.outcome import KeptOutput
from sandbox.pipes import BoxPipes
from sandbox.starters import READY

STARTUP_SECONDS = 30.0
"""How long gVisor and the interpreter may take until code can be handed over."""
_DRAIN_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0
_READ_BYTES = 1 << 16
_MOST_START_NOISE_BYTES = 1 << 16
_READS_AT_FULL_SPEED = 64
_DRIBBLE_BYTES = 1 << 12
_BREATH_SECONDS = 0.02
_JOIN_AND_BECOME = (
    'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; '
    'exec setpriv --pdeathsig KILL -- env -i "$@"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFolder:
    """The private folder of one run, with the OCI bundle and gVisor's own state in it."""

    path: Path
    """The folder, 0700, made for this run."""
    name: str
    """The box's id, which is also the folder's name."""

    @property
    def bundle(self) -> Path:
        """The OCI bundle."""
        return self.path / "bundle"

    @property
    def state(self) -> Path:
        """Where gVisor keeps its own state, its `--root`."""
        return self.path / "state"

    def write(self, spec: dict[str, object]) -> None:
        """Make the folder with the spec in it."""
        self.bundle.mkdir(mode=0o700, parents=True)
        self.state.mkdir(mode=0o700)
        (self.bundle / "config.json").write_text(json.dumps(spec))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxEnd:
    """How a box's process ended, by the kernel's word."""

    exit_code: int
    """Of `runsc run`: the code's own, or minus the signal that ended `runsc` itself."""
    timed_out: bool
    """Whether we ended it at the deadline."""


class Box:
    """A started box, waiting for code."""

    def __init__(self, process: Process, pipes: BoxPipes, output: KeptOutput) -> None:
        self._process = process
        self._pipes = pipes
        self._output = output
        self._readers: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls, runsc_command: Sequence[str], folder: BoxFolder, procs_files: Sequence[Path], output: KeptOutput
    ) -> Self:
        """Start a box; on return it may not be ready yet.

        Args:
            runsc_command: the program with its flags, up to but without the word `run`.
            folder: where the bundle is.
            procs_files: the `cgroup.procs` files into which the box is born.
            output: where its output is kept.
        """
        pipes = await BoxPipes.opened()
        stdin, stdout, stderr = pipes.child_ends
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _JOIN_AND_BECOME,
                "sh",
                *map(str, procs_files),
                "--",
                *runsc_command,
                "--ignore-cgroups",
                f"--root={folder.state}",
                "run",
                f"--bundle={folder.bundle}",
                folder.name,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            pipes.close()
            raise
        finally:
            pipes.close_child_ends()
        return cls(process, pipes, output)

    @property
    def process_id(self) -> int:
        """The process of `runsc run`, whose descendants are the box."""
        return self._process.pid

    async def ready(self, *, within_seconds: float = STARTUP_SECONDS) -> None:
        """Wait until the interpreter is ready for code.

        Raises:
            StartError: gVisor ended, said something else, or took longer than that.
        """
        try:
            async with asyncio.timeout(within_seconds):
                first = await self._pipes.stdout.readexactly(len(READY))
        except TimeoutError as error:
            raise _start_error(f"the interpreter was not ready after {within_seconds:.0f} seconds", b"") from error
        except asyncio.IncompleteReadError as error:
            noise = await self._noise()
            exit_code = self._process.returncode
            ended = "closed its output" if exit_code is None else f"ended with exit code {exit_code}"
            raise _start_error(f"gVisor {ended} before the interpreter was ready", error.partial + noise) from error
        if first != READY:
            raise _start_error("gVisor said something else than that the interpreter is ready", first)
        self._readers = [
            asyncio.create_task(self._keep("stdout", self._pipes.stdout)),
            asyncio.create_task(self._keep("stderr", self._pipes.stderr)),
        ]

    async def serve(self, code: bytes, *, within_seconds: float | None) -> BoxEnd:
        """Hand the code over, and wait for the end of the box or the deadline; then the box is gone."""
        timed_out = False
        self._pipes.stdin.write(code)
        self._pipes.stdin.close()
        try:
            async with asyncio.timeout(within_seconds):
                await self._process.wait()
        except TimeoutError:
            timed_out = True
        if timed_out:
            await self.end()
        await asyncio.wait(self._readers, timeout=_DRAIN_SECONDS)
        return BoxEnd(exit_code=await self._process.wait(), timed_out=timed_out)

    async def end(self) -> None:
        """Kill the box, whatever it is doing, and wait until it is gone."""
        if self._process.returncode is None:
            # Without a cgroup to kill, nothing but this waits for the processes below `runsc run`.
            with _pinned(process_family(self._process.pid)) as descriptors:
                self._process.kill()
                await _killed(descriptors)
        await self._process.wait()

    async def close(self) -> None:
        """Kill the box if it still lives, and let go of its pipes."""
        await self.end()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._pipes.close()

    async def _keep(self, stream: str, reader: asyncio.StreamReader) -> None:
        """Keep a stream, no faster than is fair: code that floods its output waits for us, and nobody else does."""
        reads = 0
        while data := await reader.read(_READ_BYTES):
            self._output.add(stream, data)
            reads += 1
            dribbles = reads > _READS_AT_FULL_SPEED and len(data) < _DRIBBLE_BYTES
            if dribbles or self._output.full:
                await asyncio.sleep(_BREATH_SECONDS)

    async def _noise(self) -> bytes:
        """What gVisor says on standard error before it ends, if it ends."""
        noise = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while data := await self._pipes.stderr.read(_READ_BYTES):
                    noise = (noise + data)[-_MOST_START_NOISE_BYTES:]
                await self._process.wait()
        return noise


def process_family(process_id: int) -> frozenset[int]:
    """A process and all its descendants that have not ended. Source: proc(5), `stat` and `task/[tid]/children`."""
    try:
        threads = tuple(Path(f"/proc/{process_id}/task").iterdir())
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    itself = frozenset() if state in "ZX" else frozenset({process_id})
    return itself.union(*(process_family(child) for thread in threads for child in _children(thread)))


def _children(thread: Path) -> tuple[int, ...]:
    try:
        return tuple(map(int, (thread / "children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return ()


@contextmanager
def _pinned(process_ids: frozenset[int]) -> Iterator[tuple[int, ...]]:
    """Descriptors of processes, which keep meaning those processes whatever becomes of their numbers."""
    descriptors: list[int] = []
    try:
        for process_id in process_ids:
            with suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(process_id))
        yield tuple(descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def _killed(descriptors: Sequence[int]) -> None:
    """Kill processes, and wait until they have ended, or could not be made to."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + _DRAIN_SECONDS, 0.001
    for descriptor in descriptors:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    while not all(map(_has_ended, descriptors)) and loop.time() < deadline:
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)


def _has_ended(descriptor: int) -> bool:
    """Whether a pinned process is over. Source: pidfd_open(2), readable once it has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _start_error(reason: str, noise: bytes) -> StartError:
    lines = [line.strip() for line in noise.decode(errors="replace").splitlines() if line.strip()]
    return StartError(reason=reason, detail=lines[-1][:300] if lines else "")
