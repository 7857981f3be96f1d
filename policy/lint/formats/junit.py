"""The report as JUnit XML: a suite for each file; a case for each finding that counts, or one that passes.

Errors and warnings fail; a note passes and speaks through `system-out`. A case is named by rule and key, not by
line, so that a pipeline recognises it after the file has changed. The text is ASCII: all else is a character reference.
Source: the XSD of Jenkins' xUnit plug-in, which GitLab and others follow.
"""

from collections import Counter
from xml.etree import ElementTree as ET

from policy.lint.findings import Finding, Severity
from policy.lint.formats.text import block
from policy.lint.report import TOOL_NAME, Report, rule_title, sentences, shown


def written(report: Report) -> str:
    """The report as XML."""
    findings: dict[str, list[Finding]] = {name: [] for name in report.files}
    for finding in report.counting:
        findings.setdefault(finding.location.file, []).append(finding)
    suites = ET.Element("testsuites", {"name": TOOL_NAME})
    suites.extend(_suite(shown(name), of_file) for name, of_file in findings.items())
    for count in ("tests", "failures", "errors"):
        suites.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="us-ascii", xml_declaration=True)
    return text.decode("ascii") + "\n"


def _suite(name: str, findings: list[Finding]) -> ET.Element:
    failures = sum(_fails(finding) for finding in findings)
    counts = {"tests": len(findings) or 1, "failures": failures, "errors": 0, "skipped": 0}
    suite = ET.Element("testsuite", {"name": name} | {count: str(number) for count, number in counts.items()})
    if not findings:
        ET.SubElement(suite, "testcase", {"name": TOOL_NAME, "classname": name})
    seen: Counter[str] = Counter()
    for finding in findings:
        case = _case_name(finding)
        seen[case] += 1
        # Readers drop the second of two cases of one name.
        suite.append(_case(f"{case} ({seen[case]})" if seen[case] > 1 else case, name, finding))
    return suite


def _fails(finding: Finding) -> bool:
    return finding.severity.reaches(Severity.WARNING)


def _case_name(finding: Finding) -> str:
    return f"{rule_title(finding)}: {shown(finding.location.key)}" if finding.location.key else rule_title(finding)


def _case(name: str, file: str, finding: Finding) -> ET.Element:
    case = ET.Element("testcase", {"name": name, "classname": file})
    if _fails(finding):
        attributes = {"type": finding.severity.value, "message": sentences(finding)}
        ET.SubElement(case, "failure", attributes).text = block(finding)
    else:
        ET.SubElement(case, "system-out").text = block(finding)
    return case
