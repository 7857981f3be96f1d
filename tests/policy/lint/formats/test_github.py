"""Annotations in GitHub Actions, read back as GitHub's runner reads them."""

import pytest
from hypothesis import given

from policy.lint.findings import Location, Severity
from policy.lint.formats.github import written
from policy.lint.report import ENVIRONMENT, STANDARD_INPUT, Report
from tests.policy.lint.formats.reports import (
    ANY_REPORT,
    NASTY,
    finding,
    nasty_report,
    report,
    suppressed_report,
    usual_report,
)

Command = tuple[str, dict[str, str], str]


def read(line: str) -> Command:
    """A workflow command as the runner takes it apart (`TryParseV2` in its `ActionCommand.cs`)."""
    line = line.lstrip()
    assert line.startswith("::")
    end = line.index("::", 2)
    name, _, properties = line[2:end].partition(" ")
    pairs = (part.split("=", 1) for part in properties.strip().split(",") if part)
    return name, {pair[0]: unescaped(pair[1], property_too=True) for pair in pairs}, unescaped(line[end + 2 :])


def unescaped(text: str, *, property_too: bool = False) -> str:
    more = (("%3A", ":"), ("%2C", ",")) if property_too else ()
    for escape, character in (("%0D", "\r"), ("%0A", "\n"), *more, ("%25", "%")):
        text = text.replace(escape, character)
    return text


def test_each_finding_is_one_command() -> None:
    assert written(usual_report()).splitlines() == [
        (
            "::error file=acme.toml,line=14,col=11,endColumn=13,title=SBP101 default-outside-ceiling"
            "::the default 90 is looser than the ceiling 60. Set the default to at most 60."
        ),
        (
            "::notice file=b c/ü.toml,line=1,col=1,endColumn=1,title=SBP601 no-owner"
            "::nobody is named who answers for this file."
        ),
        "::warning title=SBP203 unlimited::SANDBOX_MAX_RAM_MEGABYTES is unlimited. Set a number.",
    ]


def test_nothing_found_writes_nothing() -> None:
    assert written(report()) == ""
    assert written(suppressed_report()) == ""


@pytest.mark.parametrize("name", [ENVIRONMENT, STANDARD_INPUT])
def test_what_is_no_file_of_the_repository_has_no_place(name: str) -> None:
    _, properties, _ = read(written(report(finding(location=Location(file=name, line=3)))))

    assert set(properties) == {"title"}


def test_file_in_the_checkout_is_named_as_the_repository_names_it() -> None:
    told = report(finding(location=Location(file="/repo/./a.toml")), folder="/repo")

    assert read(written(told))[1]["file"] == "a.toml"


@pytest.mark.parametrize("attack", NASTY, ids=ascii)
def test_command_injected_by_file_name_or_message_stays_part_of_one_annotation(attack: str) -> None:
    told = finding(location=Location(file=f"a{attack}b", line=2), message=f"a{attack}b", remedy=attack)

    (line,) = written(report(told)).splitlines()
    name, properties, message = read(line)

    assert name == "error"
    assert set(properties) == {"file", "line", "col", "endColumn", "title"}
    assert properties["title"] == "SBP101 default-outside-ceiling"
    assert properties["file"].isprintable()
    assert message.isprintable()


def test_percent_sign_that_spells_a_line_end_is_told_as_it_is() -> None:
    told = finding(location=Location(file="a%0A,b:c.toml"), message="100%0A::error::owned", remedy="")

    name, properties, message = read(written(report(told)).removesuffix("\n"))

    assert (name, properties["file"], message) == ("error", "a%0A,b:c.toml", "100%0A::error::owned.")


def test_nasty_report_has_as_many_commands_as_findings_that_count() -> None:
    assert len(written(nasty_report()).splitlines()) == len(NASTY)


@given(ANY_REPORT)
def test_any_finding_is_one_line_with_one_command(told: Report) -> None:
    lines = written(told).splitlines()

    levels = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
    assert [read(line)[0] for line in lines] == [levels[each.severity] for each in told.counting]
