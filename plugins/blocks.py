"""Finds the code blocks of a chat message, and which of them a press of the button means.

A block is what the page shows as one, so that nobody runs anything else than what they saw: also inside list items,
but neither in quotes, in indented code, in HTML blocks nor in what `<details>` folds away. Where parsers of Markdown
differ about a message, or only a full one could tell, the message is doubtful and none of its blocks can be run,
though the page may show some.

Source: CommonMark 0.31, sections 2.2 (tabs), 4.5 (fenced code blocks), 4.6 (HTML blocks) and 5.2 (list items).
"""

import re
from dataclasses import dataclass, field

BLOCK_LANGUAGES = {
    "python": "python",
    "python3": "python",
    "py": "python",
    "bash": "bash",
    "sh": "bash",
    "shell": "bash",
}
"""Names that people and models write on a fence, and the language each means."""
_LIST_MARKER = re.compile(r"(?:[-*+]|(?P<number>[0-9]{1,9})[.)])(?:[ ]{1,4}(?=[^ ])|[ ](?=[ ]{4}))")
_EMPTY_ITEM = re.compile(r"(?:[-*+]|[0-9]{1,9}[.)])[ ]*")
_THEMATIC_BREAK = re.compile(r"(?P<mark>[-*_])(?:[ ]*(?P=mark)){2,}[ ]*")
_HEADING = re.compile(r"#{1,6}(?:[ ].*)?", re.DOTALL)
_UNDERLINE = re.compile(r"(?:=+|-+)[ ]*")
_FENCE = re.compile(r"(?P<fence>`{3,}(?=[^`]*\Z)|~{3,})(?P<info>.*)", re.DOTALL)
_RAW_TAG = re.compile(r"<(?P<tag>script|pre|style|textarea)(?=[\s>]|\Z)", re.IGNORECASE | re.ASCII)
_RAW_TAG_END = re.compile(r"</(?:script|pre|style|textarea)>", re.IGNORECASE | re.ASCII)
_MARKED_HTML = (("<!--", "-->"), ("<?", "?>"), ("<![CDATA[", "]]>"))
_DECLARATION = re.compile(r"<![A-Za-z]")
_BLOCK_TAG = re.compile(
    "</?(?:address|article|aside|base|basefont|blockquote|body|caption|center|col|colgroup|dd|details|dialog|dir|div|dl"
    "|dt|fieldset|figcaption|figure|footer|form|frame|frameset|h[1-6]|head|header|hr|html|iframe|legend|li|link|main"
    "|menu|menuitem|nav|noframes|ol|optgroup|option|p|param|search|section|summary|table|tbody|td|tfoot|th|thead|title"
    r"|tr|track|ul)(?=\s|/?>|\Z)",
    re.IGNORECASE | re.ASCII,
)
_SOLE_TAG = re.compile(
    r"<(?:[A-Za-z][A-Za-z0-9-]*"
    r"(?:\s+[A-Za-z_:][A-Za-z0-9:._-]*(?:\s*=\s*(?:[^\s\"'=<>`]+|'[^']*'|\"[^\"]*\"))?)*\s*/?"
    r"|/[A-Za-z][A-Za-z0-9-]*\s*)>\s*"
)
_FOLD = re.compile(r"<(?P<end>/?)details(?=[\s>]|\Z)", re.IGNORECASE | re.ASCII)
_MOST_INDENT = 3
_CODE_INDENT = " " * 4  # behind a list marker too, it makes indented code
_TAB_COLUMNS = 4
_MOST_ITEMS = 32


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
    """A line that opens a fenced block."""

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
        return re.fullmatch(rf"[ ]{{{least},{most}}}{fence}[ ]*", line.expandtabs(_TAB_COLUMNS)) is not None

    def content(self, line: str) -> str:
        """A line of the block without the fence's own indentation."""
        columns = min(self.column, _indent(line))
        text, at = line, 0
        while at < columns:  # only blanks and tabs come before it
            width = _TAB_COLUMNS - at % _TAB_COLUMNS if text[0] == "\t" else 1
            text, at = text[1:], at + width
        return " " * (at - columns) + text


@dataclass(frozen=True, slots=True, kw_only=True)
class _HtmlOpening:
    """A line that opens an HTML block."""

    mark: str
    """What ends the block; empty where a blank line does."""
    item_column: int
    """Where the content of the list item begins that the block is in; 0 outside lists."""

    def closes(self, line: str) -> bool:
        """Whether the block ends with the line."""
        if not self.mark:
            return _blank(line)
        if self.mark.startswith("</"):
            return _RAW_TAG_END.search(line) is not None
        return self.mark in line


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fenced:
    """One block, whatever it is marked as."""

    opening: _Opening
    """How it begins."""
    code: str
    """Its text."""
    folded: bool
    """Whether the page shows it only to those who unfold it."""


