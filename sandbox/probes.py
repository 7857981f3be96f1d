"""Code that tries to break one limit each, in a real box, and how one sees that it could not.

The start-up probe and `sandbox doctor` hold this host against the same ones.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from policy.destinations import parse_destination
from policy.effective import fixed_limits
from policy.values import UNLIMITED
from sandbox.outcome import Outcome, RunResult
from sandbox.request import RunRequest

PROBE_PLACE = "probe of this host"
_CPU_SHARE_AT_A_FIFTH = 0.3
_PROCESSES_AT_EIGHT = 8
_HARD_STOP = 384
"""More than gVisor itself starts with (measured with two processors: 34), which grows with the processors."""
_PROCESSES_PAST_THE_STOP = 480
_STOPPED_OR_REFUSED = frozenset({Outcome.TOO_MANY_PROCESSES, Outcome.ERROR})
"""gVisor ends where it can have no more threads; should a later one tell its guest instead, the shell gives up."""
_ASKED_FOR = "192.0.2.1"
"""Kept for documentation, and so nobody's."""
_PROBE_VALUES = {
    "require_resource_limiting": False,
    "debug": True,
    "max_concurrent_runs": UNLIMITED,
    "max_instance_runs": UNLIMITED,
}
_CALM = {"networking_allowed": False, "max_runtime_seconds": 60}  # an emulated machine needs ten times what others do


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Code that tries to break one limit, and how one sees that it could not."""

    limit: str
    """Name of the limit that it proves."""
    language: str
    """`python` or `bash`."""
    code: str
    """What it tries."""
    values: Mapping[str, Any]
    """Values of limits that differ from the built-ins."""
    processes_hard_stop: int | None = None
    """Processes of the host that the whole box may have; `None` where the limits say."""
    held: Callable[[RunResult], bool]
    """Whether the limit held."""
    shows: str
    """What it showed if it held, for people."""

    def request(self) -> RunRequest:
        """What to run."""
        limits = fixed_limits({**self.values, **_PROBE_VALUES}, PROBE_PLACE)
        return RunRequest(
            language=self.language,
            code=self.code,
            limits=limits,
            person=PROBE_PLACE,
            processes_hard_stop=self.processes_hard_stop,
        )


def _cpu_share(result: RunResult) -> float:
    """CPU time for each second that the code ran, by the kernel's count; endless where nothing counted it."""
    if result.cpu_seconds is None:
        return math.inf
    return result.cpu_seconds / result.wall_seconds


PROBES = (
    Probe(
        limit="languages",
        language="python",
        code="print(6 * 7)",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output == "42\n",
        shows="Python runs",
    ),
    Probe(
        limit="languages",
        language="bash",
        code="echo $((6 * 7))",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output == "42\n",
        shows="Bash runs",
    ),
    Probe(
        limit="networking_allowed",
        language="python",
        code="import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
        "\ntry: s.connect(('192.0.2.1', 9)); print('reached')"
        "\nexcept OSError: print('closed')",
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and result.output.endswith("closed\n"),
        shows="no route leads out",
    ),
    Probe(
        limit="max_runtime_seconds",
        language="python",
        code="import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
        values={**_CALM, "max_runtime_seconds": 1},
        held=lambda result: result.outcome is Outcome.TIMED_OUT,
        shows="endless code was stopped after 1 second",
    ),
    Probe(
        limit="max_ram_megabytes",
        language="python",
        code="b = bytearray(256 << 20)\nprint(len(b))",
        values={**_CALM, "max_ram_megabytes": 64},
        held=lambda result: result.outcome is Outcome.OUT_OF_MEMORY,
        shows="256 megabytes were not to be had at a limit of 64",
    ),
    Probe(
        limit="max_cpus",
        language="python",
        code="import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass",
        values={**_CALM, "max_cpus": Decimal("0.2")},
        held=lambda result: _cpu_share(result) < _CPU_SHARE_AT_A_FIFTH,
        shows="a busy loop got about a fifth of a CPU",
    ),
    Probe(
        limit="max_processes",
        language="python",
        code="import os\nmade = 0\ntry:\n    while made < 40:\n        if os.fork() == 0: os.read(0, 1); os._exit(0)"
        "\n        made += 1\nexcept OSError: pass\nprint(made)",
        values={**_CALM, "max_processes": 8},
        held=lambda result: result.output.strip().isdecimal() and int(result.output) < _PROCESSES_AT_EIGHT,
        shows="no more than 8 processes were to be had",
    ),
    Probe(
        limit="max_processes",
        language="bash",
        code=f"for ((n = 0; n < {_PROCESSES_PAST_THE_STOP}; n++)); do (kill -STOP $BASHPID) & done; echo made",
        values={**_CALM, "max_processes": UNLIMITED, "max_ram_megabytes": 512},
        processes_hard_stop=_HARD_STOP,
        held=lambda result: result.outcome in _STOPPED_OR_REFUSED and result.stream("stdout") != b"made\n",
        shows=f"a box with more than {_HARD_STOP} processes on the host was stopped",
    ),
    Probe(
        limit="max_disk_megabytes",
        language="bash",
        code="head -c 16M /dev/zero > /tmp/a; head -c 16M /dev/zero > /dev/shm/b; wc -c < /tmp/a; wc -c < /dev/shm/b",
        values={**_CALM, "max_disk_megabytes": 4},
        held=lambda result: sum(int(word) for word in result.stream("stdout").split()) <= 4 << 20,
        shows="32 megabytes did not fit into 4",
    ),
    Probe(
        limit="max_output_kilobytes",
        language="bash",
        code="head -c 1M /dev/zero",
        values={**_CALM, "max_output_kilobytes": 8},
        held=lambda result: result.truncated and len(result.stream("stdout")) == 8 << 10,
        shows="of 1 megabyte, 8 kilobytes were kept",
    ),
)

COMMANDS_PROBE = Probe(
    limit="languages",
    language="bash",
    code="ls -l / && stat /",
    values=_CALM,
    held=lambda result: result.outcome is Outcome.OK,
    shows="ls and stat work in a box",
)
"""No limit, but the system calls of this host's everyday commands; Debian's gVisor of 2022 does not know them."""


def import_probe(modules: Sequence[str]) -> Probe:
    """Code that prints which of these modules cannot be imported; no limit either."""
    lines = (f"try: import {name}\nexcept BaseException: print({name!r})" for name in modules)
    return Probe(
        limit="languages",
        language="python",
        code="\n".join(lines),
        values=_CALM,
        held=lambda result: result.outcome is Outcome.OK and not result.output,
        shows="what waiting boxes import beforehand can be imported",
    )


def network_probe() -> Probe:
    """Code that asks for addresses that it may not reach; whichever way leads out of its box, that must be decided."""
    code = f"""import urllib.request
for port in (80, 81):
    try: urllib.request.urlopen("http://{_ASKED_FOR}:{{port}}/".format(port=port), timeout=10)
    except OSError: print("closed")
"""
    refused = [(f"{_ASKED_FOR}:{port}", False) for port in (80, 81)]
    return Probe(
        limit="network_allowlist",
        language="python",
        code=code,
        values={
            "max_runtime_seconds": 60,
            "networking_allowed": True,
            "network_allowlist": frozenset({parse_destination(f"{_ASKED_FOR}:80")}),
            "network_private_allowed": False,
        },
        held=lambda result: (
            result.stream("stdout") == b"closed\nclosed\n"
            and [(one.destination, one.permitted) for one in result.egress.decisions] == refused
        ),
        shows="code was refused an address that is not in its list, and one in the list that is not public",
    )
