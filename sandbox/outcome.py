"""What became of a run: the outcome, the output that was kept, and the record of it."""

from codecs import getincrementaldecoder
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sandbox.egress_account import EgressSummary
from sandbox.request import LANGUAGE_NAMES

MOST_STREAM_CHANGES = 4_096
"""How often output may change between the streams with their order kept."""

_COUNTED_ROUGHLY_BYTES = 1 << 20
"""The kernel counts memory in batches, for each processor."""


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
    TOO_MANY_PROCESSES = "too_many_processes"
    """The kernel refused gVisor another thread, behind the softer limit that the code itself meets."""
    KILLED = "killed"
    """The box was ended from outside, by an administrator or by somebody else on the host."""
    GVISOR_FAILED = "gvisor_failed"
    """gVisor ended without telling how the code did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of output, in the order of its arrival."""

    stream: str
    """`stdout` or `stderr`."""
    data: bytes
    """As it came."""


@dataclass(slots=True)
class KeptOutput:
    """Output of both streams up to a limit; what comes after that is counted and thrown away.

    A piece costs much more memory than a byte, so code that changes streams with each byte gets only so many of them;
    after that each stream is still whole, and only their order among each other is lost.
    """

    limit_bytes: int
    """How much is kept, of both streams together."""
    kept_bytes: int = 0
    """How much that is."""
    seen_bytes: int = 0
    """How much came."""
    _pieces: list[tuple[str, bytearray]] = field(default_factory=list)

    def add(self, stream: str, data: bytes) -> None:
        """Keep what still fits."""
        self.seen_bytes += len(data)
        kept = data[: self.limit_bytes - self.kept_bytes]
        if kept:
            self.kept_bytes += len(kept)
            self._piece_for(stream).extend(kept)

    @property
    def full(self) -> bool:
        """Whether nothing more is kept."""
        return self.kept_bytes >= self.limit_bytes

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """What was kept, in the order of its arrival."""
        return tuple(Chunk(stream=stream, data=bytes(data)) for stream, data in self._pieces)

    def _piece_for(self, stream: str) -> bytearray:
        """The last piece if it is of this stream, else a new one, or an older one where there are too many."""
        candidates = self._pieces if len(self._pieces) >= MOST_STREAM_CHANGES else self._pieces[-1:]
        found = next((data for of, data in reversed(candidates) if of == stream), None)
        if found is None:
            found = bytearray()
            self._pieces.append((stream, found))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUsage:
    """What a run used, and of what."""

    gvisor: str
    """Version and origin of the gVisor that ran it, with its age."""
    box_digest: str
    """SHA-256 of what its box was made from, which is also in the box's annotations."""
    pooled: bool
    """Whether its box had waited for it."""
    queue_seconds: float
    """How long it waited for runs before it."""
    startup_seconds: float
    """Until the interpreter was ready."""
    wall_seconds: float
    """From then to the end."""
    cpu_seconds: float | None
    """CPU time since the code was handed over, gVisor's own included; `None` where nothing counts it."""
    peak_memory_bytes: int | None
    """The most memory at once, gVisor's own included; `None` where nothing counts it."""
    egress: EgressSummary
    """What it reached, and what it was refused."""

    def record(self) -> dict[str, Any]:
        """All of it as JSON, times to the millisecond."""
        return {
            "gvisor": self.gvisor,
            "box_digest": self.box_digest,
            "pooled": self.pooled,
            "queue_seconds": round(self.queue_seconds, 3),
            "startup_seconds": round(self.startup_seconds, 3),
            "wall_seconds": round(self.wall_seconds, 3),
            "cpu_seconds": None if self.cpu_seconds is None else round(self.cpu_seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
            "network": self.egress.record(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult(RunUsage):
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
    process_limit: int | None
    """The limit of processes and threads; `None` where there was none."""
    memory_limit_bytes: int | None
    """What its cgroup held it to, gVisor's share included; `None` where nothing did."""
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
    ended_by_administrator: bool
    """Whether `sandbox kill` ended it."""
    code_sha256: str
    """SHA-256 of the code, in hexadecimal."""
    surface: str | None = None
    """`tool` or `function`; `None` where it came from neither."""
    policy_refusal: str | None = None
    """The reason code of a policy set that is refused, while the last good one holds in its place."""
    audit_hash: str | None = None
    """The hash of its line in the audit log; `None` where it has none."""

    @property
    def output(self) -> str:
        """Both streams as text, in the order of arrival; what is no UTF-8 is replaced."""
        decoders = {chunk.stream: getincrementaldecoder("utf-8")(errors="replace") for chunk in self.chunks}
        texts = [decoders[chunk.stream].decode(chunk.data) for chunk in self.chunks]
        return "".join((*texts, *(decoder.decode(b"", final=True) for decoder in decoders.values())))

    def stream(self, name: str) -> bytes:
        """What was kept of one stream, `stdout` or `stderr`."""
        return b"".join(chunk.data for chunk in self.chunks if chunk.stream == name)

    @property
    def sentence(self) -> str:
        """How it ended, for the person."""
        return f"{LANGUAGE_NAMES[self.language]} code {self._end_words}."

    @property
    def _end_words(self) -> str:
        runtime = _counted(self.runtime_limit_seconds, "second")
        ram = _counted(self.ram_limit_megabytes, "megabyte")
        limit = self.process_limit
        processes = "what this host permits" if limit is None else f"{limit} processes and threads, its limit"
        outside = "by an administrator" if self.ended_by_administrator else "from outside"
        memory = f"at {ram}, its RAM limit" if self._ram_limit_reached else "because this host ran out of memory for it"
        return {
            Outcome.OK: "executed successfully",
            Outcome.ERROR: f"ended with {_exit_words(self.exit_code)}",
            Outcome.TIMED_OUT: f"was stopped after {runtime}, its runtime limit",
            Outcome.OUT_OF_MEMORY: f"was stopped {memory}",
            Outcome.TOO_MANY_PROCESSES: f"was stopped at {processes}",
            Outcome.KILLED: f"was ended {outside} before it was done",
            Outcome.GVISOR_FAILED: "was not finished: gVisor failed, or was ended from outside",
        }[self.outcome]

    @property
    def _ram_limit_reached(self) -> bool:
        """Whether the memory that it used shows that it was its own limit, and not one above, that stopped it."""
        if self.memory_limit_bytes is None or self.peak_memory_bytes is None:
            return self.ram_limit_megabytes is not None
        return self.peak_memory_bytes >= self.memory_limit_bytes - _COUNTED_ROUGHLY_BYTES

    def record(self) -> dict[str, Any]:
        """The run as JSON: everything but the output."""
        return {
            "outcome": self.outcome.value,
            "surface": self.surface,
            "language": self.language,
            "code_sha256": self.code_sha256,
            "exit_code": self.exit_code,
            "truncated": self.truncated,
            "notices": list(self.notices),
            "unenforced": list(self.unenforced),
            "limits_digest": self.limits_digest,
            "policies": [{"id": name, "serial": serial} for name, serial in self.policies],
            "policy_refusal": self.policy_refusal,
            "ended_by_administrator": self.ended_by_administrator,
            **RunUsage.record(self),
            "audit_hash": self.audit_hash,
        }


def _counted(number: int | None, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _exit_words(exit_code: int | None) -> str:
    first_signal = 128
    if exit_code is not None and exit_code > first_signal:
        return f"exit code {exit_code} (signal {exit_code - first_signal})"
    return f"exit code {exit_code}"
