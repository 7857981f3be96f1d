"""A line of a file as a terminal shows it, and where under it the underline goes.

Tabs become spaces, control and bidirectional characters become visible escapes, wide characters take two cells and
combining ones none; a long line is cut around the place. The work is bounded by what is shown, not by the line.
Source: Unicode Standard Annex 11, https://www.unicode.org/reports/tr11/.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from policy.errors import printable
from policy.lint.report import LOG_COMMAND

MOST_CELLS = 100
"""Cells of a line that are shown, beside the marks of where it was cut."""
TAB = " " * 4
_CELLS_AFTER = 60
_CUT = "…"
# Vowels and final consonants of Hangul, which join the syllable before them.
_JOINING = range(0x1160, 0x1200)

# Stands for a bracket that would make a command of a log's line; no text needs this character, which is none.
_BRACKET, _SHOWN_BRACKET = "\ufdd0", r"\x5b"

_Cell = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A line as it is shown, and the stretch of it that matters."""

    text: str
    """What is shown."""
    indent: int
    """Cells before the stretch."""
    width: int
    """Cells of the stretch; at least 1."""


def excerpt(untrusted_line: str, column: int, end_column: int) -> Excerpt:
    """That line, with the stretch from one column to before the other, both counted from 1 in characters."""
    start = min(max(column - 1, 0), len(untrusted_line))
    if "##" in untrusted_line:
        untrusted_line = LOG_COMMAND.sub(rf"\1{_BRACKET}", untrusted_line)
    if len(untrusted_line) <= MOST_CELLS and untrusted_line.isascii() and untrusted_line.isprintable():
        # Nearly every line: each character is one cell.
        width = min(end_column - 1, len(untrusted_line)) - start
        return Excerpt(text=untrusted_line, indent=start, width=max(width, 1))
    before = untrusted_line[max(start - MOST_CELLS, 0) : start][::-1]
    after = untrusted_line[start : start + MOST_CELLS]
    # What follows has the first claim, up to its share; then what goes before; then what follows takes what is left.
    lead = _fitting(before, MOST_CELLS - _width(_fitting(after, _CELLS_AFTER)))[::-1]
    tail = _fitting(after, MOST_CELLS - _width(lead))
    cut_before = _CUT if len(lead) < start else ""
    cut_after = _CUT if start + len(tail) < len(untrusted_line) else ""
    return Excerpt(
        text=cut_before + "".join(text for text, _ in (*lead, *tail)) + cut_after,
        indent=len(cut_before) + _width(lead),
        width=max(_width(tail[: max(end_column - column, 0)]), 1),
    )


def _fitting(characters: str, room: int) -> list[_Cell]:
    """As many of the first characters as fit into that many cells."""
    cells: list[_Cell] = []
    for character in characters:
        cell = _cell(character)
        room -= cell[1]
        if room < 0:
            break
        cells.append(cell)
    return cells


def _cell(character: str) -> _Cell:
    """A character as it is shown, and how many cells it takes."""
    if " " <= character <= "~":
        return character, 1
    if character == _BRACKET:
        return _SHOWN_BRACKET, len(_SHOWN_BRACKET)
    if character == "\t":
        return TAB, len(TAB)
    if not character.isprintable():
        escape = printable(character)
        return escape, len(escape)
    if unicodedata.category(character) in {"Mn", "Me"} or ord(character) in _JOINING:
        return character, 0
    return character, 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _width(cells: Iterable[_Cell]) -> int:
    return sum(width for _, width in cells)
