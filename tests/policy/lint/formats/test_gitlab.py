"""GitLab's Code Quality artifact."""

import json
import re
from typing import Any

from hypothesis import given

from policy.lint.findings import Location, Severity
from policy.lint.formats.gitlab import written
from policy.lint.report import Report, fingerprint
from tests.policy.lint.formats.reports import ANY_REPORT, finding, report, suppressed_report, usual_report

SEVERITIES = {"info", "minor", "major", "critical", "blocker"}


def read(told: Report) -> list[dict[str, Any]]:
    value: list[dict[str, Any]] = json.loads(written(told))
    return value


def test_each_finding_that_counts_is_an_entry() -> None:
    first, *others = read(usual_report())

    assert first == {
        "description": "the default 90 is looser than the ceiling 60. Set the default to at most 60.",
        "check_name": "SBP101 default-outside-ceiling",
        "fingerprint": fingerprint(usual_report().findings[0], 0),
        "severity": "critical",
        "location": {"path": "acme.toml", "lines": {"begin": 14}},
    }
    assert [(each["severity"], each["location"]["path"]) for each in others] == [
        ("info", "b c/ü.toml"),
        ("minor", "environment"),
    ]


def test_nothing_found_is_an_empty_list() -> None:
    assert written(report()) == "[]\n"
    assert read(suppressed_report()) == []


def test_path_is_relative_without_leading_dot() -> None:
    told = report(
        finding(location=Location(file="./policies/a.toml")),
        finding(location=Location(file="/builds/acme/policies/a.toml")),
        folder="/builds/acme",
    )

    assert [each["location"]["path"] for each in read(told)] == ["policies/a.toml"] * 2


def test_equal_findings_have_fingerprints_of_their_own() -> None:
    told = report(finding(), finding(), finding(severity=Severity.NOTE))

    assert len({each["fingerprint"] for each in read(told)}) == 3


@given(ANY_REPORT)
def test_any_report_is_entries_that_gitlab_takes(told: Report) -> None:
    entries = read(told)

    assert len(entries) == len(told.counting)
    assert len({each["fingerprint"] for each in entries}) == len(entries)
    for each in entries:
        assert each["severity"] in SEVERITIES
        assert re.fullmatch("[0-9a-f]{64}", each["fingerprint"])
        assert each["description"].isprintable()
        assert not each["location"]["path"].startswith("./")
