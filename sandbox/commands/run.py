"""`sandbox run`: code under the effective limits, with its own output and exit code."""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import click

from policy.command_line import parsed_requester, parsed_valves, requester_options, valve_options
from policy.errors import printable
from sandbox.cleaning import cleaned
from sandbox.command_line import EXIT_KILLED, EXIT_REFUSED, EXIT_TIMED_OUT, warn_on_terminal
from sandbox.errors import SandboxError
from sandbox.outcome import Outcome, RunResult
from sandbox.request import LANGUAGE_NAMES, MAX_CODE_BYTES
from sandbox.session import RunOrder, Session

_ALWAYS_ANNOUNCED = ("Auto-installing", "Downloading", "Building", "Proving", ": place ")
"""What takes so long that also whoever watches no terminal is told."""


@click.command("run")
@click.option(
    "--language", type=click.Choice(list(LANGUAGE_NAMES)), help="By default from the file's name, else python."
)
@requester_options
@valve_options
@click.option("--json", "as_json", is_flag=True, help="Print the result and its record as JSON.")
@click.argument("file", type=click.Path(allow_dash=True), default="-")
def run_command(
    *,
    language: str | None,
    person_valves: tuple[str, ...],
    admin_valves: tuple[str, ...],
    as_json: bool,
    file: str,
    **who: Any,  # noqa: ANN401 -- as `requester_options` names them
) -> None:
    """Run FILE (or standard input) under the effective limits.

    Its output and exit code are the code's own; 124 timed out, 137 killed or out of memory, 125 refused. Scopes of
    policy files hold as they would for the person you describe; what you do not say of them counts as undetermined,
    so every scope that might be for them holds. To the queue, `sandbox ps` and `sandbox kill` the run is your own
    account's, whoever you describe.

    \b
    Examples:
      sandbox run hello.py
      echo 'echo $((6 * 7))' | sandbox run --language bash -
      sandbox run --valve MAX_RUNTIME_SECONDS=5 --json slow.py
      sandbox run --role user --group students --user 4f1c --model llama --surface tool hello.py
    """
    requester = parsed_requester(**who)
    persons, administrators = parsed_valves(person_valves), parsed_valves(admin_valves)
    order = RunOrder(
        language=language or ("bash" if file.endswith(".sh") else "python"),
        code=_read_code(file),
        person=f"uid {os.getuid()}",
        requester=requester,
        untrusted_person_valves=persons,
        untrusted_admin_valves=administrators,
    )
    result = asyncio.run(_run_until_told_to_end(order))
    if as_json:
        click.echo(json.dumps({**result.record(), "output": result.output}, indent=2, ensure_ascii=False))
    else:
        _write_output(result)
    sys.exit(_exit_code(result))


async def _run_until_told_to_end(order: RunOrder) -> RunResult:
    """Run code; a signal that asks for an end gets one, with nothing left behind, as Ctrl-C does."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task is not None:
            loop.add_signal_handler(number, task.cancel)
    async with Session(os.environ, warn_on_terminal) as session:
        return await session.run(order, _announce_on_terminal)


def _read_code(name: str) -> str:
    data = _code_file_bytes(name)
    if len(data) > MAX_CODE_BYTES:
        raise _code_file_error(
            name, f"it has more than {MAX_CODE_BYTES} bytes", "Shorten it; data belongs elsewhere than in code"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _code_file_error(name, f"it is not UTF-8 in line {line}", "Save it as UTF-8") from error


def _code_file_bytes(name: str) -> bytes:
    """A file's bytes, or standard input's for `-`, up to one more than code may have."""
    if name == "-" and sys.stdin is None:
        raise _code_file_error(name, "it is closed", "Name a file, or give code on standard input")
    try:
        with click.open_file(name, "rb") as file:
            data: bytes = file.read(MAX_CODE_BYTES + 1)
            return data
    except OSError as error:
        raise _code_file_error(name, f"it cannot be read: {error.strerror}", "Name a file that you can read") from error


def _code_file_error(name: str, reason: str, remedy: str) -> SandboxError:
    shown = "standard input" if name == "-" else name
    return SandboxError(key=shown, origin="command line", reason=reason, remedy=remedy)


async def _announce_on_terminal(sentence: str) -> None:
    if sys.stderr.isatty() or any(words in sentence for words in _ALWAYS_ANNOUNCED):
        click.secho(sentence, err=True, dim=True)


def _write_output(result: RunResult) -> None:
    for chunk in result.chunks:
        stream = sys.stdout if chunk.stream == "stdout" else sys.stderr
        # A pipe gets the bytes as they are; a terminal would obey some of them.
        stream.buffer.write(cleaned(chunk.data.decode(errors="replace")).encode() if stream.isatty() else chunk.data)
        stream.flush()
    remarks = list(result.notices)
    if result.truncated:
        remarks.append(f"Output was cut after {result.output_limit_kilobytes} kilobytes.")
    if result.unenforced:
        remarks.append(f"Not enforced on this host: {', '.join(result.unenforced)}.")
    if result.outcome not in {Outcome.OK, Outcome.ERROR}:
        remarks.append(result.sentence)
    for remark in remarks:
        click.echo(printable(f"note: {remark}"), err=True)


def _exit_code(result: RunResult) -> int:
    match result.outcome:
        case Outcome.TIMED_OUT:
            return EXIT_TIMED_OUT
        case Outcome.OUT_OF_MEMORY | Outcome.TOO_MANY_PROCESSES | Outcome.KILLED:
            return EXIT_KILLED
        case Outcome.GVISOR_FAILED:
            return EXIT_REFUSED
        case Outcome.OK | Outcome.ERROR:
            return result.exit_code or 0
