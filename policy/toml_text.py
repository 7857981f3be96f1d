"""Reads TOML of a known shape: bytes to a table and the place of each key, or every problem at once.

For policy files, and for the files of cases they are tested with. Size and syntax are checked here, shape by a JSON
Schema; each problem has its key path and line.

Source: TOML 1.0.0.
"""

import difflib
import math
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policy.errors import DocumentError, Flaw, Problem
from policy.positions import KeyPath, Position, Positions, locate, path_text
from policy.schema import PLAIN_TEXT, ShapeError, TomlDate, shape_errors
from policy.settings import MAX_DOCUMENT_BYTES
from policy.values import UNLIMITED

_MAX_DEPTH = 16
_MAX_KEYS = 2_000
_START = Position(line=1, column=1)
# How tomllib begins what it says of a key that is stated twice.
_TWICE = "Cannot overwrite|Cannot declare|Duplicate inline table key|Cannot mutate immutable namespace"


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlPlaces:
    """Where each key of one file stands."""

    origin: str
    """The file's name, for people."""
    positions: Positions
    """Where in its text each key stands."""

    def line(self, path: KeyPath) -> str:
        """`FILE:LINE` of a key, or of the nearest table that would hold it."""
        return f"{self.origin}:{self.positions.nearest(path).line}"

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


def read_toml(origin: str, text: bytes, schema: Mapping[str, Any], not_yet: tuple[str, ...] = ()) -> TomlTable:
    """Read a TOML text of this shape.

    Args:
        origin: the file's name, for people.
        text: the whole text.
        schema: a JSON Schema of the table.
        not_yet: top-level keys that a later version may know, and that this one refuses as such.

    Raises:
        DocumentError: it is too large, no TOML, or not of that shape; every problem is listed.
    """
    decoded = _decoded(origin, text)
    places = TomlPlaces(origin=origin, positions=_located(origin, decoded))
    untrusted = _parse_toml(origin, decoded)
    problems = tuple(_number_problems(untrusted, places))
    if not problems:
        problems = tuple(dict.fromkeys(_shape_problems(untrusted, places, schema, not_yet)))
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
    if len(positions.nodes) > _MAX_KEYS or max(depths.values()) > _MAX_DEPTH:
        reason = f"it nests deeper than {_MAX_DEPTH}, or has more than {_MAX_KEYS} keys and items"
        raise _file_error(origin, Flaw.TOO_LARGE, reason, "A policy needs far less: simplify it")
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
    for error in shape_errors(untrusted, schema):
        if error.rule == "additionalProperties":
            for key in error.value:
                path = (*error.path, key)
                if path[0] in not_yet and len(path) == 1:
                    reason = "it is not supported by this version"
                    yield places.problem(path, Flaw.UNSUPPORTED_KEY, reason=reason, remedy="Remove it")
                elif key not in error.known_keys:
                    yield _unknown_key(path, error.known_keys, places)
        else:
            flaw, reason, remedy = _shape_text(error)
            yield places.problem(_exact_path(error), flaw, reason=reason, remedy=remedy)


def _exact_path(error: ShapeError) -> KeyPath:
    """Where a breach stands: of a repeated item, the item and not its list."""
    return (*error.path, _repeated_at(error.value)) if error.rule == "uniqueItems" else error.path


def _repeated_at(items: list[Any]) -> int:
    """The place of the first item that stood before."""
    return next(number for number, item in enumerate(items) if item in items[:number])


def _unknown_key(path: KeyPath, known: tuple[str, ...], places: TomlPlaces) -> Problem:
    key = str(path[-1])
    alike = difflib.get_close_matches(key, known, n=1)
    remedy = f"You may have meant {alike[0]}" if alike else f"Known here: {', '.join(known)}"
    if key.isascii():
        return places.problem(path, Flaw.UNKNOWN_KEY, reason="there is no such key", remedy=remedy)
    foreign = next(character for character in key if not character.isascii())
    reason = f"there is no such key; it holds {unicodedata.name(foreign, ascii(foreign))}"
    return places.problem(path, Flaw.LOOK_ALIKE_KEY, reason=reason, remedy=remedy)


