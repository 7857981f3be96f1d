"""Reads TOML of a known shape: bytes to a table and the place of each key, or every problem at once.

For policy files, and for the files of cases they are tested with. Size and syntax are checked here, shape by a JSON
Schema; each problem has its key path and line.

Source: TOML 1.0.0.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from policy.errors import DocumentError, Flaw, Problem
from policy.positions import TOML_SEGMENT, KeyPath, Position, Positions, locate, path_text
from policy.settings import MAX_DOCUMENT_BYTES
from policy.shape import Shape

_MAX_DEPTH = 16
_MAX_KEYS = 2_000
# How far the key that is stated twice is searched for, since a search takes the square of a line's length.
_MOST_LINES = 50
_MOST_COLUMNS = 400
_MOST_TRIED = 4
_START = Position(line=1, column=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlPlaces:
    """Where each key of one file stands."""

    origin: str
    """The file's name, for people."""
    positions: Positions
    """Where in its text each key stands."""

    def line(self, path: KeyPath) -> str:
        """`FILE:LINE` of a key, or of the nearest table that would hold it."""
        return f"{self.origin}:{self.positions.line(path)}"

    def problem(self, path: KeyPath, flaw: Flaw, *, reason: str, remedy: str) -> Problem:
        """A problem of one key, at the place where it stands."""
        position = self.positions.nearest(path)
        return Problem(
            key=path_text(path) or "the file",
            origin=f"{self.origin}:{position.line}",
            reason=reason,
            remedy=remedy,
            flaw=flaw,
            path=path,
            position=position,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlTable:
    """A table of the right shape, whose values are still to be read."""

    untrusted: Mapping[str, Any]
    """As tomllib gives it."""
    places: TomlPlaces
    """Where each key stands."""


def read_toml(origin: str, text: bytes, shape: Shape, not_yet: tuple[str, ...] = ()) -> TomlTable:
    """Read a TOML text of this shape.

    Args:
        origin: the file's name, for people.
        text: the whole text.
        shape: what the table has to look like.
        not_yet: top-level keys that a later version may know, and that this one refuses as such.

    Raises:
        DocumentError: it is too large, no TOML, or not of that shape; every problem is listed.
    """
    decoded = _decoded(origin, text)
    places = TomlPlaces(origin=origin, positions=_located(origin, decoded))
    untrusted = _parse_toml(origin, decoded)
    problems = tuple(_number_problems(untrusted, places)) if _has_odd_numbers(untrusted) else ()
    if not problems and not shape.accepts(untrusted):
        problems = tuple(dict.fromkeys(_shape_problems(untrusted, places, shape.schema, not_yet)))
    if problems:
        raise DocumentError(problems)
    return TomlTable(untrusted=untrusted, places=places)


def _decoded(origin: str, data: bytes) -> str:
    if len(data) > MAX_DOCUMENT_BYTES:
        size = f"{len(data)} bytes, more than {MAX_DOCUMENT_BYTES}"
        raise _file_error(origin, Flaw.TOO_LARGE, f"it has {size}", "Split it into several files")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise _file_error(
            origin, Flaw.ENCODING, "it is not UTF-8", "Save it as UTF-8", _position_after(before)
        ) from error
    foreign = re.search("[\r\x00\ufeff]", text)
    if foreign:
        reason = "it holds a carriage return, a NUL or a byte order mark"
        remedy = "Save it with LF line ends and without a byte order mark"
        raise _file_error(origin, Flaw.ENCODING, reason, remedy, _position_after(text[: foreign.start()]))
    return text


def _position_after(before: str) -> Position:
    """Where the text goes on after these characters."""
    return Position(line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))


def _located(origin: str, text: str) -> Positions:
    """Where every key stands, of a text that is no larger than a policy may be.

    This comes before the TOML parser, whose time and memory grow with the square of a dotted key's length.
    """
    try:
        positions = locate(text)
    except ValueError as error:
        raise _syntax_error(origin, text, error) from error
    depths = {0: 0}
    for (parent, _key), node in positions.nodes.items():
        depths[node] = depths[parent] + 1
        if node > _MAX_KEYS or depths[node] > _MAX_DEPTH:
            place = _position_after(text[: positions.offsets[node]])
            reason = (
                f"it has more than {_MAX_KEYS} keys and items"
                if node > _MAX_KEYS
                else f"it nests deeper than {_MAX_DEPTH}"
            )
            raise _file_error(origin, Flaw.TOO_LARGE, reason, "A policy needs far less: simplify it", place)
    return positions


