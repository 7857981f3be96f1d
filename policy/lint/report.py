"""What a run of the linter tells, and what all of its formats agree on: names, places, counts, identity.

Plain values and pure functions; the command decides where the text goes. Text out of files is untrusted: whatever
people look at goes through `shown`, whatever programs compare through `program_path` and `fingerprint`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from posixpath import normpath
from types import MappingProxyType

from policy.errors import LONGEST_PART, printable
from policy.lint.findings import Finding, Location, Severity

TOOL_NAME = "policy lint"
"""How reports name the tool."""
ENVIRONMENT = "environment"
"""What stands in place of a file name for the variables of the process."""
STANDARD_INPUT = "<stdin>"
"""What stands in place of a file name for standard input."""
LOG_COMMAND = re.compile(r"(##(?:vso)?)\[", re.IGNORECASE)
"""What GitHub's and Azure's runners obey anywhere in a line of a log, such as `##[stop-commands]`.

Source: `ActionCommand.TryParse` of https://github.com/actions/runner, and of Azure's agent, from which it comes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFacts:
    """What a format says of a rule, found or not."""

    id: str
    """`SBP101`; never changes its meaning."""
    name: str
    """`default-outside-ceiling`."""
    severity: Severity
    """How bad it usually is; a profile may make it worse."""
    summary: str
    """What it finds, one sentence."""
    rationale: str
    """Why that matters."""
    help: str
    """How to mend it, with an example, as Markdown."""
    family: str
    """`shape`, `insecure`, …"""
    security: bool
    """Whether leaving it lets somebody do more than was meant."""
    suppressible: bool
    """Whether a comment in the file may take it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that one run tells."""

    findings: tuple[Finding, ...]
    """By file, line, column and rule id; suppressed ones too."""
    rules: tuple[RuleFacts, ...]
    """Every rule of the linter."""
    files: tuple[str, ...]
    """What was looked at, as it was named on the command line."""
    tool_version: str
    """Of this distribution."""
    fixed: int = 0
    """Fixes that were applied."""
    complete: bool = True
    """Whether all that was named could be read."""
    folder: str = ""
    """Absolute path of the folder that file names are told to programs relative to; empty leaves them as named."""

    @property
    def counting(self) -> tuple[Finding, ...]:
        """The findings that no comment takes out."""
        return tuple(finding for finding in self.findings if finding.suppressed is None)

    def fingerprinted(self) -> Iterator[tuple[Finding, str]]:
        """Each finding, suppressed ones too, with its fingerprint: no two are equal."""
        seen: Counter[str] = Counter()
        for finding in self.findings:
            first = fingerprint(finding, 0, folder=self.folder)
            yield finding, fingerprint(finding, seen[first], folder=self.folder) if seen[first] else first
            seen[first] += 1


def fingerprint(finding: Finding, ordinal: int, *, folder: str = "") -> str:
    """What stays the same of a finding while the lines around it move, as SHA-256 in hex.

    It changes with: the rule's id; the file's path relative to the folder; the key path (for findings without key,
    the message); the ordinal, so that what follows an equal finding that was mended takes over its fingerprint. It does
    not change with line, column, severity, remedy, related places, or a comment that takes the finding out.

    Args:
        finding: what was found.
        ordinal: how many findings of the same rule, file and key stand before it.
        folder: as in `Report`.
    """
    location = finding.location
    about = ("key", location.key) if location.key else ("message", finding.message)
    # Only the last part can hold NUL, so no two findings share a text. File names need not be Unicode.
    text = "\0".join((finding.rule_id, program_path(location.file, folder), str(ordinal), *about))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_file(name: str) -> bool:
    """Whether it names a file, not the variables of the process or standard input."""
    return name not in {ENVIRONMENT, STANDARD_INPUT}


def program_path(name: str, folder: str = "") -> str:
    """A file name as programs compare it: no `./`, no repeated slashes, relative to the folder where it lies in it."""
    if not is_file(name):
        return name
    path = normpath(name)
    if folder and path.startswith("/"):
        return path.removeprefix(normpath(folder).rstrip("/") + "/")
    return path


def shown(untrusted_text: str) -> str:
    """Text as people are shown it: in one line of bounded length, control and bidirectional characters visible."""
    cut = untrusted_text if len(untrusted_text) <= LONGEST_PART else f"{untrusted_text[:LONGEST_PART]}…"
    plain = cut if cut.isprintable() else printable(cut)
    return obeyed_by_none(plain)


def obeyed_by_none(text: str) -> str:
    """Text in which no runner of a pipeline finds a command, except where one would begin the line."""
    return LOG_COMMAND.sub(r"\1\\x5b", text) if "##" in text else text


def place(location: Location) -> str:
    """Where something stands, as editors and terminals take it: `acme.toml:14:1`."""
    if (location.file, location.line, location.column) == (ENVIRONMENT, 1, 1):
        return ENVIRONMENT
    # A file name must not begin a workflow command where the text stands in the log of GitHub Actions.
    folder = "./" if location.file.lstrip().startswith("::") else ""
    return f"{folder}{shown(location.file)}:{location.line}:{location.column}"


def rule_title(finding: Finding) -> str:
    """The rule by id and name: `SBP101 default-outside-ceiling`."""
    return f"{finding.rule_id} {finding.rule_name}"


def sentences(finding: Finding) -> str:
    """What is wrong and what to do about it, in one line."""
    remedy = f" {shown(finding.remedy)}." if finding.remedy else ""
    return f"{shown(finding.message)}.{remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a report; its module is loaded when it is first used."""

    module: str
    """Where its function `written` is."""
    coloured: bool = False
    """Whether it can use colour."""

    def written(self, report: Report, *, colour: bool = False) -> str:
        """The report as text; colour says nothing where the format has none."""
        written = import_module(self.module).written
        text: str = written(report, colour=colour) if self.coloured else written(report)
        return text


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "text": Format(module="policy.lint.formats.text", coloured=True),
        "json": Format(module="policy.lint.formats.json_"),
        "sarif": Format(module="policy.lint.formats.sarif"),
        "junit": Format(module="policy.lint.formats.junit"),
        "github": Format(module="policy.lint.formats.github"),
        "gitlab": Format(module="policy.lint.formats.gitlab"),
    }
)
"""By the name that `--format` takes, the usual one first."""
