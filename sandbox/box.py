"""One gVisor box: started, waiting, handed its one piece of code, and ended. It serves once and is then used up.

`runsc run` stays in the foreground with a private `--root`, in cgroups made beforehand, with an empty environment and
three pipes. It dies with the thread that started it (`PR_SET_PDEATHSIG`), so a killed caller leaves no box running.

Source: prctl(2), setpriv(1); measured: SIGKILL of a foreground `runsc run` ends the whole box within 60 ms.
"""

import asyncio
import json
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox.control import ExitWatch
from sandbox.errors import StartError
from sandbox.outcome import KeptOutput
from sandbox.pipes import BoxPipes, OutputPipe
from sandbox.processes import (
    command_line,
    kill_pinned,
    killed_processes,
    pinned_members,
    pinned_processes,
    process_family,
    signal_pinned,
)
from sandbox.starters import READY

STARTUP_SECONDS = 30.0
"""How long gVisor and the interpreter may take until code can be handed over."""
_DRAIN_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0
_MOST_START_NOISE_BYTES = 1 << 16
_READS_AT_FULL_SPEED = 64
_DRIBBLE_BYTES = 1 << 12
_BREATH_SECONDS = 0.02
_READS_BETWEEN_TURNS = 4
_PIPE_BYTES = 1 << 16
"""What a pipe holds by default. Source: pipe(7)."""
_JOIN_AND_BECOME = (
    '[ "$PPID" = "$1" ] || exit 125; shift; '
    'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec env -i "$@"'
)
"""Run once the death of its parent ends it: a parent that died even before that is not the one any more."""


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

    @property
    def egress(self) -> Path:
        """Where the socket of its proxy is, if it has one."""
        return self.path / "egress"

    def write(self, spec: dict[str, object]) -> None:
        """Make the folder with the spec in it."""
        self.bundle.mkdir(mode=0o700, parents=True)
        self.state.mkdir(mode=0o700)
        (self.bundle / "config.json").write_text(json.dumps(spec))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxEnd:
    """How a box ended, by the kernels' word."""

    exit_code: int
    """The code's own; else that of `runsc run`, or minus the signal that ended it."""
    told_by_gvisor: bool
    """Whether gVisor itself told that the code ended so; else its process ended first, or could not be asked."""
    timed_out: bool
    """Whether we ended it at the deadline."""