def _parse_toml(origin: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise _syntax_error(origin, text, error) from error


def _number_problems(untrusted: Mapping[str, Any], places: TomlPlaces) -> Iterator[Problem]:
    """Numbers beyond 64 bits, which Python would read but may not even be able to print, and what is no number."""
    for path, number in _odd_numbers(untrusted, ()):
        if isinstance(number, float):
            reason, remedy = f"{number} is no number that can be compared", "Write a number"
            yield places.problem(path, Flaw.NOT_FINITE, reason=reason, remedy=remedy)
        else:
            reason, remedy = "a TOML number has at most 64 bits", "Choose a value in range"
            yield places.problem(path, Flaw.OUT_OF_RANGE, reason=reason, remedy=remedy)


def _has_odd_numbers(untrusted: object) -> bool:
    """Whether `_odd_numbers` finds any, told in a third of the time."""
    waiting = [untrusted]
    while waiting:
        match waiting.pop():
            case dict() as table:
                waiting.extend(table.values())
            case list() as items:
                waiting.extend(items)
            case int() as number if not -(2**63) <= number < 2**63:
                return True
            case float() as number if not math.isfinite(number):
                return True
    return False


def _odd_numbers(untrusted: object, path: KeyPath) -> Iterator[tuple[KeyPath, int | float]]:
    children: Iterable[tuple[str | int, object]] = ()
    match untrusted:
        case dict():
            children = untrusted.items()
        case list():
            children = enumerate(untrusted)
        case int() if not -(2**63) <= untrusted < 2**63:
            yield path, untrusted
        case float() if not math.isfinite(untrusted):
            yield path, untrusted
    for key, child in children:
        yield from _odd_numbers(child, (*path, key))


def _shape_problems(
    untrusted: Mapping[str, Any], places: TomlPlaces, schema: Mapping[str, Any], not_yet: tuple[str, ...]
) -> Iterator[Problem]:
    from policy.shape_errors import shape_errors  # noqa: PLC0415 -- takes time to load, and is rarely needed
    from policy.toml_words import breach_words, telling_breaches, unknown_key_words  # noqa: PLC0415 -- as above

    for error in telling_breaches(shape_errors(untrusted, schema)):
        if error.rule != "additionalProperties":
            words = breach_words(error)
            yield places.problem(error.path, words.flaw, reason=words.reason, remedy=words.remedy)
            continue
        for key in (key for key in error.value if key not in error.known_keys):
            path = (*error.path, key)
            if path[:-1] == () and key in not_yet:
                reason = "it is not supported by this version"
                yield places.problem(path, Flaw.UNSUPPORTED_KEY, reason=reason, remedy="Remove it")
            else:
                words = unknown_key_words(path, error, schema)
                yield places.problem(path, words.flaw, reason=words.reason, remedy=words.remedy)


def _syntax_error(origin: str, text: str, error: ValueError) -> DocumentError:
    """What the parser says, at the place that it names last; what it quotes of the text stands before that."""
    from policy.toml_words import syntax_words  # noqa: PLC0415 -- rarely needed

    named = re.findall(r"\bline ([0-9]+)(?:, column ([0-9]+))?", str(error))
    position = _position_after(text)
    if named:
        position = Position(line=int(named[-1][0]), column=int(named[-1][1] or 1))
    lines = text.split("\n")
    at_end = not "".join(lines[position.line - 1 :]).strip()
    words = syntax_words(str(error), lines[position.line - 1], at_end=at_end)
    repeated = _repeated_key(origin, text, position.line) if words.flaw is Flaw.DUPLICATE_KEY else None
    if repeated:
        return DocumentError((repeated,))
    return _file_error(origin, words.flaw, words.reason, words.remedy, position)


def _repeated_key(origin: str, text: str, line: int) -> Problem | None:
    """The key that the statement which ends in this line states again, where it can be told."""
    positions = locate(text)
    for start in islice(_repeated_segments(text, positions, line), _MOST_TRIED):
        path = _path_at(text, start)
        first = positions.find(path)
        if path and first:
            second = _position_after(text[:start])
            return Problem(
                key=path_text(path),
                origin=f"{origin}:{second.line}",
                reason=f"it is stated twice, first in line {first.line}; TOML states each key and each table once",
                remedy="Keep one of the two",
                flaw=Flaw.DUPLICATE_KEY,
                path=path,
                position=second,
            )
    return None


def _repeated_segments(text: str, positions: Positions, line: int) -> Iterator[int]:
    """Where segments stand that were spelled before, those first that are likeliest to be what is stated again.

    That is the last segment of a key; else the last one that another follows, which is a value then and no table.
    """
    known = frozenset(positions.offsets)
    for above in range(min(line, _MOST_LINES)):
        start = positions.line_starts[line - above - 1]
        end = start + len(text[start : start + _MOST_COLUMNS].partition("\n")[0])
        found = [each for each in TOML_SEGMENT.finditer(text, start, end) if each.start() not in known]
        # Above this line only the key of its value can be meant: a header may name again what another one implied.
        yield from (each.start() for each in found if each["end"] in ("=" if above else "=]"))
        if not above:
            yield from (each.start() for each in found[::-1] if each["end"] == ".")


def _path_at(text: str, start: int) -> KeyPath:
    """The path of the key whose last segment, spelled before, begins here; empty where none does.

    Under a name of its own the locator finds it here, and not at the first place.
    """
    segment = TOML_SEGMENT.match(text, start)
    if segment is None:
        return ()
    name = f"again-{'-' * len(segment['key'])}"
    try:
        renamed = locate(f"{text[:start]}{name}{text[segment.end('key') :]}")
    except ValueError:  # what follows is not TOML, and nobody has read it yet
        return ()
    above = {node: (parent, key) for (parent, key), node in renamed.nodes.items()}
    node = next((node for node, (_, key) in above.items() if key == name and renamed.offsets[node] == start), 0)
    if not node:
        return ()
    path: KeyPath = (tomllib.loads(f"{segment['key']} = 0").popitem()[0],)
    node = above[node][0]
    while node:
        node, key = above[node]
        path = (key, *path)
    return path


def _file_error(origin: str, flaw: Flaw, reason: str, remedy: str, position: Position = _START) -> DocumentError:
    place = origin if position is _START else f"{origin}:{position.line}"
    problem = Problem(key="the file", origin=place, reason=reason, remedy=remedy, flaw=flaw, position=position)
    return DocumentError((problem,))
