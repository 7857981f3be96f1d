"""Is a chain of the audit log's lines as it was written? What is wrong, and where.

Lines come one by one, and only the end of the chain is remembered, so that memory does not grow with the log. Each is
checked by itself, then against the one before. Reading files and printing is left to `policy audit verify`.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from policy.audit import GENESIS_HASH, AuditEntry, LineFault, TornBytes, read_audit_line

MOST_FINDINGS = 1000
"""Findings that are kept; the rest is counted."""

NO_RECORD = "no record: overwritten or put in"


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


def _order_words(sequence: int, expected: int) -> str:
    if sequence < expected:
        return f"it is run {sequence}, where run {expected} should stand: it was repeated or moved, or the log joined"
    missing = sequence - expected
    return f"{missing} line{'s are' if missing > 1 else ' is'} missing before it: it is run {sequence}, not {expected}"
