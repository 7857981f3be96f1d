"""The comments of a TOML text, and where they stand: a sign of number within a string is none.

Exact for a text that `tomllib` accepts. Of any other text it takes what an unclosed string would leave, and never
fails; it reads each character a bounded number of times.
Source: TOML 1.0.0, https://toml.io/en/v1.0.0#comment.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from policy.positions import TOML_LONG_STRING, TOML_SHORT_STRING

ANY_STRING = rf"{TOML_LONG_STRING}|(?s:(?:\"\"\"|''').*)|{TOML_SHORT_STRING}|[\"'][^\n]*"
"""A pattern of strings, closed or not: one that is not takes all that could have been its own, read once."""
_STRING_OR_COMMENT = re.compile(rf"#(?P<comment>[^\n]*)|{ANY_STRING}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """One comment."""

    offset: int
    """Characters of the text before its `#`."""
    line: int
    """Counted from 1."""
    column: int
    """Of its `#`, counted from 1, in characters."""
    text: str
    """What follows its `#`, as far as the end of the line."""
    alone: bool
    """Whether nothing but blanks stands before it in its line."""


def comments(text: str) -> Iterator[Comment]:
    """Every comment, in the order of the text."""
    line, counted = 1, 0
    for match in _STRING_OR_COMMENT.finditer(text):
        if match["comment"] is None:
            continue
        offset = match.start()
        line += text.count("\n", counted, offset)
        line_start = text.rfind("\n", counted, offset) + 1  # between two comments there is always a line's end
        counted = offset
        yield Comment(
            offset=offset,
            line=line,
            column=offset - line_start + 1,
            text=match["comment"].removesuffix("\r"),
            alone=not text[line_start:offset].strip(" \t"),
        )
