"""Reads TOML of a known shape: bytes to a table and the place of each key, or every problem at once.

For policy files, and for the files of cases they are tested with. Size and syntax are checked here, shape by a JSON
Schema; each problem has its key path and line.

Source: TOML 1.0.0.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policy.errors import DocumentError, Problem
from policy.positions import KeyPath, Positions, locate, path_text
from policy.schema import PLAIN_TEXT, ShapeError, TomlDate, shape_errors
from policy.settings import MAX_DOCUMENT_BYTES
from policy.values import UNLIMITED

_MAX_DEPTH = 16
_MAX_KEYS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlTable:
    """A table of the right shape, whose values are still to be read."""

    untrusted: Mapping[str, Any]
    """As tomllib gives it."""
    positions: Positions
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
    positions = _located(origin, decoded)
    untrusted = _parse_toml(origin, decoded)
    problems = tuple(_number_problems(origin, untrusted, positions))
    if not problems:
        problems = tuple(dict.fromkeys(_shape_problems(origin, untrusted, positions, schema, not_yet)))
    if problems:
        raise DocumentError(problems)
    return TomlTable(untrusted=untrusted, positions=positions)


def problem_at(origin: str, path: KeyPath, positions: Positions, reason: str, remedy: str) -> Problem:
    """A problem of one key, at the line where it stands."""
    return Problem(
        key=path_text(path) or "the file", origin=f"{origin}:{positions.line(path)}", reason=reason, remedy=remedy
    )


def _decoded(origin: str, data: bytes) -> str:
    if len(data) > MAX_DOCUMENT_BYTES:
        size = f"{len(data)} bytes, more than {MAX_DOCUMENT_BYTES}"
        raise _file_error(origin, f"it has {size}", "Split it into several files")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _file_error(f"{origin}:{line}", "it is not UTF-8", "Save it as UTF-8") from error
    foreign = re.search("[\r\x00\ufeff]", text)
    if foreign:
        line = text.count("\n", 0, foreign.start()) + 1
        reason = "it holds a carriage return, a NUL or a byte order mark"
        raise _file_error(f"{origin}:{line}", reason, "Save it with LF line ends and without a byte order mark")
    return text


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
        raise _file_error(origin, reason, "A policy needs far less: simplify it")
    return positions


def _parse_toml(origin: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise _syntax_error(origin, text, error) from error


def _number_problems(origin: str, untrusted: Mapping[str, Any], positions: Positions) -> Iterator[Problem]:
    """Numbers beyond 64 bits, which Python would read but may not even be able to print."""
    for path in _outsized_numbers(untrusted, ()):
        yield problem_at(origin, path, positions, "a TOML number has at most 64 bits", "Choose a value in range")


def _outsized_numbers(untrusted: object, path: KeyPath) -> Iterator[KeyPath]:
    children: Iterable[tuple[str | int, object]] = ()
    match untrusted:
        case dict():
            children = untrusted.items()
        case list():
            children = enumerate(untrusted)
        case int() if not -(2**63) <= untrusted < 2**63:
            yield path
    for key, child in children:
        yield from _outsized_numbers(child, (*path, key))


def _shape_problems(
    origin: str, untrusted: Mapping[str, Any], positions: Positions, schema: Mapping[str, Any], not_yet: tuple[str, ...]
) -> Iterator[Problem]:
    for error in shape_errors(untrusted, schema):
        if error.rule == "additionalProperties":
            for key in error.value:
                path = (*error.path, key)
                if path[0] in not_yet and len(path) == 1:
                    yield problem_at(origin, path, positions, "it is not supported by this version", "Remove it")
                elif key not in error.known_keys:
                    yield _unknown_key(origin, path, error.known_keys, positions)
        else:
            reason, remedy = _shape_text(error)
            yield problem_at(origin, error.path, positions, reason, remedy)


def _unknown_key(origin: str, path: KeyPath, known: tuple[str, ...], positions: Positions) -> Problem:
    key = str(path[-1])
    alike = difflib.get_close_matches(key, known, n=1)
    remedy = f"You may have meant {alike[0]}" if alike else f"Known here: {', '.join(known)}"
    return problem_at(origin, path, positions, "there is no such key", remedy)


def _shape_text(error: ShapeError) -> tuple[str, str]:
    """Reason and remedy for one breach of the schema, in words that need no schema to be understood."""
    value, expected = _short(error.value), error.expected
    match error.rule:
        case "required":
            text = f"it lacks {', '.join(key for key in expected if key not in error.value)}", "Add it"
        case "type":
            text = f"{value} is not of type {expected}", "Write a value of that type"
        case "format":
            text = _format_text(error, value)
        case "minimum" | "maximum":
            side = "below the least" if error.rule == "minimum" else "above the greatest"
            text = f"{value} is {side} permitted value, {expected}", "Choose a value in range"
        case "const" | "enum":
            text = _choice_text(error, value)
        case "pattern" if expected == PLAIN_TEXT:
            text = f"{value} holds a line break, a control or a bidirectional character", "Write plain text in one line"
        case "anyOf" | "minProperties" | "minItems":
            text = _empty_text(error)
        case "false":
            text = "nothing else may be stated beside a lock", "Remove one of them"
        case _:
            text = f"{value} breaks the rule {error.rule} = {_short(expected)}", "Correct the value"
    return text


def _empty_text(error: ShapeError) -> tuple[str, str]:
    if error.rule == "minItems":
        return "it names nothing", "Name at least one, or leave the key out"
    if error.path[:1] == ("scope",) and "limits" not in error.path:
        return (
            "it does not say whom it is for",
            "Write match or except, each with roles, groups, users, models, surface",
        )
    return "it says nothing", "State a lock, a ceiling or a default"


def _format_text(error: ShapeError, value: str) -> tuple[str, str]:
    if error.expected == "date-time":
        return f"{value} is not a date with an offset", "Write one such as 2026-11-01T00:00:00Z, without quotes"
    return error.cause, "Correct the item"


def _choice_text(error: ShapeError, value: str) -> tuple[str, str]:
    if error.expected == UNLIMITED.value:  # of somebody who quoted a number, never ask for the loosest value
        return f"{value} is no number", 'Write a number without quotes, or the word "unlimited"'
    if error.rule == "enum":
        return f"{value} is not one of {', '.join(error.expected)}", "Choose among them"
    return f"{value} is not {error.expected}", f"Write {error.expected}"


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str | list) and not isinstance(value, TomlDate) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    longest = 80
    return text if len(text) <= longest else f"{text[:longest]}…"


def _syntax_error(origin: str, text: str, error: ValueError) -> DocumentError:
    """What the parser says, at the line that it names last; what it quotes of the text stands before that."""
    named = re.findall(r"\bline ([0-9]+)", str(error))
    line = named[-1] if named else text.count("\n") + 1
    return _file_error(f"{origin}:{line}", f"it is not TOML: {error}", "Correct the syntax; https://toml.io shows it")


def _file_error(origin: str, reason: str, remedy: str) -> DocumentError:
    return DocumentError((Problem(key="the file", origin=origin, reason=reason, remedy=remedy),))