@dataclass(slots=True)
class _MessageScan:
    """What the lines read so far say."""

    blocks: list[_Fenced] = field(default_factory=list)
    """Those found."""
    text: list[str] = field(default_factory=list)
    """The lines outside all blocks."""
    left_open: _Opening | _HtmlOpening | None = None
    """The block that the message ends in."""
    doubtful: bool = False
    """Whether a page may see other blocks."""
    folds: int = 0
    """How many `<details>` are open."""
    item_columns: list[int] = field(default_factory=list)
    """Where the content of each list item begins that the line is in."""
    paragraph_depth: int | None = None
    """How many list items the paragraph stands in that the line before belongs to; none where it belongs to none."""
    paragraph_unsure: bool = False
    """Whether the line before may belong to a paragraph that is not looked at, as one in a quote."""

    @property
    def item_column(self) -> int:
        """Where the content of the innermost list item begins; 0 outside lists."""
        return self.item_columns[-1] if self.item_columns else 0

    def read(self, lines: list[str]) -> None:
        """Read all lines of a message."""
        at = 0
        while at < len(lines):
            first, opening = at, self._opening(lines[at].expandtabs(_TAB_COLUMNS))
            at += 1
            if opening is None:
                self.text.append(lines[first])
                continue
            self.paragraph_depth, self.paragraph_unsure = None, False
            if isinstance(opening, _HtmlOpening):
                at = self._html_end(opening, lines, first)
                self._read_folds("\n".join(lines[first:at]))
            else:
                at = self._fence_end(opening, lines, at)

    def _fence_end(self, opening: _Opening, lines: list[str], start: int) -> int:
        """The number of the line after a fenced block, which is kept."""
        end = start
        while end < len(lines) and not opening.closes(lines[end]) and not _leaves(lines[end], opening.item_column):
            end += 1
        code = "\n".join(map(opening.content, lines[start:end]))
        folded = self.folds > 0
        self.doubtful |= folded and _FOLD.search(code) is not None  # Open WebUI looks for the end there too
        self.blocks.append(_Fenced(opening=opening, code=code, folded=folded))
        if end == len(lines):
            self.left_open = opening
            return end
        return end + 1 if opening.closes(lines[end]) else end

    def _html_end(self, opening: _HtmlOpening, lines: list[str], first: int) -> int:
        """The number of the line after an HTML block."""
        for number in range(first, len(lines)):
            if number > first and _leaves(lines[number], opening.item_column):
                return number
            if opening.closes(lines[number]):
                # Some parsers wait for the end of the very tag that opened the block.
                self.doubtful |= opening.mark not in lines[number].lower() and opening.mark.startswith("</")
                return number + 1
        self.left_open = opening
        return len(lines)

    def _read_folds(self, html: str) -> None:
        for fold in _FOLD.finditer(html):
            self.folds = max(0, self.folds - 1) if fold["end"] else self.folds + 1

    def _opening(self, line: str) -> _Opening | _HtmlOpening | None:
        """The block that a line opens, if it does; what is known of the lines is brought up to date."""
        if _blank(line):
            self.paragraph_depth, self.paragraph_unsure = None, False
            return None  # and ends no list item
        around = list(self.item_columns)
        while self.item_columns and _indent(line) < self.item_column:
            self.item_columns.pop()
        column = self._after_markers(line)
        rest = line[column:]
        inner = column - self.item_column <= _MOST_INDENT and not rest.startswith(_CODE_INDENT)
        if inner and (fence := _FENCE.fullmatch(rest)):
            words = fence["info"].split()
            info = words[0].lower() if words else ""
            return _Opening(fence=fence["fence"], info=info, item_column=self.item_column, column=column)
        if inner and (html := self._html(rest)):
            return html
        self._read_text(rest, around, inner=inner)
        return None

    def _after_markers(self, line: str) -> int:
        """Where the text of a line begins behind its list markers, whose items are entered."""
        column = _indent(line)
        while column - self.item_column <= _MOST_INDENT and not _THEMATIC_BREAK.fullmatch(line, column):
            self.doubtful |= _EMPTY_ITEM.fullmatch(line, column) is not None
            marker = _LIST_MARKER.match(line, column)
            if marker is None:
                break
            if marker["number"] and int(marker["number"]) != 1:
                self.doubtful |= self.paragraph_unsure
                if self.paragraph_depth == len(self.item_columns):
                    break  # such an item cannot interrupt a paragraph
            if len(self.item_columns) == _MOST_ITEMS:
                self.doubtful = True  # nobody writes this, and reading on takes long
                break
            column = marker.end()
            self.item_columns.append(column)
            self.paragraph_depth, self.paragraph_unsure = None, False
        return column

    def _html(self, rest: str) -> _HtmlOpening | None:
        """The HTML block that the text of a line opens, if it does."""
        if not rest.startswith("<"):
            return None
        in_paragraph = self.paragraph_depth is not None
        if tag := _RAW_TAG.match(rest):
            return _HtmlOpening(mark=f"</{tag['tag'].lower()}>", item_column=self.item_column)
        mark = next((end for start, end in _MARKED_HTML if rest.startswith(start)), "")
        if not mark and _DECLARATION.match(rest):
            mark = ">"
        if mark:
            # Parsers differ about whether those other than comments interrupt a paragraph, and about these ends.
            odd = rest.startswith(("<?>", "<!-->", "<!--->"))
            self.doubtful |= odd or (mark != "-->" and (in_paragraph or self.paragraph_unsure))
            return _HtmlOpening(mark=mark, item_column=self.item_column)
        if _BLOCK_TAG.match(rest):
            return _HtmlOpening(mark="", item_column=self.item_column)
        if _SOLE_TAG.fullmatch(rest):
            self.doubtful |= self.paragraph_unsure
            return None if in_paragraph else _HtmlOpening(mark="", item_column=self.item_column)
        return None

    def _read_text(self, rest: str, around: list[int], *, inner: bool) -> None:
        """Note whether a line that opens no block begins, continues or ends a paragraph."""
        depth = len(self.item_columns)
        underlined = self.paragraph_depth == depth and _UNDERLINE.fullmatch(rest)
        if inner and (_THEMATIC_BREAK.fullmatch(rest) or _HEADING.fullmatch(rest) or underlined):
            self.paragraph_depth = None
        elif inner and rest.startswith(">"):
            self.paragraph_depth, self.paragraph_unsure = None, True
        elif self.paragraph_unsure:
            self.doubtful |= depth < len(around)  # it may continue a paragraph in there
        elif self.paragraph_depth is not None:
            if depth < len(around):
                self.item_columns = around  # it continues the paragraph in there
        elif inner:
            # Where it defines a link, the paragraph may end anywhere.
            self.paragraph_depth, self.paragraph_unsure = (None, True) if rest.startswith("[") else (depth, False)


