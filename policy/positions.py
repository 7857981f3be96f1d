"""Where each key of a TOML text stands, so that a message can name file and line.

`tomllib` keeps no positions. This locator reads a text that `tomllib` has already accepted, so it only has to
find where things begin; it judges nothing. It keeps its own stack, and one entry for each key or element
instead of whole paths, so hostile text costs linear time and memory and cannot exhaust the interpreter's stack.
Source: TOML 1.0.0, https://toml.io/en/v1.0.0.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType

KeyPath = tuple[str | int, ...]

_TOML_BASIC_STRING = r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
_TOML_LITERAL_STRING = r"'[^'\n]*'"
# Fewer than three quotes in a row are content, also right before the three that close.
_TOML_LONG_BASIC_STRING = r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'
_TOML_LONG_LITERAL_STRING = r"'''[^']*(?:'(?!'')[^']*)*'{3,5}"
TOML_LONG_STRING = rf"(?s:{_TOML_LONG_BASIC_STRING}|{_TOML_LONG_LITERAL_STRING})"
"""A pattern of strings that may go over several lines. It comes first: they begin like an empty short one."""
TOML_SHORT_STRING = f"{_TOML_BASIC_STRING}|{_TOML_LITERAL_STRING}"
"""A pattern of strings in one line."""
_TOML_GAP = r"(?:[ \t\r\n,]|#[^\n]*)*"

_TOML_STATEMENT = re.compile(rf"{_TOML_GAP}(?P<bracket>\[\[?)?[ \t]*")
TOML_SEGMENT = re.compile(rf"(?P<key>[A-Za-z0-9_-]+|{TOML_SHORT_STRING})[ \t]*(?P<end>[.=\]])[ \t]*")
"""One segment of a key, the sign after it, and the blanks after that."""
_TOML_VALUE = re.compile(rf"(?P<bracket>[\[{{])|{TOML_LONG_STRING}|{TOML_SHORT_STRING}|[^\[\]{{}},#\n]+")
_TOML_NEXT = re.compile(rf"{_TOML_GAP}(?P<bracket>[\]}}])?")
_LAST_CODE_OF_FOUR_DIGITS = 0xFFFF
_BARE_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in a text."""

    line: int
    """Counted from 1."""
    column: int
    """Counted from 1, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Where each key and array element of a text stands: a tree of numbered nodes, the document being 0."""

    nodes: Mapping[tuple[int, str | int], int] = field(repr=False)
    """The node reached from a parent node by a key, or by an index in an array."""
    offsets: tuple[int, ...] = field(repr=False)
    """For each node, the characters before it."""
    line_starts: tuple[int, ...] = field(repr=False)
    """For each line, the characters before it."""

    def find(self, path: KeyPath) -> Position | None:
        """Return where a path stands, or None where the text does not hold it."""
        known, node = self._walk(path)
        return self._position(node) if known == len(path) else None

    def nearest(self, path: KeyPath) -> Position:
        """Return where a path stands, or the nearest ancestor that the text holds: its start if there is none."""
        return self._position(self._walk(path)[1])

    def line(self, path: KeyPath) -> int:
        """Return the line alone of what `nearest` finds."""
        return bisect_right(self.line_starts, self.offsets[self._walk(path)[1]])

    def offset(self, path: KeyPath) -> int | None:
        """Return how many characters stand before a path, or None where the text does not hold it."""
        known, node = self._walk(path)
        return self.offsets[node] if known == len(path) else None

    def _walk(self, path: KeyPath) -> tuple[int, int]:
        """Follow a path as far as it is known: how many segments, and the node there."""
        node = 0
        for known, segment in enumerate(path):
            child = self.nodes.get((node, segment))
            if child is None:
                return known, node
            node = child
        return len(path), node

    def _position(self, node: int) -> Position:
        offset = self.offsets[node]
        line = bisect_right(self.line_starts, offset)
        return Position(line=line, column=offset - self.line_starts[line - 1] + 1)


def locate(text: str) -> Positions:
    """Find where each key and array element stands in a text that `tomllib` accepts.

    A key stands where its own segment is first spelled, be it in a header or a dotted key that implies it; an
    element of an array of tables at the last segment of its header; any other element where its value begins.

    Raises:
        ValueError: the text is not TOML, seen only where it leaves nothing to go by.
    """
    reader = _PositionReader(text)
    reader.read_document()
    return Positions(
        nodes=MappingProxyType(reader.nodes),
        offsets=tuple(reader.offsets),
        line_starts=(0, *(newline.end() for newline in re.finditer("\n", text))),
    )


