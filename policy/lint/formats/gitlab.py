"""The report as GitLab's Code Quality artifact: one entry for each finding that counts.

An error is `critical`: the file is refused, or it opens what must stay closed. `blocker` is left to the pipeline,
which fails by the exit code.
Source: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format.
"""

from policy.lint.findings import Finding, Severity
from policy.lint.formats.json_text import json_text
from policy.lint.report import Report, program_path, rule_title, sentences

_SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "minor", Severity.NOTE: "info"}


def written(report: Report) -> str:
    """The report as a JSON array."""
    marked = report.fingerprinted()
    return json_text([_entry(finding, mark, report.folder) for finding, mark in marked if finding.suppressed is None])


def _entry(finding: Finding, fingerprint: str, folder: str) -> dict[str, object]:
    return {
        "description": sentences(finding),
        "check_name": rule_title(finding),
        "fingerprint": fingerprint,
        "severity": _SEVERITIES[finding.severity],
        "location": {
            "path": program_path(finding.location.file, folder),
            "lines": {"begin": finding.location.line},
        },
    }
