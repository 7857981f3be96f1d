"""Comments that take findings out: `# policy: ignore[SBP207] reason="GPU tests" until=2027-01-31`.

One stands at the end of the line that it is about, or alone above it; one above the first key is also for what is said
of the file as a whole. It names rules by id or name, says why, and until when. It holds through that day, in UTC.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date

from policy.lint.comments import Comment, comments
from policy.lint.findings import Finding, Location, Suppressed
from policy.lint.registry import rules_by_word
from policy.lint.rule import Suppressible
from policy.lint.subjects import Setup, Suppression

_DIRECTIVE = re.compile(r"[ \t]*policy:[ \t]*ignore", re.IGNORECASE)
_WHOLE = re.compile(
    r"[ \t]*policy: ignore\[(?P<rules>[^\]]*)\]"
    r'(?:[ \t]+reason="(?P<reason>[^"]*)")?(?:[ \t]+until=(?P<until>[0-9]{4}-[0-9]{2}-[0-9]{2}))?[ \t]*'
)
_FORM = 'write: # policy: ignore[RULE] reason="why" until=YYYY-MM-DD'


def suppressions(name: str, text: str) -> tuple[Suppression, ...]:
    """Every such comment of a file, in its order."""
    if "policy" not in text.lower():
        return ()
    found = [comment for comment in comments(text) if _DIRECTIVE.match(comment.text)]
    lines = text.split("\n") if found else ()
    code_lines = [number for number, line in enumerate(lines, 1) if _is_code(line)]
    return tuple(_suppression(name, text, code_lines, comment) for comment in found)


def _suppression(name: str, text: str, code_lines: Sequence[int], comment: Comment) -> Suppression:
    location = Location(
        file=name, line=comment.line, column=comment.column, end_column=comment.column + 1 + len(comment.text)
    )
    start, end = _removal(text, comment)
    whole = _WHOLE.fullmatch(comment.text)
    plain = Suppression(
        location=location,
        rules=(),
        reason="",
        until=None,
        malformed=f"it cannot be read; {_FORM}",
        lines=(),
        fix_start=start,
        fix_end=end,
    )
    if whole is None:
        return plain
    rules = tuple(word.strip() for word in whole["rules"].split(",") if word.strip())
    until = _date(whole["until"] or "")
    return replace(
        plain,
        rules=rules,
        reason=whole["reason"] or "",
        until=until,
        malformed=_lacking(rules, (whole["reason"] or "").strip(), until),
        lines=tuple(_covered(code_lines, comment)),
        unknown=tuple(word for word in rules if word not in rules_by_word()),
    )


def _lacking(rules: tuple[str, ...], reason: str, until: date | None) -> str:
    lacking = [
        words
        for words, there in (
            ("the rules that it is about", rules),
            ("a reason", reason),
            ("a date until which it holds", until),
        )
        if not there
    ]
    return f"it lacks {' and '.join(lacking)}; {_FORM}" if lacking else ""


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _covered(code_lines: Sequence[int], comment: Comment) -> Iterator[int]:
    """The lines that a comment is for, counted from 1.

    Args:
        code_lines: the numbers of all lines that hold more than a comment, in order.
        comment: the comment.
    """
    if not comment.alone:
        yield comment.line
        return
    below = bisect_right(code_lines, comment.line)
    yield code_lines[below] if below < len(code_lines) else comment.line
    if below == 0:
        yield 1


def _is_code(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith("#")


def _removal(text: str, comment: Comment) -> tuple[int, int]:
    """What goes where the comment goes: its whole line if it stands alone, else the blanks before it too."""
    end = comment.offset + 1 + len(comment.text)
    if comment.alone:
        start = text.rfind("\n", 0, comment.offset) + 1
        return start, min(end + 1, len(text))
    return len(text[: comment.offset].rstrip(" \t")), end


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """Findings, of which some are taken out, and what became of each comment."""

    findings: tuple[Finding, ...]
    """All of them."""
    suppressions: tuple[Suppression, ...]
    """Each with the rules for which it had a use."""


def weighed(findings: Iterable[Finding], found: Sequence[Suppression], setup: Setup) -> Weighed:
    """Hold findings against the comments of their files."""
    today = setup.now.date()
    by_line: dict[tuple[str, int], list[int]] = {}
    for number, each in enumerate(found):
        for line in each.lines:
            by_line.setdefault((each.location.file, line), []).append(number)
    used: dict[int, set[str]] = {}
    refused: dict[int, set[str]] = {}
    kept: list[Finding] = []
    for finding in findings:
        kept.append(finding)
        for number in by_line.get((finding.location.file, finding.location.line), ()):
            each = found[number]
            words = {finding.rule_id, finding.rule_name}.intersection(each.rules)
            if not words:
                continue
            if _can_be_taken_out(finding, setup):
                used.setdefault(number, set()).update(words)
                if each.holds_on(today) and each.until is not None:
                    out = Suppressed(reason=each.reason, until=each.until.isoformat(), line=each.location.line)
                    kept[-1] = replace(finding, suppressed=out)
            else:
                refused.setdefault(number, set()).update(words)
    return Weighed(
        findings=tuple(kept),
        suppressions=tuple(
            replace(each, used=tuple(sorted(used.get(number, ()))), refused=tuple(sorted(refused.get(number, ()))))
            for number, each in enumerate(found)
        ),
    )


def _can_be_taken_out(finding: Finding, setup: Setup) -> bool:
    match rules_by_word()[finding.rule_id].suppressible:
        case Suppressible.ALWAYS:
            return True
        case Suppressible.OUTSIDE_PRODUCTION:
            return not setup.production
        case Suppressible.NEVER:
            return False
