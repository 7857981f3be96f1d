"""What all formats agree on: names, identity, and which module writes what."""

import dataclasses
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from policy.lint.findings import Finding, Location, Severity, Suppressed
from policy.lint.report import ENVIRONMENT, FORMATS, STANDARD_INPUT, fingerprint, place, program_path, shown
from tests.policy.lint.formats.reports import finding, many_findings, report, suppressed_report, usual_report


def at(**fields: Any) -> Location:  # noqa: ANN401 -- any field of it
    return dataclasses.replace(finding().location, **fields)


@pytest.mark.parametrize(
    "moved",
    [
        finding(location=at(line=99, column=1, end_column=1)),
        finding(severity=Severity.NOTE),
        finding(remedy="another", message="the default 91 is looser than the ceiling 60", excerpt="default = 91"),
        finding(related=(at(line=3),)),
        finding(suppressed=Suppressed(reason="agreed", until="2027-01-31", line=1)),
        finding(location=at(file="./acme.toml")),
        finding(location=at(file="policies//../acme.toml")),
    ],
    ids=["line", "severity", "words", "related", "suppressed", "dot", "slashes"],
)
def test_fingerprint_stays_where_the_finding_is_the_same(moved: Finding) -> None:
    assert fingerprint(moved, 0) == fingerprint(finding(), 0)


@pytest.mark.parametrize(
    ("other", "ordinal"),
    [
        (finding(rule_id="SBP102"), 0),
        (finding(location=at(file="other.toml")), 0),
        (finding(location=at(key="limits.max_cpus.default")), 0),
        (finding(location=at(key="")), 0),
        (finding(), 1),
    ],
    ids=["rule", "file", "key", "no key", "ordinal"],
)
def test_fingerprint_changes_with_what_identifies_the_finding(other: Finding, ordinal: int) -> None:
    assert fingerprint(other, ordinal) != fingerprint(finding(), 0)


def test_fingerprint_without_key_goes_by_the_message() -> None:
    first, second = (finding(location=at(key=""), message=message) for message in ("one", "two"))

    assert fingerprint(first, 0) != fingerprint(second, 0)


def test_message_that_poses_as_a_key_has_a_fingerprint_of_its_own() -> None:
    key = finding(location=at(key="limits"))
    message = finding(location=at(key=""), message="limits")

    assert fingerprint(key, 0) != fingerprint(message, 0)


def test_fingerprint_is_the_same_in_every_checkout() -> None:
    here, there = (
        fingerprint(finding(location=at(file=f"{folder}/acme.toml")), 0, folder=folder)
        for folder in ("/home/ann/checkout", "/builds/acme/")
    )

    assert here == there == fingerprint(finding(), 0)
    assert re.fullmatch("[0-9a-f]{64}", here)


def test_fingerprints_of_a_report_are_unique_and_a_comment_shifts_none() -> None:
    same = (finding(location=at(line=1)), finding(location=at(line=2)), finding(location=at(file="./acme.toml")))
    quiet = (dataclasses.replace(same[0], suppressed=Suppressed(reason="x", until="2027-01-31", line=1)), *same[1:])

    marks = [mark for _, mark in report(*same).fingerprinted()]

    assert len(set(marks)) == 3
    assert [mark for _, mark in report(*quiet).fingerprinted()] == marks


@pytest.mark.parametrize(
    ("name", "folder", "told"),
    [
        ("./a.toml", "", "a.toml"),
        ("a//b/./c/../d.toml", "", "a/b/d.toml"),
        ("../a.toml", "/repo", "../a.toml"),
        ("/repo/a.toml", "/repo", "a.toml"),
        ("/repo/a.toml", "/repo/", "a.toml"),
        ("/repository/a.toml", "/repo", "/repository/a.toml"),
        ("/a.toml", "/", "a.toml"),
        ("/repo/a.toml", "", "/repo/a.toml"),
        ("a b/ü:%.toml", "/repo", "a b/ü:%.toml"),
        (STANDARD_INPUT, "/repo", "<stdin>"),
        (ENVIRONMENT, "/repo", "environment"),
    ],
)
def test_file_names_are_told_to_programs_relative_to_the_folder(name: str, folder: str, told: str) -> None:
    assert program_path(name, folder) == told


@pytest.mark.parametrize(
    ("location", "told"),
    [
        (Location(file="a.toml", line=3, column=4), "a.toml:3:4"),
        (Location(file="a\n\u202eb.toml", line=3, column=4), "a\\n\\u202eb.toml:3:4"),
        (Location(file=STANDARD_INPUT), "<stdin>:1:1"),
        (Location(file=ENVIRONMENT, key="SANDBOX_DEBUG"), "environment"),
        (Location(file=ENVIRONMENT, line=4), "environment:4:1"),
        (Location(file="::add-mask::a.toml"), "./::add-mask::a.toml:1:1"),
        (Location(file=" ::add-mask::a.toml"), "./ ::add-mask::a.toml:1:1"),
    ],
    ids=["file", "forged", "stdin", "environment", "file of that name", "workflow command", "indented command"],
)
def test_place_reads_as_editors_take_it(location: Location, told: str) -> None:
    assert place(location) == told


def test_what_people_are_shown_is_bounded() -> None:
    assert len(shown("x" * 100_000)) < 1000


def test_counting_findings_are_those_that_no_comment_takes_out() -> None:
    assert [each.rule_id for each in usual_report().counting] == ["SBP101", "SBP601", "SBP203"]
    assert suppressed_report().counting == ()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_a_report_that_ends_its_line_without_touching_standard_output(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FORMATS[name].written(usual_report())

    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", FORMATS)
def test_colour_changes_only_what_people_read(name: str) -> None:
    coloured = FORMATS[name].written(usual_report(), colour=True)

    assert ("\x1b[" in coloured) is (name == "text")


def test_formats_are_loaded_only_when_used_and_bring_nothing_heavy() -> None:
    code = (
        "import sys; from policy.lint.report import FORMATS, Report\n"
        "before = {name for name in sys.modules if name.startswith('policy.lint.formats')}\n"
        "FORMATS['text'].written(Report(findings=(), rules=(), files=(), tool_version='0'))\n"
        "formats = {name.rpartition('.')[2] for name in sys.modules if name.startswith('policy.lint.formats.')}\n"
        "heavy = {'rich', 'pydantic', 'jsonschema', 'cryptography', 'xml.etree'} & set(sys.modules)\n"
        "print(sorted(before), sorted(formats), sorted(heavy))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)

    assert ended.stdout == "[] ['excerpts', 'text'] []\n"


@pytest.mark.parametrize("name", FORMATS)
def test_a_thousand_findings_are_written_within_a_moment(name: str) -> None:
    many = many_findings(1000)
    FORMATS[name].written(many)

    spent = []
    for _ in range(5):
        begun = time.perf_counter()
        FORMATS[name].written(many)
        spent.append(time.perf_counter() - begun)

    # Some 50 ms on a quiet machine; several times that under coverage.
    assert min(spent) < 1


@pytest.mark.parametrize("name", FORMATS)
def test_thousands_of_findings_in_one_long_line_do_not_repeat_it(name: str) -> None:
    line = "x" * 60_000
    crowded = report(*(finding(location=at(line=1, column=column), excerpt=line) for column in range(1, 2001)))

    assert len(FORMATS[name].written(crowded)) < 4_000_000
