"""SARIF, held against the schema of OASIS, and what GitHub needs beyond it."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from jsonschema import Draft4Validator

from policy.lint.findings import Edit, Fix, Location, Suppressed
from policy.lint.formats.sarif import written
from policy.lint.report import ENVIRONMENT, STANDARD_INPUT, Report, fingerprint
from tests.policy.lint.formats.reports import (
    ANY_REPORT,
    NASTY,
    RULES,
    finding,
    nasty_report,
    report,
    suppressed_report,
    usual_report,
)

# RFC 3986: what may stand in a path; the colon only behind a scheme or a slash, which `urlsplit` tells.
URI = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})+")


@cache
def validator() -> Draft4Validator:
    path = Path(__file__).parents[1] / "schemas" / "sarif-schema-2.1.0.json"
    return Draft4Validator(json.loads(path.read_text(encoding="utf-8")))


def read(told: Report) -> dict[str, Any]:
    """The one run, after the schema has had its say."""
    log = json.loads(written(told))
    assert [f"{error.json_path}: {error.message}" for error in validator().iter_errors(log)] == []
    (run,) = log["runs"]
    assert isinstance(run, dict)
    return run


def result(*findings: Any, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- as `report` takes them
    value: dict[str, Any] = read(report(*findings, **fields))["results"][0]
    return value


def artifacts(value: object) -> list[dict[str, Any]]:
    """Every `artifactLocation` anywhere in it."""
    if isinstance(value, list):
        return [found for item in value for found in artifacts(item)]
    if not isinstance(value, dict):
        return []
    own = [value["artifactLocation"]] if "artifactLocation" in value else []
    return own + [found for item in value.values() for found in artifacts(item)]


def test_schema_refuses_what_is_no_sarif() -> None:
    log = json.loads(written(usual_report()))
    log["runs"][0]["results"][0]["level"] = "fatal"

    assert not validator().is_valid(log)


def test_run_names_tool_and_units() -> None:
    run = read(usual_report())

    driver = run["tool"]["driver"]
    assert (driver["name"], driver["semanticVersion"]) == ("policy lint", "0.1.0")
    assert run["columnKind"] == "unicodeCodePoints"
    assert run["invocations"] == [{"executionSuccessful": True}]


def test_every_rule_is_described_found_or_not() -> None:
    rules = read(report())["tool"]["driver"]["rules"]

    assert [rule["id"] for rule in rules] == [rule.id for rule in RULES]
    assert rules[1] == {
        "id": "SBP203",
        "name": "Unlimited",
        "shortDescription": {"text": "A limit is lifted altogether"},
        "fullDescription": {"text": "One run can then take all of the host"},
        "help": {"text": "Set a number", "markdown": "Set a number"},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["security", "insecure"], "security-severity": "5.0"},
    }
    assert rules[0]["name"] == "DefaultOutsideCeiling"
    assert rules[0]["properties"] == {"tags": ["contradiction"]}


def test_result_tells_all_of_a_finding() -> None:
    (told, *_), first = read(usual_report())["results"], usual_report().findings[0]

    assert told == {
        "ruleId": "SBP101",
        "ruleIndex": 0,
        "level": "error",
        "message": {"text": "the default 90 is looser than the ceiling 60. Set the default to at most 60."},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": "acme.toml", "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": 14, "startColumn": 11, "endColumn": 13, "snippet": {"text": "90"}},
                },
                "logicalLocations": [{"fullyQualifiedName": "limits.max_runtime_seconds.default", "kind": "property"}],
            }
        ],
        "partialFingerprints": {"policyLint/v1": fingerprint(first, 0)},
        "relatedLocations": [
            {
                "id": 1,
                "message": {"text": "limits.max_runtime_seconds.ceiling"},
                "physicalLocation": {
                    "artifactLocation": {"uri": "acme.toml", "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": 15, "startColumn": 1, "endColumn": 1},
                },
                "logicalLocations": [{"fullyQualifiedName": "limits.max_runtime_seconds.ceiling", "kind": "property"}],
            }
        ],
        "fixes": [
            {
                "description": {"text": "Lower the default to 60"},
                "artifactChanges": [
                    {
                        "artifactLocation": {"uri": "acme.toml", "uriBaseId": "%SRCROOT%"},
                        "replacements": [
                            {
                                "deletedRegion": {"charOffset": 300, "charLength": 2},
                                "insertedContent": {"text": "60"},
                            }
                        ],
                    }
                ],
            }
        ],
    }


def test_suppressed_result_says_why_and_until_when() -> None:
    (told,) = read(suppressed_report())["results"]

    (suppression,) = told["suppressions"]
    assert (suppression["kind"], suppression["justification"]) == ("inSource", "agreed with ops")
    assert suppression["location"]["physicalLocation"]["region"]["startLine"] == 13
    assert suppression["properties"] == {"until": "2027-01-31"}


def test_finding_that_counts_has_no_suppressions() -> None:
    assert "suppressions" not in result(finding())


def test_finding_of_a_rule_that_is_not_listed_has_no_index() -> None:
    assert "ruleIndex" not in result(finding(rule_id="SBP999"))


def test_rule_made_worse_by_a_profile_says_so_in_its_result() -> None:
    run = read(report(finding(rule_id="SBP203")))

    assert run["results"][0]["level"] == "error"
    assert run["tool"]["driver"]["rules"][1]["defaultConfiguration"]["level"] == "warning"


@pytest.mark.parametrize(
    ("name", "folder", "told"),
    [
        ("a.toml", "", {"uri": "a.toml", "uriBaseId": "%SRCROOT%"}),
        ("./b c//ü.toml", "", {"uri": "b%20c/%C3%BC.toml", "uriBaseId": "%SRCROOT%"}),
        ("c:d.toml", "", {"uri": "c%3Ad.toml", "uriBaseId": "%SRCROOT%"}),
        ("a#b?c%20.toml", "", {"uri": "a%23b%3Fc%2520.toml", "uriBaseId": "%SRCROOT%"}),
        ("../a.toml", "", {"uri": "../a.toml", "uriBaseId": "%SRCROOT%"}),
        ("\udcff.toml", "", {"uri": "%FF.toml", "uriBaseId": "%SRCROOT%"}),
        ("/etc/a b.toml", "", {"uri": "file:///etc/a%20b.toml"}),
        ("//etc/a.toml", "", {"uri": "file:///etc/a.toml"}),
        ("/repo/a.toml", "/repo", {"uri": "a.toml", "uriBaseId": "%SRCROOT%"}),
        (
            STANDARD_INPUT,
            "",
            {"uri": "%3Cstdin%3E", "uriBaseId": "%SRCROOT%", "description": {"text": "Standard input"}},
        ),
        (
            ENVIRONMENT,
            "",
            {
                "uri": "environment",
                "uriBaseId": "%SRCROOT%",
                "description": {"text": "The variables of the process"},
            },
        ),
    ],
)
def test_file_becomes_a_uri(name: str, folder: str, told: dict[str, Any]) -> None:
    (location,) = result(finding(location=Location(file=name)), folder=folder)["locations"]

    assert location["physicalLocation"]["artifactLocation"] == told


def test_variable_is_told_as_a_variable() -> None:
    (location,) = result(finding(location=Location(file=ENVIRONMENT, key="SANDBOX_DEBUG"), excerpt=""))["locations"]

    assert location["logicalLocations"] == [{"fullyQualifiedName": "SANDBOX_DEBUG", "kind": "variable"}]


def test_columns_count_code_points_and_never_run_backwards() -> None:
    location = Location(file="a.toml", line=1, column=3, end_column=1)

    region = result(finding(location=location, excerpt="\U0001f511 = 1"))["locations"][0]["physicalLocation"]["region"]

    assert region == {"startLine": 1, "startColumn": 3, "endColumn": 3}


@pytest.mark.parametrize(
    "unfixable",
    [
        finding(fix=Fix(description="Nothing", edits=())),
        finding(
            location=Location(file=STANDARD_INPUT),
            fix=Fix(description="Remove it", edits=(Edit(start=0, end=1, text=""),)),
        ),
    ],
    ids=["no edits", "no file"],
)
def test_fix_that_cannot_be_told_is_left_out(unfixable: Any) -> None:  # noqa: ANN401 -- a finding
    assert "fixes" not in result(unfixable)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("[click](https://evil.example) here", "[click] (https://evil.example) here."),
        ("{ default = 1 } and {0}", "{{ default = 1 }} and {{0}}."),
        ("a\u202eb\nc", "a\\u202eb\\nc."),
    ],
    ids=["link", "placeholder", "bidi"],
)
def test_link_or_placeholder_injected_by_a_message_stays_text(message: str, text: str) -> None:
    assert result(finding(message=message, remedy=""))["message"]["text"] == text


def test_suppression_of_a_nasty_reason_is_shown_safely() -> None:
    told = finding(suppressed=Suppressed(reason="\u202e\x1b", until="2027-01-31", line=1))

    assert result(told)["suppressions"][0]["justification"] == "\\u202e\\x1b"


def test_nasty_report_is_valid() -> None:
    assert len(read(nasty_report())["results"]) == 2 * len(NASTY)


@given(ANY_REPORT)
def test_any_report_is_valid_sarif_with_valid_uris(told: Report) -> None:
    run = read(told)

    assert len(run["results"]) == len(told.findings)
    marks = [each["partialFingerprints"]["policyLint/v1"] for each in run["results"]]
    assert len(set(marks)) == len(marks)
    for artifact in artifacts(run):
        assert URI.fullmatch(artifact["uri"])
        assert ("uriBaseId" in artifact) is (urlsplit(artifact["uri"]).scheme == "")
        assert urlsplit(artifact["uri"]).scheme in {"", "file"}
