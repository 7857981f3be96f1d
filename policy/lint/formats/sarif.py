"""The report as SARIF 2.1.0, which GitHub code scanning, Azure DevOps and editors read.

Every rule is described, found or not. Suppressed findings are in it, marked as such. Messages are plain text: braces
and links, which SARIF gives a meaning, are taken out of untrusted words. The help of a rule is all in the report: the
project has no address yet that a link could lead to.
Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/sarif-v2.1.0-errata01-os-complete.html; what GitHub
needs of it: https://docs.github.com/code-security/reference/code-scanning/sarif-support-for-code-scanning.
"""

from collections.abc import Mapping
from os import fsencode
from urllib.parse import quote_from_bytes

from policy.lint.findings import Finding, Fix, Location, Severity, Suppressed
from policy.lint.formats.json_text import LONGEST_EXCERPT, json_text
from policy.lint.report import ENVIRONMENT, TOOL_NAME, Report, RuleFacts, is_file, program_path, sentences, shown

SCHEMA_URL = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT_NAME = "policyLint/v1"
"""Whoever changes what goes into a fingerprint raises its version."""

# GitHub's bands: above 7.0 is high, above 4.0 medium, below it low.
_SECURITY_SEVERITIES = {Severity.ERROR: "8.0", Severity.WARNING: "5.0", Severity.NOTE: "2.0"}

_Object = dict[str, object]


def written(report: Report) -> str:
    """The report as one SARIF log with one run."""
    indexes = {rule.id: index for index, rule in enumerate(report.rules)}
    run = {
        "tool": {"driver": _driver(report)},
        "invocations": [{"executionSuccessful": report.complete}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, mark, indexes, report.folder) for finding, mark in report.fingerprinted()],
    }
    return json_text({"$schema": SCHEMA_URL, "version": "2.1.0", "runs": [run]})


def _driver(report: Report) -> _Object:
    return {
        "name": TOOL_NAME,
        "version": report.tool_version,
        "semanticVersion": report.tool_version,
        "rules": [_rule(rule) for rule in report.rules],
    }


def _rule(rule: RuleFacts) -> _Object:
    properties: _Object = {"tags": list(dict.fromkeys(["security", rule.family] if rule.security else [rule.family]))}
    if rule.security:
        properties["security-severity"] = _SECURITY_SEVERITIES[rule.severity]
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.rationale},
        "help": {"text": rule.help, "markdown": rule.help},
        "defaultConfiguration": {"level": rule.severity.value},
        "properties": properties,
    }


def _result(finding: Finding, fingerprint: str, indexes: Mapping[str, int], folder: str) -> _Object:
    result: _Object = {
        "ruleId": finding.rule_id,
        "level": finding.severity.value,
        "message": {"text": _message(sentences(finding))},
        "locations": [_location(finding.location, folder, finding.excerpt)],
        "partialFingerprints": {FINGERPRINT_NAME: fingerprint},
    }
    if finding.rule_id in indexes:
        result["ruleIndex"] = indexes[finding.rule_id]
    if finding.related:
        result["relatedLocations"] = [
            _related(location, folder, number) for number, location in enumerate(finding.related, start=1)
        ]
    if finding.suppressed:
        result["suppressions"] = [_suppression(finding.suppressed, finding.location.file, folder)]
    if finding.fix and finding.fix.edits and is_file(finding.location.file):
        result["fixes"] = [_fix(finding.fix, finding.location.file, folder)]
    return result


def _message(text: str) -> str:
    """Plain text of which SARIF reads no part as a placeholder or a link.

    Source: SARIF 2.1.0, 3.11.5 and 3.11.6.
    """
    return text.replace("{", "{{").replace("}", "}}").replace("](", "] (")


def _location(location: Location, folder: str, excerpt: str = "") -> _Object:
    region: _Object = {
        "startLine": location.line,
        "startColumn": location.column,
        "endColumn": max(location.column, location.end_column),
    }
    snippet = excerpt[location.column - 1 : location.end_column - 1]
    if 0 < len(snippet) <= LONGEST_EXCERPT:
        region["snippet"] = {"text": snippet}
    placed: _Object = {"physicalLocation": {"artifactLocation": _artifact(location.file, folder), "region": region}}
    if location.key:
        kind = "variable" if location.file == ENVIRONMENT else "property"
        placed["logicalLocations"] = [{"fullyQualifiedName": shown(location.key), "kind": kind}]
    return placed


def _artifact(name: str, folder: str) -> _Object:
    """The file as a URI; GitHub refuses a log with a location that has none, so what is no file has one too."""
    path = program_path(name, folder)
    uri = quote_from_bytes(_name_bytes(path))
    if not is_file(name):
        description = "The variables of the process" if name == ENVIRONMENT else "Standard input"
        return {"uri": uri, "uriBaseId": "%SRCROOT%", "description": {"text": description}}
    if path.startswith("/"):
        return {"uri": f"file:///{uri.lstrip('/')}"}
    return {"uri": uri, "uriBaseId": "%SRCROOT%"}


def _name_bytes(name: str) -> bytes:
    """The bytes of a file name; of what cannot be one, its text with what is no character escaped."""
    try:
        return fsencode(name)
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace")


def _related(location: Location, folder: str, number: int) -> _Object:
    named = shown(location.key) or "See also"
    return {"id": number, "message": {"text": _message(named)}, **_location(location, folder)}


def _suppression(suppressed: Suppressed, file: str, folder: str) -> _Object:
    comment = Location(file=file, line=suppressed.line)
    return {
        "kind": "inSource",
        "justification": shown(suppressed.reason),
        "location": _location(comment, folder),
        "properties": {"until": suppressed.until},
    }


def _fix(fix: Fix, file: str, folder: str) -> _Object:
    replacements = [
        {
            "deletedRegion": {"charOffset": edit.start, "charLength": edit.end - edit.start},
            "insertedContent": {"text": edit.text},
        }
        for edit in fix.edits
    ]
    change = {"artifactLocation": _artifact(file, folder), "replacements": replacements}
    return {"description": {"text": _message(shown(fix.description))}, "artifactChanges": [change]}