class Box:
    """A started box, waiting for code."""

    def __init__(self, process: Process, pipes: BoxPipes, folder: BoxFolder, *, rootless: bool) -> None:
        self._process = process
        self._rootless = rootless
        self._pipes = pipes
        self._folder = folder
        self._watch: ExitWatch | None = None
        self._pinned: dict[int, int] = {}  # kept from when it is ready, so that to kill it nothing more is needed

    @classmethod
    async def start(cls, runsc_command: Sequence[str], folder: BoxFolder, procs_files: Sequence[Path]) -> Self:
        """Start a box; on return it may not be ready yet.

        Args:
            runsc_command: the program with its flags, up to but without the word `run`.
            folder: where the bundle is.
            procs_files: the `cgroup.procs` files into which the box is born.
        """
        pipes = BoxPipes.opened()
        stdin, stdout, stderr = pipes.child_ends
        try:
            process = await asyncio.create_subprocess_exec(
                "setpriv",
                "--pdeathsig=KILL",
                "--",
                "/bin/sh",
                "-c",
                _JOIN_AND_BECOME,
                "sh",
                str(os.getpid()),
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
        return cls(process, pipes, folder, rootless="--rootless" in runsc_command)

    @property
    def process_id(self) -> int:
        """The process of `runsc run`, whose descendants are the box."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether nobody has heard of its end yet; of a halted `runsc run` nobody would, so gVisor itself is asked."""
        return self._process.returncode is None and (self._watch is None or self._watch.alive)

    @property
    def answers(self) -> bool:
        """Whether gVisor will tell how the code ended; else only the exit code of `runsc run` does."""
        return self._watch is not None

    async def ready(self, *, within_seconds: float = STARTUP_SECONDS) -> None:
        """Wait until the interpreter is ready for code.

        Raises:
            StartError: gVisor ended, said something else, or took longer than that.
        """
        try:
            async with asyncio.timeout(within_seconds):
                first = await self._first_bytes(len(READY))
        except TimeoutError as error:
            raise _start_error(f"the interpreter was not ready after {within_seconds:.0f} seconds", b"") from error
        if len(first) < len(READY) and READY.startswith(first):
            noise = await self._noise()
            exit_code = self._process.returncode
            ended = "closed its output" if exit_code is None else f"ended with exit code {exit_code}"
            raise _start_error(f"gVisor {ended} before the interpreter was ready", first + noise)
        if first != READY:
            raise _start_error("gVisor said something else than that the interpreter is ready", first)

    async def watch(self, box_processes: Callable[[], frozenset[int]]) -> None:
        """Ask gVisor to tell how the code ends, once the box is ready; of its processes one must be listening.

        `runsc run` asks too, and takes the box apart with the answer; it is halted, so that ours is never lost to that.
        """
        state, name = self._folder.state, self._folder.name
        self._watch = await ExitWatch.opened(state, name, self._process.pid, box_processes())
        if self._watch is not None:
            self._pinned = pinned_members(box_processes(), box_processes)
            self._halt_waiters()

    async def serve(
        self, code: bytes, output: KeptOutput, *, within_seconds: float | None, handed_over: Callable[[], None]
    ) -> BoxEnd:
        """Hand the code over, and wait for its end or the deadline; all that it wrote is kept by then.

        The box may still be there for a moment: `close` ends it.

        Args:
            code: what it runs.
            output: where what it writes is kept.
            within_seconds: how long it may take; `None` is any time.
            handed_over: called once the box has the code, which it runs meanwhile.
        """
        keeping = [
            asyncio.create_task(_kept("stdout", self._pipes.stdout, output)),
            asyncio.create_task(_kept("stderr", self._pipes.stderr, output)),
        ]
        try:
            async with asyncio.timeout(within_seconds):
                await self._pipes.stdin.write_all(code)
                handed_over()
                end = await self._ended()
            if not end.told_by_gvisor:
                await asyncio.wait(keeping, timeout=_DRAIN_SECONDS)
        except TimeoutError:
            await self.end()
            end = BoxEnd(exit_code=await self._process.wait(), told_by_gvisor=False, timed_out=True)
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
        _keep_rest("stdout", self._pipes.stdout, output)
        _keep_rest("stderr", self._pipes.stderr, output)
        return end

    async def end(self) -> None:
        """Kill the box, whatever it is doing, and wait until it is gone."""
        self.kill()
        if self._process.returncode is None:
            # Without a cgroup to kill, nothing but this waits for the processes below `runsc run`. Its own process is
            # among them: asyncio's `kill` would reap one that has just ended, and then report a wrong exit code.
            try:
                with pinned_processes(process_family(self._process.pid)) as descriptors:
                    await killed_processes(descriptors, within_seconds=_DRAIN_SECONDS)
            except OSError:  # no descriptor is to be had
                if not self._pinned:
                    raise
        await self._process.wait()

    def kill(self) -> None:
        """Kill what is known of the box, at once; what it started since ends with that."""
        kill_pinned(tuple(self._pinned.values()))

    async def close(self) -> None:
        """Kill the box if it still lives, and let go of its pipes."""
        try:
            await self.end()
        finally:
            self._let_go()

    def abandon(self) -> None:
        """Kill the box and let go of its pipes, waiting for nothing: for when nobody is left to wait."""
        self.kill()
        with suppress(OSError):
            if self._process.returncode is None:
                with pinned_processes(process_family(self._process.pid)) as descriptors:
                    kill_pinned(descriptors)
        self._let_go()

    def _let_go(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._pipes.close()
        while self._pinned:
            os.close(self._pinned.popitem()[1])

    async def _ended(self) -> BoxEnd:
        told = None if self._watch is None else await self._watch.exit_code()
        if told is not None:
            return BoxEnd(exit_code=told, told_by_gvisor=True, timed_out=False)
        for descriptor in self._pinned.values():
            signal_pinned(descriptor, signal.SIGCONT)
        return BoxEnd(exit_code=await self._process.wait(), told_by_gvisor=False, timed_out=False)

    def _halt_waiters(self) -> None:
        """Halt `runsc run`, and where it started itself again in a user namespace, that one too."""
        for process_id, descriptor in self._pinned.items():
            if process_id == self._process.pid or (self._rootless and "run" in command_line(process_id)):
                signal_pinned(descriptor, signal.SIGSTOP)

    async def _first_bytes(self, count: int) -> bytes:
        first = b""
        while len(first) < count and (data := await self._pipes.stdout.read(count - len(first))):
            first += data
            if not READY.startswith(first):
                break
        return first

    async def _noise(self) -> bytes:
        """What gVisor says on standard error before it ends, if it ends."""
        noise = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while data := await self._pipes.stderr.read():
                    noise = (noise + data)[-_MOST_START_NOISE_BYTES:]
                await self._process.wait()
        return noise


async def _kept(stream: str, pipe: OutputPipe, output: KeptOutput) -> None:
    """Keep a stream, no faster than is fair: code that floods its output waits for us, and nobody else does."""
    reads = 0
    while data := await pipe.read():
        output.add(stream, data)
        reads += 1
        dribbles = reads > _READS_AT_FULL_SPEED and len(data) < _DRIBBLE_BYTES
        if dribbles or output.full:
            await asyncio.sleep(_BREATH_SECONDS)
        elif reads % _READS_BETWEEN_TURNS == 0:
            await asyncio.sleep(0)


def _keep_rest(stream: str, pipe: OutputPipe, output: KeptOutput) -> None:
    """Keep what is still in a pipe: no more than it holds, since a child of the code may yet be writing."""
    seen = 0
    while seen < _PIPE_BYTES and (data := pipe.read_now()):
        output.add(stream, data)
        seen += len(data)


def _start_error(reason: str, noise: bytes) -> StartError:
    lines = [line.strip() for line in noise.decode(errors="replace").splitlines() if line.strip()]
    return StartError(reason=reason, detail=lines[-1][:300] if lines else "")