def path_text(path: KeyPath) -> str:
    """Write a path as TOML would, for a message: `limits.max_cpus.ceiling`, `audience[0]`, `users."a b"`."""
    parts = (f"[{segment}]" if isinstance(segment, int) else f".{_segment_text(segment)}" for segment in path)
    return "".join(parts).removeprefix(".")


def _segment_text(segment: str) -> str:
    if _BARE_SEGMENT.fullmatch(segment):
        return segment
    return f'"{"".join(map(_escaped_character, segment))}"'


def _escaped_character(character: str) -> str:
    """Escape what ends a string, and what could break a line or reorder the message it stands in."""
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code <= _LAST_CODE_OF_FOUR_DIGITS else f"\\U{code:08X}"


def _decoded_segment(spelling: str) -> str:
    if "\\" in spelling:
        # The parser itself decodes escapes, so the two can never disagree.
        decoded: str = tomllib.loads(f"k = {spelling}")["k"]
        return decoded
    return spelling[1:-1] if spelling[0] in "\"'" else spelling


class _PositionReader:
    """Reads one text from its start to its end, noting where things begin."""

    def __init__(self, text: str) -> None:
        self.nodes: dict[tuple[int, str | int], int] = {}
        self.offsets = [0]
        self._text = text
        self._at = 0
        self._lengths: dict[int, int] = {}  # of arrays of tables, by node

    def read_document(self) -> None:
        """Read statement after statement: a header, or a key with its value."""
        table = 0
        while True:
            bracket = self._take(_TOML_STATEMENT)
            if bracket:
                table = self._read_header(is_element=bracket == "[[")
            elif self._at < len(self._text):
                self._read_value(self._read_key(table)[0])
            else:
                return

    def _read_header(self, *, is_element: bool) -> int:
        """Return the table that the keys after this header belong to."""
        node, name_offset = self._read_key(0)
        if not is_element:
            return node
        self._at += 1  # the second closing bracket
        index = self._lengths.get(node, 0)
        self._lengths[node] = index + 1
        return self._child(node, index, name_offset)

    def _read_key(self, table: int) -> tuple[int, int]:
        """Read a dotted key and the sign that ends it; return its node and its last segment's offset."""
        node, offset, end = table, self._at, "."
        while end == ".":
            offset = self._at
            match = TOML_SEGMENT.match(self._text, offset)
            if match is None:
                raise self._refusal()
            self._at = match.end()
            end = match["end"]
            node = self._child(self._newest_table(node), _decoded_segment(match["key"]), offset)
        return node, offset

    def _read_value(self, node: int) -> None:
        """Read the value of a node, with all that it contains."""
        containers: list[tuple[int, Iterator[int] | None]] = []
        value: int | None = node
        while value is not None:
            bracket = self._take(_TOML_VALUE)
            if bracket:
                containers.append((value, count() if bracket == "[" else None))
            value = self._next_value(containers)

    def _next_value(self, containers: list[tuple[int, Iterator[int] | None]]) -> int | None:
        """Go to where the next value in the open containers begins, closing those that end before it."""
        while containers:
            if self._take(_TOML_NEXT):
                containers.pop()
                continue
            container, indexes = containers[-1]
            if indexes is None:
                return self._read_key(container)[0]
            return self._child(container, next(indexes), self._at)
        return None

    def _newest_table(self, node: int) -> int:
        """Return the newest element of an array of tables, which is what its name means in later headers."""
        length = self._lengths.get(node)
        return node if length is None else self.nodes[node, length - 1]

    def _child(self, parent: int, segment: str | int, offset: int) -> int:
        """Return a node's child, which stands where it was first seen."""
        child = self.nodes.setdefault((parent, segment), len(self.offsets))
        if child == len(self.offsets):
            self.offsets.append(offset)
        return child

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        """Read what matches here, and return the bracket in it."""
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._refusal()
        self._at = match.end()
        return match["bracket"]

    def _refusal(self) -> ValueError:
        line = self._text.count("\n", 0, self._at) + 1
        return ValueError(f"nothing that begins in line {line} is a key or a value")
