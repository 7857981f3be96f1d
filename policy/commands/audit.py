"""`policy audit verify`: is this log of runs as it was written?

The log is read once, as a stream, in memory that does not grow with it; on a log in use, up to where it stood when no
line was half written. Each line is checked by itself, then against the one before. What no reading of the file alone
can show is said each time.
"""

import fcntl
import hashlib
import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, BinaryIO

import click

from policy.audit import (
    AUDIT_LINE_MAX_BYTES,
    AUDIT_LOCK_SECONDS,
    GENESIS_HASH,
    AuditEntry,
    LineFault,
    TornBytes,
    read_audit_line,
)
from policy.command_line import printable, say
from policy.locks import locked_within

EXIT_NO = 1
MOST_FINDINGS = 1000
"""Findings that are kept; the rest is counted."""
PROGRESS_AFTER_SECONDS = 2.0
PROGRESS_EVERY_BYTES = 1 << 20

NO_RECORD = "no record: overwritten or put in"
UNSEEN = (
    "lines cut off its end, and a log written anew from some line on by somebody who computed the hashes too. Keep the "
    "head where they cannot write, and give it with --head"
)
"""What the file alone cannot show."""


class FindingKind(Enum):
    """What is wrong with a log."""

    EDITED = "edited"
    """A line is not as it was written."""
    UNREADABLE = "unreadable"
    """Lines are no records, and no crash accounts for them."""
    TORN = "torn"
    """Lines were cut short; the next record, if there is one, accounts for them."""
    BROKEN_CHAIN = "broken-chain"
    """Lines before this one were removed, replaced, repeated or moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """One thing that is wrong, and where."""

    line: int
    """The line's number, from 1."""
    last_line: int
    """The last line's number, where it is about several."""
    kind: FindingKind
    """What it is."""
    reason: str
    """The same in words, without full stop."""


@dataclass(slots=True)
class Debris:
    """Lines in a row that are no records, until the next record says whether a crash left them."""

    first: int = 0
    """Number of the first."""
    count: int = 0
    """How many."""
    size: int = 0
    """Bytes of them all, line feeds included."""
    may_be_torn: bool = True
    """Whether a crash may have left them all."""
    digest: Any = field(default_factory=hashlib.sha256)
    """SHA-256 over them all."""

    def add(self, number: int, raw: bytes, fault: LineFault) -> None:
        """Take in one more."""
        self.first = self.first or number
        self.count += 1
        self.size += len(raw)
        self.may_be_torn &= fault is LineFault.UNREADABLE
        self.digest.update(raw)

    def is_told_by(self, told: TornBytes | None) -> bool:
        """Whether a record accounts for them."""
        mine = TornBytes(size=self.size, sha256=self.digest.hexdigest())
        return told == mine and self.may_be_torn

    def finding(self, kind: FindingKind, reason: str) -> AuditFinding:
        """What is wrong with them."""
        return AuditFinding(line=self.first, last_line=self.first + self.count - 1, kind=kind, reason=reason)