def runnable_blocks(message: str) -> tuple[CodeBlock, ...]:
    """The blocks marked as Python or Bash, in the message's order; none where the message is doubtful."""
    scan = _scan(message)
    if scan.doubtful:
        return ()
    return tuple(
        CodeBlock(number=number, language=BLOCK_LANGUAGES[block.opening.info], code=block.code)
        for number, block in enumerate(scan.blocks, 1)
        if block.opening.info in BLOCK_LANGUAGES and not block.folded
    )


def meant_block(blocks: tuple[CodeBlock, ...]) -> CodeBlock | None:
    """The block that a press of the button means.

    The last Python block, as a message that corrects itself ends with the version it means; Bash beside Python mostly
    shows how to install or start it, so the last Bash block counts only where there is no Python.
    """
    python = [block for block in blocks if block.language == "python"]
    return next(reversed(python or blocks), None)


def with_closed_blocks(message: str) -> str:
    """The message without blank space at its end, its last block or formula closed, so that what follows is outside.

    Of a doubtful message this is a guess; nothing of it is run, so nothing follows it.
    """
    text = message.rstrip(" \t\r\n")  # no more than CommonMark calls blank
    scan = _scan(text)
    match scan.left_open:
        case _Opening(fence=fence, column=column):
            text += f"\n{' ' * column}{fence}"
        case _HtmlOpening(mark=mark, item_column=column) if mark:
            text += f"\n{' ' * column}{mark}"
        case _:
            pass
    outside = "\n".join(scan.text)
    if outside.count("$$") % 2:
        text += "\n$$"
    if outside.rfind("\\[") > outside.rfind("\\]"):
        text += "\n\\]"
    return text + "\n</details>" * scan.folds


def _scan(message: str) -> _MessageScan:
    scan = _MessageScan()
    scan.read(message.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    return scan


def _leaves(line: str, item_column: int) -> bool:
    """Whether a line stands outside the list item whose content begins at that column."""
    return not _blank(line) and _indent(line) < item_column


def _blank(line: str) -> bool:
    return not line.strip(" \t")


def _indent(line: str) -> int:
    blanks = line[: len(line) - len(line.lstrip(" \t"))]
    return len(blanks.expandtabs(_TAB_COLUMNS))
