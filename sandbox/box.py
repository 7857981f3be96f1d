"""One gVisor box: started, waiting, handed its one piece of code, and ended. It serves once and is then used up.

`runsc run` stays in the foreground with a private `--root`, in cgroups made beforehand, with an empty environment and
three pipes. It dies with the thread that started it (`PR_SET_PDEATHSIG`), so a killed caller leaves no box running.

Source: prctl(2), setpriv(1); measured: SIGKILL of a foreground `runsc run` ends the whole box within 60 ms.
"""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox.errors import StartError
from sandbox.outcome import KeptOutput
from sandbox.starters import READY

STARTUP_SECONDS = 30.0
"""How long gVisor and the interpreter may take until code can be handed over."""
_DRAIN_SECONDS = 5.0
_READ_BYTES = 1 << 16
_MOST_START_NOISE_BYTES = 1 << 16
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

    def __init__(self, process: Process, output: KeptOutput) -> None:
        self._process = process
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
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            cwd="/",
            start_new_session=True,
        )
        return cls(process, output)

    @property
    def process_id(self) -> int:
        """The process of `runsc run`, whose descendants are the box."""
        return self._process.pid

    async def ready(self) -> None:
        """Wait until the interpreter is ready for code.

        Raises:
            StartError: gVisor ended, said something else, or took longer than `STARTUP_SECONDS`.
        """
        try:
            async with asyncio.timeout(STARTUP_SECONDS):
                first = await _stream(self._process.stdout).readexactly(len(READY))
        except TimeoutError as error:
            raise _start_error(f"the interpreter was not ready after {STARTUP_SECONDS:.0f} seconds", b"") from error
        except asyncio.IncompleteReadError as error:
            noise = error.partial + await self._noise()
            raise _start_error(f"gVisor ended with exit code {await self._process.wait()}", noise) from error
        if first != READY:
            raise _start_error("gVisor said something else than that the interpreter is ready", first)
        self._readers = [
            asyncio.create_task(self._keep("stdout", _stream(self._process.stdout))),
            asyncio.create_task(self._keep("stderr", _stream(self._process.stderr))),
        ]

    async def serve(self, code: bytes, *, within_seconds: float | None) -> BoxEnd:
        """Hand the code over, and wait for the end of the box or the deadline; then the box is gone."""
        feeding = asyncio.create_task(self._feed(code))
        timed_out = False
        try:
            async with asyncio.timeout(within_seconds):
                await self._process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            feeding.cancel()
        if timed_out:
            await self.end()
        await asyncio.wait(self._readers, timeout=_DRAIN_SECONDS)
        return BoxEnd(exit_code=await self._process.wait(), timed_out=timed_out)

    async def end(self) -> None:
        """Kill the box, whatever it is doing, and wait until it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        """Kill the box if it still lives, and let go of its pipes."""
        await self.end()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _feed(self, code: bytes) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        try:
            stdin.write(code)
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return  # the box ended before it had read everything: its wait status tells how
        finally:
            stdin.close()

    async def _keep(self, stream: str, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(_READ_BYTES):
            self._output.add(stream, data)

    async def _noise(self) -> bytes:
        """What gVisor said on standard error before it ended."""
        return await _stream(self._process.stderr).read(_MOST_START_NOISE_BYTES)


def _stream(reader: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if reader is None:
        raise ValueError("a box is always started with pipes")
    return reader


def _start_error(reason: str, noise: bytes) -> StartError:
    lines = [line.strip() for line in noise.decode(errors="replace").splitlines() if line.strip()]
    return StartError(reason=reason, detail=lines[-1][:300] if lines else "")
