"""Finds the code blocks of a chat message, and which of them a press of the button means.

A block is what the page shows as one, so that nobody runs anything else than what they saw: also inside list items,
but neither in quotes nor in indented code.

Source: CommonMark 0.31, sections 4.5 (fenced code blocks) and 5.2 (list items).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK_LANGUAGES = {
    "python": "python",
    "python3": "python",
    "py": "python",
    "bash": "bash",
    "sh": "bash",
    "shell": "bash",
}
"""Names that people and models write on a fence, and the language each means."""
_LIST_MARKER = re.compile(r"(?:[-*+]|[0-9]{1,9}[.)])(?:[ ]{1,4}(?=[^ ])|[ ](?=[ ]{4}))")
_THEMATIC_BREAK = re.compile(r"[ ]*(?P<mark>[-*])(?:[ \t]*(?P=mark)){2,}[ \t]*")
_FENCE = re.compile(r"(?P<fence>`{3,}(?=[^`]*\Z)|~{3,})(?P<info>.*)")
_MOST_INDENT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBlock:
    """One block of a message that can be run."""

    number: int
    """Counted from 1 over all blocks of the message, runnable or not."""
    language: str
    """`python` or `bash`."""
    code: str
    """What stands between its fences, without their indentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    """A line that opens a block."""

    fence: str
    """Its backticks or tildes."""
    info: str
    """The first word after them, lower-case."""
    item_column: int
    """Where the content of the list item begins that the block is in; 0 outside lists."""
    column: int
    """Where the fence begins."""

    def closes(self, line: str) -> bool:
        """Whether the line is this block's closing fence."""
        least, most = self.item_column, self.item_column + _MOST_INDENT
        fence = f"{re.escape(self.fence[0])}{{{len(self.fence)},}}"
        return re.fullmatch(rf"[ ]{{{least},{most}}}{fence}[ \t]*", line) is not None

    def leaves(self, line: str) -> bool:
        """Whether the line stands outside the list item that the block is in."""
        return not _blank(line) and _indent(line) < self.item_column

    def content(self, line: str) -> str:
        """A line of the block without the fence's own indentation."""
        return line[min(self.column, _indent(line)) :]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fenced:
    """One block, whatever it is marked as."""

    opening: _Opening
    """How it begins."""
    code: str
    """Its text."""
    left_open: bool
    """Whether the message ends before the block does."""


def runnable_blocks(message: str) -> tuple[CodeBlock, ...]:
    """The blocks marked as Python or Bash, in the message's order."""
    return tuple(
        CodeBlock(number=number, language=BLOCK_LANGUAGES[block.opening.info], code=block.code)
        for number, block in enumerate(_fenced_blocks(message), 1)
        if block.opening.info in BLOCK_LANGUAGES
    )


def meant_block(blocks: tuple[CodeBlock, ...]) -> CodeBlock | None:
    """The block that a press of the button means.

    The last Python block, as a message that corrects itself ends with the version it means; Bash beside Python mostly
    shows how to install or start it, so the last Bash block counts only where there is no Python.
    """
    python = [block for block in blocks if block.language == "python"]
    return next(reversed(python or blocks), None)


def with_closed_blocks(message: str) -> str:
    """The message without blank space at its end, its last block closed, so that what follows stands outside it."""
    text = message.rstrip()
    last = next(reversed(list(_fenced_blocks(text))), None)
    if last is None or not last.left_open:
        return text
    return f"{text}\n{' ' * last.opening.column}{last.opening.fence}"


def _fenced_blocks(message: str) -> Iterator[_Fenced]:
    """Each block of the message."""
    lines = message.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    item_columns: list[int] = []
    at = 0
    while at < len(lines):
        opening = _opening(lines[at], item_columns)
        at += 1
        if opening is None:
            continue
        ends = (
            number for number in range(at, len(lines)) if opening.closes(lines[number]) or opening.leaves(lines[number])
        )
        end = next(ends, len(lines))
        code = "\n".join(map(opening.content, lines[at:end]))
        yield _Fenced(opening=opening, code=code, left_open=end == len(lines))
        at = end + 1 if end < len(lines) and opening.closes(lines[end]) else end


def _opening(line: str, item_columns: list[int]) -> _Opening | None:
    """The block that a line opens, if it does; the columns of the list items around it are brought up to date."""
    if _blank(line):
        return None  # and ends no list item
    column = _indent(line)
    while item_columns and column < item_columns[-1]:
        item_columns.pop()
    if _THEMATIC_BREAK.fullmatch(line):
        return None  # and begins no list item, though it may look like one
    while column - _item_column(item_columns) <= _MOST_INDENT:
        marker = _LIST_MARKER.match(line, column)
        if marker is None:
            break
        column = marker.end()
        item_columns.append(column)
    fence = _FENCE.fullmatch(line, column)
    if fence is None or column - _item_column(item_columns) > _MOST_INDENT:
        return None
    words = fence["info"].split()
    info = words[0].lower() if words else ""
    return _Opening(fence=fence["fence"], info=info, item_column=_item_column(item_columns), column=column)


def _item_column(item_columns: list[int]) -> int:
    return item_columns[-1] if item_columns else 0


def _blank(line: str) -> bool:
    return not line.strip(" \t")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
