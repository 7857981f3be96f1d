"""Runs a plugin file as a script, so that an administrator sees on the spot whether this host can run code in gVisor.

Exit codes: 0 the code ran and succeeded; 1 it did not, or was refused; 2 wrong usage.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from plugins.host import PluginHost
from plugins.presentation import end_json, json_text
from policy.requester import UNDETERMINED
from sandbox.outcome import Outcome, RunResult
from sandbox.request import LANGUAGE_NAMES, MAX_CODE_BYTES
from sandbox.session import RunOrder

SAMPLE_CODE = {
    "python": "import datetime, subprocess\n"
    'print("Hello from the sandbox!")\n'
    'print(f"Current date and time: {datetime.datetime.now()}")\n'
    'print(subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout)\n',
    "bash": 'echo "Hello from the sandbox!"\necho "Current date and time: $(date)"\ndmesg\n',
}


def self_test(arguments: Sequence[str]) -> int:
    """Run the sample, or code from standard input, printing each event and then one line of JSON."""
    parser = argparse.ArgumentParser(
        description="Run code in a gVisor sandbox as Open WebUI would, to see whether this host can.",
        allow_abbrev=False,
        epilog="Examples: run_code.py --use-sample-code; echo 'print(6 * 7)' | run_code.py",
    )
    parser.add_argument("--use-sample-code", action="store_true", help="run a sample instead of standard input")
    parser.add_argument("--language", choices=sorted(LANGUAGE_NAMES), default="python", help="default: python")
    parser.add_argument("--debug", action="store_true", help="show internals; counts as the administrator's valve")
    options = parser.parse_args(arguments)
    admin_valves: dict[str, object] = {"DEBUG": True} if options.debug else {}
    if options.use_sample_code:
        # The sample is our own code, so it may run where limits cannot be enforced, and says which those are.
        admin_valves["REQUIRE_RESOURCE_LIMITING"] = False
        code = SAMPLE_CODE[options.language]
    else:
        code = sys.stdin.buffer.read(MAX_CODE_BYTES + 1).decode(errors="replace")
    order = RunOrder(
        language=options.language,
        code=code,
        person="self-test",
        requester=UNDETERMINED,
        untrusted_person_valves={},
        untrusted_admin_valves=admin_valves,
    )
    return asyncio.run(_tested(order))


async def _tested(order: RunOrder) -> int:
    host = PluginHost(os.environ)
    try:
        end = await host.run(order, _print_event)
    finally:
        await host.close()
    sys.stdout.write(json_text(end_json(end)) + "\n")
    return 0 if isinstance(end, RunResult) and end.outcome is Outcome.OK else 1


async def _print_event(event: dict[str, Any]) -> None:
    sys.stdout.write(f"Event: {event}\n")
    sys.stdout.flush()
