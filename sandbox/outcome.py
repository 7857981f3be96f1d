"""What became of a run: the outcome, the output that was kept, and the record of it."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sandbox.request import LANGUAGE_NAMES


class Outcome(Enum):
    """How a run ended, told by wait status and kernel counters, never by the box."""

    OK = "ok"
    """The code ended with exit code 0."""
    ERROR = "error"
    """The code ended with another exit code, or by a signal of its own."""
    TIMED_OUT = "timed_out"
    """The code was stopped at its runtime limit."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel stopped the code at its RAM limit."""
    KILLED = "killed"
    """The box was ended from outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of output, in the order of its arrival."""

    stream: str
    """`stdout` or `stderr`."""
    data: bytes
    """As it came."""


@dataclass(slots=True)
class KeptOutput:
    """Output of both streams up to a limit; what comes after that is counted and thrown away."""

    limit_bytes: int
    """How much is kept, of both streams together."""
    chunks: list[Chunk] = field(default_factory=list)
    """What was kept."""
    kept_bytes: int = 0
    """How much that is."""
    seen_bytes: int = 0
    """How much came."""

    def add(self, stream: str, data: bytes) -> None:
        """Keep what still fits."""
        self.seen_bytes += len(data)
        kept = data[: self.limit_bytes - self.kept_bytes]
        if kept:
            self.kept_bytes += len(kept)
            self.chunks.append(Chunk(stream=stream, data=kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """All there is to say of a finished run."""

    outcome: Outcome
    """How it ended."""
    language: str
    """`python` or `bash`."""
    exit_code: int | None
    """The code's own; `None` where it did not come to one."""
    chunks: tuple[Chunk, ...]
    """The output that was kept, in the order of its arrival."""
    truncated: bool
    """Whether output was thrown away."""
    output_limit_kilobytes: int
    """How much output was to be kept."""
    runtime_limit_seconds: int | None
    """The runtime limit; `None` where there was none."""
    ram_limit_megabytes: int | None
    """The RAM limit; `None` where there was none."""
    notices: tuple[str, ...]
    """What people should know: valves brought in, network not given."""
    unenforced: tuple[str, ...]
    """Limits that this host could not enforce, where the run went on without them."""
    debug_allowed: bool
    """Whether the limits permit showing internals."""
    limits_digest: str
    """Digest of the effective limits."""
    policies: tuple[tuple[str, int], ...]
    """Id and serial of each policy file that took part."""
    gvisor: str
    """Version and origin of the gVisor that ran it, with its age."""
    startup_seconds: float
    """Until the interpreter was ready."""
    wall_seconds: float
    """From then to the end."""
    cpu_seconds: float | None
    """CPU time of the box, gVisor's own included; `None` where nothing counts it."""
    peak_memory_bytes: int | None
    """The most memory at once, gVisor's own included; `None` where nothing counts it."""

    @property
    def output(self) -> str:
        """Both streams as text, in the order of arrival; what is no UTF-8 is replaced."""
        return b"".join(chunk.data for chunk in self.chunks).decode(errors="replace")

    def stream(self, name: str) -> bytes:
        """What was kept of one stream, `stdout` or `stderr`."""
        return b"".join(chunk.data for chunk in self.chunks if chunk.stream == name)

    @property
    def sentence(self) -> str:
        """How it ended, for the person."""
        name = LANGUAGE_NAMES[self.language]
        match self.outcome:
            case Outcome.OK:
                return f"{name} code executed successfully."
            case Outcome.ERROR:
                return f"{name} code ended with {_exit_words(self.exit_code)}."
            case Outcome.TIMED_OUT:
                return f"{name} code was stopped after {self.runtime_limit_seconds} seconds, its runtime limit."
            case Outcome.OUT_OF_MEMORY:
                return f"{name} code was stopped at {self.ram_limit_megabytes} megabytes, its RAM limit."
            case Outcome.KILLED:
                return f"{name} code was ended from outside before it was done."

    def record(self) -> dict[str, Any]:
        """The run as JSON: everything but the output."""
        return {
            "outcome": self.outcome.value,
            "language": self.language,
            "exit_code": self.exit_code,
            "truncated": self.truncated,
            "notices": list(self.notices),
            "unenforced": list(self.unenforced),
            "limits_digest": self.limits_digest,
            "policies": [{"id": name, "serial": serial} for name, serial in self.policies],
            "gvisor": self.gvisor,
            "startup_seconds": round(self.startup_seconds, 3),
            "wall_seconds": round(self.wall_seconds, 3),
            "cpu_seconds": None if self.cpu_seconds is None else round(self.cpu_seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def _exit_words(exit_code: int | None) -> str:
    first_signal = 128
    if exit_code is not None and exit_code > first_signal:
        return f"exit code {exit_code} (signal {exit_code - first_signal})"
    return f"exit code {exit_code}"