def _shape_text(error: ShapeError) -> tuple[Flaw, str, str]:
    """What one breach of the schema is, with reason and remedy in words that need no schema to be understood."""
    value, expected = _short(error.value), error.expected
    match error.rule:
        case "required":
            lacking = ", ".join(key for key in expected if key not in error.value)
            told = Flaw.MISSING_KEY, f"it lacks {lacking}", "Add it"
        case "type":
            told = Flaw.WRONG_TYPE, f"{value} is not of type {expected}", "Write a value of that type"
        case "format":
            told = _format_text(error, value)
        case "minimum" | "maximum":
            side = "below the least" if error.rule == "minimum" else "above the greatest"
            reason = f"{value} is {side} permitted value, {expected}"
            told = Flaw.OUT_OF_RANGE, reason, "Choose a value in range"
        case "const" | "enum":
            told = _choice_text(error, value)
        case "pattern" if expected == PLAIN_TEXT:
            reason = f"{value} holds a line break, a control or a bidirectional character"
            told = Flaw.BAD_VALUE, reason, "Write plain text in one line"
        case "anyOf" | "minProperties" | "minItems":
            told = (Flaw.SAYS_NOTHING, *_empty_text(error))
        case "uniqueItems":
            item = _short(error.value[_repeated_at(error.value)])
            told = Flaw.REPEATED_ITEM, f"{item} stands in the list already", "Remove it"
        case "false":
            told = Flaw.LOCK_BESIDE_OTHERS, "nothing else may be stated beside a lock", "Remove one of them"
        case _:
            reason = f"{value} breaks the rule {error.rule} = {_short(expected)}"
            told = Flaw.BAD_VALUE, reason, "Correct the value"
    return told


def _empty_text(error: ShapeError) -> tuple[str, str]:
    if error.rule == "minItems":
        return "it names nothing", "Name at least one, or leave the key out"
    if error.path[:1] == ("scope",) and "limits" not in error.path:
        return (
            "it does not say whom it is for",
            "Write match or except, each with roles, groups, users, models, surface",
        )
    return "it says nothing", "State a lock, a ceiling or a default"


def _format_text(error: ShapeError, value: str) -> tuple[Flaw, str, str]:
    if error.expected == "date-time":
        reason, remedy = (
            f"{value} is not a date with an offset",
            "Write one such as 2026-11-01T00:00:00Z, without quotes",
        )
        return Flaw.DATE_WITHOUT_OFFSET, reason, remedy
    return Flaw.BAD_DESTINATION, error.cause, "Correct the item"


def _choice_text(error: ShapeError, value: str) -> tuple[Flaw, str, str]:
    if error.expected == UNLIMITED.value:  # of somebody who quoted a number, never ask for the loosest value
        return Flaw.WRONG_TYPE, f"{value} is no number", 'Write a number without quotes, or the word "unlimited"'
    if error.rule == "enum":
        reason = f"{value} is not one of {', '.join(error.expected)}"
        return Flaw.BAD_VALUE, reason, "Choose among them"
    return Flaw.BAD_VALUE, f"{value} is not {error.expected}", f"Write {error.expected}"


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str | list) and not isinstance(value, TomlDate) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    longest = 80
    return text if len(text) <= longest else f"{text[:longest]}…"


def _syntax_error(origin: str, text: str, error: ValueError) -> DocumentError:
    """What the parser says, at the place that it names last; what it quotes of the text stands before that."""
    named = re.findall(r"\bline ([0-9]+)(?:, column ([0-9]+))?", str(error))
    position = _position_after(text)
    if named:
        position = Position(line=int(named[-1][0]), column=int(named[-1][1] or 1))
    flaw = Flaw.DUPLICATE_KEY if re.match(_TWICE, str(error)) else Flaw.NOT_TOML
    remedy = "Keep one of the two" if flaw is Flaw.DUPLICATE_KEY else "Correct the syntax; https://toml.io shows it"
    return _file_error(origin, flaw, f"it is not TOML: {error}", remedy, position)


def _file_error(origin: str, flaw: Flaw, reason: str, remedy: str, position: Position = _START) -> DocumentError:
    place = origin if position is _START else f"{origin}:{position.line}"
    problem = Problem(key="the file", origin=place, reason=reason, remedy=remedy, flaw=flaw, position=position)
    return DocumentError((problem,))
