"""The report as JSON: every field, exactly."""

import dataclasses
import json
import re
from enum import Enum
from typing import Any

import pytest
from hypothesis import given

from policy.lint.findings import Finding
from policy.lint.formats.json_ import written
from policy.lint.formats.json_text import json_text
from policy.lint.report import Report, fingerprint
from tests.policy.lint.formats.reports import ANY_REPORT, finding, report, suppressed_report, usual_report

HALF_PAIR = re.compile("[\ud800-\udfff]")


def read(told: Report) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(written(told))
    return value


def plain(value: Finding) -> Any:  # noqa: ANN401 -- JSON
    """A finding as JSON by another way."""
    fields = dataclasses.asdict(value)
    return json.loads(json.dumps(fields, default=lambda item: item.value if isinstance(item, Enum) else list(item)))


def test_report_has_its_parts() -> None:
    told = read(usual_report())

    assert list(told) == ["version", "tool", "files", "findings", "summary"]
    assert told["version"] == 1
    assert told["tool"] == {"name": "policy lint", "version": "0.1.0"}
    assert told["files"] == ["acme.toml", "b c/ü.toml", "clean.toml"]
    assert told["summary"] == {
        "files": 3,
        "errors": 1,
        "warnings": 1,
        "notes": 1,
        "suppressed": 1,
        "fixable": 1,
        "fixed": 0,
    }


def test_every_field_of_every_finding_is_told() -> None:
    told = read(usual_report())["findings"]

    assert [{name: value for name, value in each.items() if name != "fingerprint"} for each in told] == [
        plain(each) for each in usual_report().findings
    ]
    assert told[0]["fingerprint"] == fingerprint(usual_report().findings[0], 0)


def test_suppressed_finding_is_told_with_its_comment() -> None:
    (told,) = read(suppressed_report())["findings"]

    assert told["suppressed"] == {"reason": "agreed with ops", "until": "2027-01-31", "line": 13}


def test_long_line_is_left_out() -> None:
    assert read(report(finding(excerpt="x" * 1001)))["findings"][0]["excerpt"] == ""


@pytest.mark.parametrize(
    ("text", "read_back"),
    [
        ("\U0001f511", "\U0001f511"),
        ("\ud83d\udd11", "\U0001f511"),
        ("\udc80", "\\udc80"),
        ("\ud800x", "\\ud800x"),
        ("\ud800\U0001f511", "\\ud800\U0001f511"),
        ("\\ud800", "\\ud800"),
        ("\\\udc80", "\\\\udc80"),
        ("\u202e\x1b\x00", "\u202e\x1b\x00"),
    ],
    ids=ascii,
)
def test_half_a_surrogate_pair_becomes_its_escape_in_plain_sight(text: str, read_back: str) -> None:
    written_text = json_text([text])

    assert written_text.isascii()
    assert json.loads(written_text) == [read_back]


@given(ANY_REPORT)
def test_any_report_is_one_line_of_strict_json(told: Report) -> None:
    text = written(told)

    assert text.isascii()
    assert text.count("\n") == 1
    value = json.loads(text, parse_constant=pytest.fail)
    assert HALF_PAIR.search(json.dumps(value, ensure_ascii=False)) is None
    assert len(value["findings"]) == len(told.findings)
