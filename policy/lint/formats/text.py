"""The report for people: each finding with the line it stands in, and a summary at the end.

Suppressed findings are counted, not shown. Everything out of a file goes through `shown` or `excerpt`, so that none can
forge a line or steer the terminal.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from click import style

from policy.lint.findings import Finding, Location, Severity
from policy.lint.formats.excerpts import excerpt
from policy.lint.report import Report, place, rule_title, shown

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_MARGIN = "blue"

_Paint = Callable[[str, str], str]


def written(report: Report, *, colour: bool = False) -> str:
    """The report in lines."""
    paint = _coloured if colour else _plain
    blocks = ["\n".join(_block(finding, paint)) for finding in report.counting]
    return "\n\n".join([*blocks, _summary(report)]) + "\n"


def block(finding: Finding) -> str:
    """One finding in lines, without colour."""
    return "\n".join(_block(finding, _plain))


def _coloured(text: str, colour: str) -> str:
    return style(text, fg=colour, bold=True)


def _plain(text: str, _: str) -> str:
    return text


def _block(finding: Finding, paint: _Paint) -> Iterator[str]:
    colour = _COLOURS[finding.severity]
    kind = paint(f"{finding.severity.value}[{rule_title(finding)}]", colour)
    yield f"{place(finding.location)}: {kind}: {shown(finding.message)}"
    number = str(finding.location.line) if finding.excerpt else ""
    if finding.excerpt:
        yield from _excerpt(finding, number, paint)
    margin = f"{' ' * len(number)} {paint('=', _MARGIN)}"
    if finding.remedy:
        yield f"{margin} help: {shown(finding.remedy)}"
    for related in finding.related:
        yield f"{margin} see: {_see(related)}"


def _excerpt(finding: Finding, number: str, paint: _Paint) -> Iterator[str]:
    part = excerpt(finding.excerpt, finding.location.column, finding.location.end_column)
    blank = " " * len(number)
    bar = paint("|", _MARGIN)
    underline = " " * part.indent + paint("^" * part.width, _COLOURS[finding.severity])
    yield f"{blank} {bar}"
    yield f"{paint(number, _MARGIN)} {bar} {part.text}".rstrip()
    yield f"{blank} {bar} {underline}"
    yield f"{blank} {bar}"


def _see(location: Location) -> str:
    return f"{place(location)}: {shown(location.key)}" if location.key else place(location)


def _summary(report: Report) -> str:
    """`2 errors, 1 warning in 3 files; 1 suppressed; 1 can be fixed with --fix`, or that nothing was found."""
    counting = report.counting
    fixable = sum(finding.fix is not None for finding in counting)
    suppressed = len(report.findings) - len(counting)
    asides = [
        *([f"{suppressed} suppressed"] if suppressed else []),
        *([f"{report.fixed} fixed"] if report.fixed else []),
        *([f"{fixable} can be fixed with --fix"] if fixable else []),
    ]
    files = _counted(len(report.files), "file") if report.files else ""
    if counting:
        return "; ".join([f"{_tally(counting)} in {files}" if files else _tally(counting), *asides])
    return "; ".join([f"{files}: nothing found" if files else "Nothing found", *asides]) + "."


def _tally(findings: tuple[Finding, ...]) -> str:
    numbers = Counter(finding.severity for finding in findings)
    return ", ".join(_counted(numbers[severity], severity.value) for severity in Severity if numbers[severity])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
