"""JUnit XML, read by an XML parser and held against the XSD of Jenkins' xUnit plug-in."""

from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from hypothesis import given

from policy.lint.findings import Location
from policy.lint.formats.junit import written
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


@cache
def schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(str(Path(__file__).parents[1] / "schemas" / "jenkins-junit.xsd"))


def read(told: Report) -> ET.Element:
    """The root, after the XSD has had its say."""
    text = written(told)
    assert text.isascii()
    root = ET.fromstring(text)  # noqa: S314 -- our own output
    schema().validate(root)
    return root


def cases(suite: ET.Element) -> dict[str | None, list[str]]:
    """By name, what each case of a suite holds."""
    return {case.get("name"): [part.tag for part in case] for case in suite.iter("testcase")}


def test_each_file_is_a_suite_and_each_finding_a_case() -> None:
    root = read(usual_report())

    assert {suite.get("name"): cases(suite) for suite in root} == {
        "acme.toml": {"SBP101 default-outside-ceiling: limits.max_runtime_seconds.default": ["failure"]},
        "b c/ü.toml": {"SBP601 no-owner": ["system-out"]},
        "clean.toml": {"policy lint": []},
        "environment": {"SBP203 unlimited: SANDBOX_MAX_RAM_MEGABYTES": ["failure"]},
    }
    assert root.attrib == {"name": "policy lint", "tests": "4", "failures": "2", "errors": "0"}
    assert [suite.get("failures") for suite in root] == ["1", "0", "0", "1"]


def test_failure_tells_place_line_and_remedy() -> None:
    (failure,) = read(report(finding())).iter("failure")

    assert failure.attrib == {
        "type": "error",
        "message": "the default 90 is looser than the ceiling 60. Set the default to at most 60.",
    }
    assert failure.text is not None
    assert failure.text.splitlines()[0].startswith("acme.toml:14:11: error[SBP101 default-outside-ceiling]: ")
    assert "   |           ^^" in failure.text
    assert failure.text.endswith("   = help: Set the default to at most 60")


def test_suppressed_finding_leaves_a_file_that_passes() -> None:
    root = read(suppressed_report())

    assert {suite.get("name"): cases(suite) for suite in root} == {"acme.toml": {"policy lint": []}}


def test_no_file_at_all_is_a_report_without_suites() -> None:
    assert list(read(report(files=()))) == []


def test_equal_findings_are_cases_of_their_own() -> None:
    (suite,) = read(report(finding(), finding(), finding()))

    name = "SBP101 default-outside-ceiling: limits.max_runtime_seconds.default"
    assert list(cases(suite)) == [name, f"{name} (2)", f"{name} (3)"]


@pytest.mark.parametrize("attack", NASTY, ids=ascii)
def test_markup_injected_by_file_name_or_message_stays_text(attack: str) -> None:
    told = finding(location=Location(file=attack, key=attack), message=attack, remedy=attack, excerpt=attack)

    root = read(report(told, files=()))

    assert [element.tag for element in root.iter()] == ["testsuites", "testsuite", "testcase", "failure"]


def test_nasty_report_is_valid() -> None:
    assert read(nasty_report()).get("failures") == str(len(NASTY))


@given(ANY_REPORT)
def test_any_report_is_valid_xml_with_a_case_for_each_finding(told: Report) -> None:
    root = read(told)

    suites = {*told.files, *(each.location.file for each in told.counting)}
    assert len(root) == len(suites)
    assert len(list(root.iter("failure"))) + len(list(root.iter("system-out"))) == len(told.counting)
