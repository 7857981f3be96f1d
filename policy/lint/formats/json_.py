"""The report as one JSON object, for programs of one's own: every field of every finding, exactly as it is.

`version` rises when a field changes its meaning or goes; new fields may come without.
"""

from collections import Counter

from policy.lint.findings import Finding, Fix, Location, Suppressed
from policy.lint.formats.json_text import LONGEST_EXCERPT, json_text
from policy.lint.report import TOOL_NAME, Report

VERSION = 1


def written(report: Report) -> str:
    """The report as JSON."""
    return json_text(
        {
            "version": VERSION,
            "tool": {"name": TOOL_NAME, "version": report.tool_version},
            "files": report.files,
            "findings": [_finding(finding, mark) for finding, mark in report.fingerprinted()],
            "summary": _summary(report),
        }
    )


def _finding(finding: Finding, fingerprint: str) -> dict[str, object]:
    return {
        "rule_id": finding.rule_id,
        "rule_name": finding.rule_name,
        "severity": finding.severity.value,
        "location": _location(finding.location),
        "message": finding.message,
        "remedy": finding.remedy,
        "related": [_location(related) for related in finding.related],
        "fix": _fix(finding.fix) if finding.fix else None,
        "suppressed": _suppressed(finding.suppressed) if finding.suppressed else None,
        # Left out where it is long: a file of one line with 2,000 findings would be repeated 2,000 times.
        "excerpt": finding.excerpt if len(finding.excerpt) <= LONGEST_EXCERPT else "",
        "fingerprint": fingerprint,
    }


def _location(location: Location) -> dict[str, object]:
    return {
        "file": location.file,
        "line": location.line,
        "column": location.column,
        "end_column": location.end_column,
        "key": location.key,
    }


def _fix(fix: Fix) -> dict[str, object]:
    edits = [{"start": edit.start, "end": edit.end, "text": edit.text} for edit in fix.edits]
    return {"description": fix.description, "edits": edits}


def _suppressed(suppressed: Suppressed) -> dict[str, object]:
    return {"reason": suppressed.reason, "until": suppressed.until, "line": suppressed.line}


def _summary(report: Report) -> dict[str, int]:
    """The numbers of findings that count, and of what else was done."""
    numbers = Counter(finding.severity.value for finding in report.counting)
    return {
        "files": len(report.files),
        "errors": numbers["error"],
        "warnings": numbers["warning"],
        "notes": numbers["note"],
        "suppressed": len(report.findings) - len(report.counting),
        "fixable": sum(finding.fix is not None for finding in report.counting),
        "fixed": report.fixed,
    }
