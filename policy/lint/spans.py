"""The exact characters of a key, a value or a whole statement in a TOML text, for excerpts and for fixes.

Exact for a text that `tomllib` accepts, beside the positions found in it; of one that it refuses and that could be
located all the same, the spans lie within the text and may be wrong. Each question is answered on its own, by reading
on from where the key or element begins, in time that grows with the length of the text.
Source: TOML 1.0.0, https://toml.io/en/v1.0.0.
"""

import re
from dataclasses import dataclass

from policy.lint.comments import ANY_STRING
from policy.positions import TOML_SEGMENT, KeyPath, Positions

_TOKENS = re.compile(rf"(?P<opened>[\[{{])|(?P<closed>[\]}}])|{ANY_STRING}|#[^\n]*|[^\[\]{{}}\"'#,\n]+")
# Possessive, so that a comma within a comment is never taken for the one that follows.
_NEXT_COMMA = re.compile(r"(?:[ \t\r\n]|#[^\n]*+)*+,[ \t]*")
_LINE_END = re.compile(r"[ \t\r]*+(?:#[^\n]*+)?+(?:\n|\Z)")
_BLANKS = " \t\r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of a text."""

    start: int
    """Characters before its first one."""
    end: int
    """Characters before what follows it."""


def key_span(text: str, positions: Positions, path: KeyPath) -> Span | None:
    """The last segment of a path where it is first spelled, quotes included; None where the text does not hold it.

    Of an element of an array of tables, the last segment of its header; of any other element, its value as far as
    the end of its first line.
    """
    start = positions.offset(path)
    if start is None or not path:
        return None
    if _is_item(positions, path):
        value = value_span(text, positions, path)
        return _first_line(text, value) if value else None
    segment = TOML_SEGMENT.match(text, start)
    return Span(start=start, end=segment.end("key")) if segment else None


def value_span(text: str, positions: Positions, path: KeyPath) -> Span | None:
    """The value of a key or element, without blanks or comment after it; None for what headers or dotted keys make."""
    start = _value_start(text, positions, path)
    if start is None:
        return None
    depth = 0
    for token in _TOKENS.finditer(text, start):
        depth += (token.lastgroup == "opened") - (token.lastgroup == "closed")
        if depth == 0:
            return Span(start=start, end=start + len(text[start : token.end()].rstrip(_BLANKS)))
    return None


def removal_span(text: str, positions: Positions, path: KeyPath) -> Span | None:
    """What to delete so that a key or element is gone, and nothing else but tables which its dotted key implied.

    Of a statement, its lines with the comment at their end. Of an element, or of a key in an inline table, the comma
    that goes with it; where it has its lines for itself, those. None for what no single deletion removes: a table
    made by headers or dotted keys, a dotted key in an inline table.
    """
    start, value = positions.offset(path), value_span(text, positions, path)
    if start is None or value is None:
        return None
    if not any(_value_start(text, positions, path[:length]) is not None for length in range(1, len(path))):
        return Span(start=_line_start(text, start), end=_line_end(text, value.end) or value.end)
    container = _value_start(text, positions, path[:-1])
    return None if container is None else _entry_removal(text, Span(start=start, end=value.end))


def _first_line(text: str, span: Span) -> Span:
    line = text[span.start : span.end].partition("\n")[0].rstrip(_BLANKS)
    return Span(start=span.start, end=span.start + len(line))


def _is_item(positions: Positions, path: KeyPath) -> bool:
    """Whether a path is an element of an array that is written as a value, not as headers."""
    if not isinstance(path[-1], int):
        return False
    return positions.offset(path[:-1]) != positions.offset((*path[:-1], 0))


def _value_start(text: str, positions: Positions, path: KeyPath) -> int | None:
    """Where the value of a key or element begins; None where it has none of its own."""
    start = positions.offset(path)
    if start is None or not path or _is_item(positions, path):
        return start if path else None
    segment = TOML_SEGMENT.match(text, start)
    return segment.end() if segment and segment["end"] == "=" else None


def _entry_removal(text: str, entry: Span) -> Span:
    """What to delete so that an array or inline table loses an entry and stays valid."""
    comma = _NEXT_COMMA.match(text, entry.end)
    end = comma.end() if comma else entry.end
    line = _line_start(text, entry.start)
    before = text[line : entry.start].rstrip(_BLANKS)
    line_end = _line_end(text, end)
    if not before and line_end is not None:
        return Span(start=line, end=line_end)
    if comma:
        return Span(start=entry.start, end=end)
    if before.endswith(","):
        return Span(start=line + len(before) - 1, end=end)
    return entry


def _line_start(text: str, offset: int) -> int:
    return text.rfind("\n", 0, offset) + 1


def _line_end(text: str, offset: int) -> int | None:
    """Where the next line begins, if nothing but blanks and a comment stands before it."""
    match = _LINE_END.match(text, offset)
    return match.end() if match else None
