"""Annotations in GitHub Actions: one workflow command a line for each finding that counts, and nothing else.

File names and messages are the words of whoever wrote the change under review, so each command is escaped: none can end
early, begin another command or another line.
Source: https://docs.github.com/actions/reference/workflow-commands-for-github-actions, and `command.ts` of
https://github.com/actions/toolkit for the escapes.
"""

from policy.lint.findings import Finding, Severity
from policy.lint.report import Report, is_file, program_path, rule_title, sentences, shown

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def written(report: Report) -> str:
    """The report as workflow commands."""
    return "".join(_command(finding, report.folder) + "\n" for finding in report.counting)


def _command(finding: Finding, folder: str) -> str:
    named = {**_place(finding, folder), "title": rule_title(finding)}
    properties = ",".join(f"{name}={value.translate(_PROPERTY)}" for name, value in named.items())
    return f"::{_COMMANDS[finding.severity]} {properties}::{sentences(finding).translate(_DATA)}"


def _place(finding: Finding, folder: str) -> dict[str, str]:
    """Where it stands; nothing for what is no file of the repository."""
    location = finding.location
    if not is_file(location.file):
        return {}
    return {
        "file": shown(program_path(location.file, folder)),
        "line": str(location.line),
        "col": str(location.column),
        "endColumn": str(max(location.column, location.end_column)),
    }
