"""`policy audit verify`: is this log of runs as it was written?

The log is read once, as a stream; one in use, up to where it stood when no line was half written. What is right is
decided in `policy.audit_chain`. What no reading of the file alone can show is said each time.
"""

import fcntl
import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import click

from policy.audit import AUDIT_LINE_MAX_BYTES, AUDIT_LOCK_SECONDS, audit_lock_path
from policy.audit_chain import ChainCheck
from policy.command_line import say
from policy.errors import printable
from policy.locks import locked_within

EXIT_NO = 1
LOCK_LOOK_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""How a log's lock is opened by who only reads: it is never made."""
PROGRESS_AFTER_SECONDS = 2.0
PROGRESS_EVERY_BYTES = 1 << 20

UNSEEN = (
    "lines cut off its end, and a log written anew from some line on by somebody who computed the hashes too. Keep the "
    "head where they cannot write, and give it with --head"
)
"""What the file alone cannot show."""


def _parsed_head(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    """The hash as the log writes it."""
    if text is None or re.fullmatch(r"[0-9a-f]{64}", text.lower(), re.ASCII):
        return text and text.lower()
    raise click.BadParameter(f"{printable(text)!r} is not 64 hexadecimal digits", ctx=context, param=option)


@click.group("audit")
def audit_command() -> None:
    """Check the log of runs that SANDBOX_AUDIT_LOG names.

    \b
    Example:
      policy audit verify /var/log/sandbox/audit.jsonl
    """


@audit_command.command("verify")
@click.option(
    "--head", callback=_parsed_head, metavar="HASH", help="A head that was noted earlier, and must be in the log."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("file", type=click.File("rb"))
def audit_verify_command(head: str | None, as_json: bool, file: BinaryIO) -> None:
    """Check that no line of FILE was edited, removed, repeated or moved; - reads the standard input.

    Without --head it cannot be seen whether lines were cut off the end, or the log was written anew from some line on
    with hashes computed anew: keep the head that this prints where whoever can write the log cannot.

    \b
    Examples:
      policy audit verify audit.jsonl
      policy audit verify --head 3b1f…c09a audit.jsonl
      zcat audit.jsonl.2.gz | policy audit verify --json -
    """
    chain = ChainCheck(wanted_head=head)
    try:
        size = settled_size(file)
        for raw in with_progress(log_lines(file, size), size):
            chain.take(raw)
    except OSError as error:
        raise click.BadParameter(
            f"{printable(file.name)}: it cannot be read: {error.strerror}", param_hint="FILE"
        ) from error
    chain.end()
    if as_json:
        click.echo(json.dumps({"file": file.name, **_as_json(chain)}, indent=2))
    else:
        _print_check(file.name, chain)
    sys.exit(0 if chain.intact else EXIT_NO)


def settled_size(file: BinaryIO) -> int | None:
    """How long a log is while nobody writes a line, so that none is read half; nothing for a pipe."""
    descriptor = file.fileno()
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    with _lines_held_back(descriptor):
        return os.fstat(descriptor).st_size


@contextmanager
def _lines_held_back(descriptor: int) -> Iterator[None]:
    """Let no process add a line meanwhile; where the lock is missing, or not for this reader, go on without it."""
    place = Path(os.path.realpath(f"/proc/self/fd/{descriptor}"))
    with ExitStack() as until_end:
        with suppress(OSError):
            lock = os.open(audit_lock_path(place), LOCK_LOOK_FLAGS)
            until_end.callback(os.close, lock)
            locked_within(lock, fcntl.LOCK_SH, AUDIT_LOCK_SECONDS)
        yield


def log_lines(file: BinaryIO, size: int | None) -> Iterator[bytes]:
    """Each line with its line feed; of one that is too long, only so much that this can be seen."""
    limit = AUDIT_LINE_MAX_BYTES + 1
    left = sys.maxsize if size is None else size
    while raw := file.readline(min(limit, left)):
        left -= len(raw)
        rest = raw
        while len(rest) == limit and not rest.endswith(b"\n"):
            rest = file.readline(min(limit, left))
            left -= len(rest)
        yield raw


def with_progress(lines: Iterator[bytes], size: int | None) -> Iterator[bytes]:
    """The same lines; where a person waits longer than a moment at a terminal, they see how far it is."""
    started, done, shown, watched = time.monotonic(), 0, 0, sys.stderr.isatty()
    advance: Callable[[int], None] | None = None
    with ExitStack() as until_end:
        for raw in lines:
            yield raw
            done += len(raw)
            if watched and advance is None and time.monotonic() - started > PROGRESS_AFTER_SECONDS:
                advance = _started_progress(until_end, size)
            if advance is not None and done - shown >= PROGRESS_EVERY_BYTES:
                advance(done)
                shown = done


def _started_progress(until_end: ExitStack, size: int | None) -> Callable[[int], None]:
    from rich.console import Console  # noqa: PLC0415 -- takes time to load, and is rarely needed
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn  # noqa: PLC0415 -- as above

    console = Console(stderr=True)
    progress = Progress(
        "Checking the log", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console, transient=True
    )
    until_end.enter_context(progress)
    task = progress.add_task("", total=size)
    return lambda done: progress.update(task, completed=done)


def _as_json(chain: ChainCheck) -> dict[str, Any]:
    return {
        "intact": chain.intact,
        "runs": chain.runs,
        "first_time": chain.first_time,
        "last_time": chain.last_time,
        "head": chain.head,
        "head_given": chain.wanted_head,
        "head_line": chain.head_line,
        "findings": [
            {"line": each.line, "last_line": each.last_line, "kind": each.kind.value, "reason": each.reason}
            for each in chain.findings
        ],
        "findings_found": chain.found,
        "unseen": _unseen_words(chain),
    }


def _print_check(name: str, chain: ChainCheck) -> None:
    times = f", {chain.first_time} to {chain.last_time}" if chain.first_time else ""
    say(f"{name}: {_how_many(chain.runs, 'run')}{times}.")
    for each in chain.findings:
        place = f"line {each.line}" if each.line == each.last_line else f"lines {each.line} to {each.last_line}"
        say(f"  {place}: {each.kind.value}: {each.reason}.")
    if chain.found > len(chain.findings):
        say(f"  … and {chain.found - len(chain.findings)} more.")
    if chain.head:
        say(f"Head: {chain.head}")
    if chain.head_line is not None:
        say(f"The head given is line {chain.head_line}; {_how_many(chain.runs - chain.runs_to_head, 'run')} after it.")
    if chain.wanted_head is not None and chain.head_line is None:
        say(f"{_how_many(chain.found, 'finding')} in the lines, and the head given is not among them: cut or replaced.")
    else:
        say(f"{_how_many(chain.found, 'finding')}. {_unseen_words(chain)}.")


def _unseen_words(chain: ChainCheck) -> str:
    return f"Not to be seen {'here' if chain.head_line is None else 'behind the head given'}: {UNSEEN}"


def _how_many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