@dataclass(slots=True)
class ChainCheck:
    """Follows a chain line by line, and remembers only its end."""

    wanted_head: str | None = None
    """The hash that somebody kept."""
    lines: int = 0
    """How many were read."""
    runs: int = 0
    """How many of them are records, edited ones included."""
    first_time: str | None = None
    """When the first was written."""
    last_time: str | None = None
    """When the last was written."""
    head: str | None = None
    """The hash of the last record that is as it was written."""
    head_line: int | None = None
    """Where the wanted head is."""
    runs_to_head: int = 0
    """How many records stand there and before it."""
    findings: list[AuditFinding] = field(default_factory=list)
    """What is wrong: the first of it."""
    found: int = 0
    """How much is wrong."""
    _debris: Debris = field(default_factory=Debris)
    _sequence: int = 0
    _digest: str = GENESIS_HASH

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong, and the head, if one was given, is there."""
        return not self.found and (self.wanted_head is None or self.head_line is not None)

    def take(self, raw: bytes) -> None:
        """Check the next line, given with its line feed."""
        self.lines += 1
        line = read_audit_line(raw.removesuffix(b"\n"))
        if isinstance(line, LineFault):
            self._debris.add(self.lines, raw, line)
            return
        self.runs += 1
        if line.edit:
            self._add(FindingKind.EDITED, line.edit)
        self._follow(line)
        if not raw.endswith(b"\n"):
            self._add(FindingKind.TORN, "its line feed is missing: it was cut short, or its end was edited")
        self._remember(line)

    def end(self) -> None:
        """Judge what stands behind the last record."""
        if self._debris.count and self._debris.may_be_torn:
            reason = "no record, and none follows: a crash cut it short, or it was edited"
            self._keep(self._debris.finding(FindingKind.TORN, reason))
        elif self._debris.count:
            self._keep(self._debris.finding(FindingKind.UNREADABLE, NO_RECORD))

    def _follow(self, line: AuditEntry) -> None:
        """Check a record against what stands before it."""
        debris, self._debris = self._debris, Debris()
        told = line.after_torn
        unexplained = 0
        if debris.count and debris.is_told_by(told):
            reason = f"cut short by a crash, as line {self.lines} tells: the record of a run is lost"
            self._keep(debris.finding(FindingKind.TORN, reason))
        elif debris.count:
            unexplained = debris.count
            self._keep(debris.finding(FindingKind.UNREADABLE, NO_RECORD))
        elif told:
            self._add(FindingKind.BROKEN_CHAIN, "the line cut short before it, of which it tells, is gone")
        if line.previous == self._digest and line.sequence == self._sequence + 1:
            return
        expected = self._sequence + 1 + unexplained
        if line.sequence != expected:
            self._add(FindingKind.BROKEN_CHAIN, _order_words(line.sequence, expected))
        elif not unexplained:
            self._add(FindingKind.BROKEN_CHAIN, "it was not written behind the line before it, which was replaced")

    def _remember(self, line: AuditEntry) -> None:
        self._sequence, self._digest = line.sequence, line.digest
        self.first_time = self.first_time or line.time
        self.last_time = line.time
        if not line.edit:
            self.head = line.digest
        if not line.edit and line.digest == self.wanted_head:
            self.head_line, self.runs_to_head = self.lines, self.runs

    def _add(self, kind: FindingKind, reason: str) -> None:
        self._keep(AuditFinding(line=self.lines, last_line=self.lines, kind=kind, reason=reason))

    def _keep(self, finding: AuditFinding) -> None:
        self.found += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)


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
@click.pass_context
def audit_verify_command(context: click.Context, head: str | None, as_json: bool, file: BinaryIO) -> None:
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
    context.exit(0 if chain.intact else EXIT_NO)


def settled_size(file: BinaryIO) -> int | None:
    """How long a log is while nobody writes a line, so that none is read half; nothing for a pipe."""
    descriptor = file.fileno()
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    locked = locked_within(descriptor, fcntl.LOCK_SH, AUDIT_LOCK_SECONDS)
    try:
        return os.fstat(descriptor).st_size
    finally:
        if locked:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


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


def _order_words(sequence: int, expected: int) -> str:
    if sequence < expected:
        return f"it is run {sequence}, where run {expected} should stand: it was repeated or moved, or the log joined"
    missing = sequence - expected
    return f"{missing} line{'s are' if missing > 1 else ' is'} missing before it: it is run {sequence}, not {expected}"


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
    elif chain.wanted_head is not None:
        say("The head given is not in this log: it was cut or replaced.")
    say(f"{_how_many(chain.found, 'finding')}. {_unseen_words(chain)}.")


def _unseen_words(chain: ChainCheck) -> str:
    return f"Not to be seen {'here' if chain.head_line is None else 'behind the head given'}: {UNSEEN}"


def _how_many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
