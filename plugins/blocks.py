"""Finds the code blocks of a chat message, and which of them a press of the button means.

Source: CommonMark 0.31, section 4.5 (fenced code blocks).
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
_FENCE = re.compile(r"(?P<indent>(?:[ ]{0,3}|[ ]*(?:[-*+]|[0-9]{1,9}[.)])[ ]+|[ ]+))(?P<fence>`{3,}|~{3,})(?P<info>.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBlock:
    """One block of a message that can be run."""

    number: int
    """Counted from 1 over all blocks of the message, runnable or not."""
    language: str
    """`python` or `bash`."""
    code: str
    """What stands between its fences, without their indentation."""


def runnable_blocks(message: str) -> tuple[CodeBlock, ...]:
    """The blocks marked as Python or Bash, in the message's order."""
    return tuple(
        CodeBlock(number=number, language=BLOCK_LANGUAGES[info], code=code)
        for number, (info, code) in enumerate(_fenced_blocks(message), 1)
        if info in BLOCK_LANGUAGES
    )


def meant_block(blocks: tuple[CodeBlock, ...]) -> CodeBlock | None:
    """The block that a press of the button means.

    The last Python block, as a message that corrects itself ends with the version it means; Bash beside Python mostly
    shows how to install or start it, so the last Bash block counts only where there is no Python.
    """
    python = [block for block in blocks if block.language == "python"]
    return next(reversed(python or blocks), None)


def _fenced_blocks(message: str) -> Iterator[tuple[str, str]]:
    """Each closed block, and a last one left open: the first word of its info string, lower-case, and its text."""
    lines = iter(message.replace("\r\n", "\n").split("\n"))
    for line in lines:
        opening = _FENCE.fullmatch(line)
        if opening is None or (opening["fence"][0] == "`" and "`" in opening["info"]):
            continue
        words = opening["info"].split()
        code = "\n".join(_until_closed(lines, opening["fence"], len(opening["indent"])))
        yield (words[0].lower() if words else ""), code


def _until_closed(lines: Iterator[str], fence: str, indent: int) -> Iterator[str]:
    closing = re.compile(rf"[ ]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*")
    for line in lines:
        if closing.fullmatch(line):
            return
        own_indent = len(line) - len(line.lstrip(" "))
        yield line[min(indent, own_indent) :]
