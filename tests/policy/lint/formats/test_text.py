"""The report for people. Goldens lie in `tests/policy/goldens/lint`; `WRITE_GOLDENS=1` writes them anew."""

import os
from pathlib import Path

import pytest
from hypothesis import given

from policy.lint.findings import Location, Severity
from policy.lint.formats.text import written
from policy.lint.report import Report
from tests.policy.lint.formats.reports import (
    ANY_REPORT,
    NASTY,
    finding,
    nasty_report,
    report,
    suppressed_report,
    usual_report,
)

GOLDENS = Path(__file__).parents[2] / "goldens" / "lint"


@pytest.mark.parametrize(
    ("name", "told", "colour"),
    [
        ("text.txt", usual_report(), False),
        ("text-colour.txt", usual_report(), True),
        ("text-nasty.txt", nasty_report(), False),
    ],
    ids=["plain", "coloured", "nasty"],
)
def test_report_for_people_is_golden(*, name: str, told: Report, colour: bool) -> None:
    text = written(told, colour=colour)

    golden = GOLDENS / name
    if os.environ.get("WRITE_GOLDENS"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("told", "summary"),
    [
        (report(files=("a.toml",)), "1 file: nothing found."),
        (report(files=("a.toml", "b.toml", "c.toml")), "3 files: nothing found."),
        (report(files=()), "Nothing found."),
        (report(files=("a.toml",), fixed=2), "1 file: nothing found; 2 fixed."),
        (suppressed_report(), "1 file: nothing found; 1 suppressed."),
        (usual_report(), "1 error, 1 warning, 1 note in 3 files; 1 suppressed; 1 can be fixed with --fix"),
        (report(finding(), finding()), "2 errors in 1 file"),
        (report(finding(severity=Severity.NOTE), files=()), "1 note"),
    ],
    ids=["clean", "clean files", "no file", "fixed", "suppressed", "all", "errors", "environment only"],
)
def test_last_line_sums_up(told: Report, summary: str) -> None:
    assert written(told).splitlines()[-1] == summary


def test_suppressed_findings_are_not_shown() -> None:
    assert "SBP101" not in written(suppressed_report())


def test_line_numbers_of_any_length_keep_the_margin_straight() -> None:
    text = written(report(finding(location=Location(file="a.toml", line=1234, column=1, end_column=8))))

    assert text.splitlines()[1:6] == [
        "     |",
        "1234 | default = 90   # sekundi\u0301s \u6771\u4eac",
        "     | ^^^^^^^",
        "     |",
        "     = help: Set the default to at most 60",
    ]


@pytest.mark.parametrize("attack", NASTY, ids=ascii)
def test_forged_line_or_terminal_control_stays_visible_text(attack: str) -> None:
    told = finding(location=Location(file=attack, key=attack), message=attack, remedy=attack, excerpt=attack)

    lines = written(report(told)).removesuffix("\n").split("\n")

    assert len(lines) == 8
    assert all(line.isprintable() for line in lines)


@given(ANY_REPORT)
def test_any_report_is_lines_of_printable_text(told: Report) -> None:
    assert all(line.isprintable() for line in written(told).split("\n"))
