"""Reads one policy file: bytes to a frozen document, or every problem at once, each with its key path and line.

Size and syntax are checked here, shape by the JSON Schema, and what a schema cannot say (contradictions inside one
file, the order of dates) here again. Signatures, audience and expiry are for whoever loads the set.

Source: TOML 1.0.0; `policy/policy.schema.json`.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from policy.errors import DocumentError, Problem
from policy.limits import LIMITS, Limit
from policy.positions import KeyPath, Positions, locate, path_text
from policy.requester import ScopeConditions
from policy.schema import ShapeError, TomlDate, shape_errors
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import UNLIMITED

MAX_DOCUMENT_BYTES = 64 * 1024
_MAX_DEPTH = 16
_MAX_KEYS = 2_000
_NOT_YET_KEYS = ("rollout",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyScope:
    """One `[[scope]]` of a policy file: stricter limits for some."""

    conditions: ScopeConditions
    """Whom it is for."""
    statements: tuple[Stated, ...]
    """What it says of limits, in the table's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDocument:
    """One policy file that is what it should be."""

    origin: str
    """The file's name, for people."""
    policy_id: str
    """Its own id."""
    serial: int
    """Raised with each change."""
    issued_at: datetime
    """With an offset."""
    not_before: datetime | None
    """With an offset; `None` where it holds from the start."""
    expires_at: datetime
    """With an offset; the first moment at which it no longer holds."""
    audience: tuple[str, ...]
    """Instances it is for; `*` is any."""
    payload_sha256: str
    """SHA-256 of the signed text, in hexadecimal."""
    key_ids: tuple[str, ...]
    """Trusted keys that signed it; empty for an unsigned one."""
    statements: tuple[Stated, ...]
    """What it says of limits for everybody, in the table's order."""
    scopes: tuple[PolicyScope, ...] = ()
    """What it says for some, in the file's order, which does not matter."""
    requires: tuple[str, ...] = ()
    """Ids that must be present beside it."""
    retires: tuple[str, ...] = ()
    """Ids that may be gone, and must be, from now on."""
    rollback_of: int | None = None
    """The earlier serial whose change this one takes back; `None` where it takes none back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSource:
    """The bytes of a policy file whose signatures were already dealt with."""

    origin: str
    """The file's name, for people."""
    text: bytes
    """The signed text, without its signature block."""
    payload_sha256: str
    """SHA-256 of `text`, in hexadecimal."""
    key_ids: tuple[str, ...]
    """Trusted keys that signed it; empty for an unsigned one."""


def parse_document(source: DocumentSource) -> PolicyDocument:
    """Read a policy file.

    Raises:
        DocumentError: it is too large, no TOML, not of the schema's shape, or contradicts itself.
    """
    text = _decoded(source)
    positions = _located(source.origin, text)
    untrusted = _parse_toml(source.origin, text)
    problems = tuple(_number_problems(source.origin, untrusted, positions))
    problems = problems or tuple(dict.fromkeys(_shape_problems(source.origin, untrusted, positions)))
    if problems:
        raise DocumentError(problems)
    reader = _StatementReader(source=source, untrusted=untrusted, positions=positions)
    found = tuple(reader.statements(("limits",), untrusted["limits"], ""))
    scopes = tuple(reader.scope(number, scope) for number, scope in enumerate(untrusted.get("scope", ())))
    blocks = (found, *(statements for _, statements in scopes))
    problems = (
        *(item for block in blocks for item in block if isinstance(item, Problem)),
        *(problem for block in blocks for problem in _own_contradictions(_readable(block))),
        *_date_problems(source.origin, untrusted, positions),
        *_relation_problems(source.origin, untrusted, positions),
    )
    if problems:
        raise DocumentError(problems)
    return PolicyDocument(
        origin=source.origin,
        policy_id=untrusted["id"],
        serial=untrusted["serial"],
        issued_at=untrusted["issued_at"],
        not_before=untrusted.get("not_before"),
        expires_at=untrusted["expires_at"],
        audience=tuple(untrusted["audience"]),
        payload_sha256=source.payload_sha256,
        key_ids=source.key_ids,
        statements=_readable(found),
        scopes=tuple(PolicyScope(conditions=who, statements=_readable(said)) for who, said in scopes),
        requires=tuple(untrusted.get("requires", ())),
        retires=tuple(untrusted.get("retires", ())),
        rollback_of=untrusted.get("rollback_of"),
    )


def _decoded(source: DocumentSource) -> str:
    if len(source.text) > MAX_DOCUMENT_BYTES:
        size = f"{len(source.text)} bytes, more than {MAX_DOCUMENT_BYTES}"
        raise _file_error(source.origin, f"it has {size}", "Split it into several files")
    try:
        text = source.text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = source.text.count(b"\n", 0, error.start) + 1
        raise _file_error(f"{source.origin}:{line}", "it is not UTF-8", "Save it as UTF-8") from error
    foreign = re.search("[\r\x00\ufeff]", text)
    if foreign:
        line = text.count("\n", 0, foreign.start()) + 1
        reason = "it holds a carriage return, a NUL or a byte order mark"
        raise _file_error(f"{source.origin}:{line}", reason, "Save it with LF line ends and without a byte order mark")
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
        yield _problem_at(origin, path, positions, "a TOML number has at most 64 bits", "Choose a value in range")


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


def _shape_problems(origin: str, untrusted: Mapping[str, Any], positions: Positions) -> Iterator[Problem]:
    for error in shape_errors(untrusted):
        if error.rule == "additionalProperties":
            for key in error.value:
                if key not in error.known_keys:
                    yield _unknown_key(origin, (*error.path, key), error.known_keys, positions)
        else:
            reason, remedy = _shape_text(error)
            yield _problem_at(origin, error.path, positions, reason, remedy)


def _unknown_key(origin: str, path: KeyPath, known: tuple[str, ...], positions: Positions) -> Problem:
    key = str(path[-1])
    if len(path) == 1 and key in _NOT_YET_KEYS:
        return _problem_at(origin, path, positions, "it is not supported by this version", "Remove it")
    alike = difflib.get_close_matches(key, known, n=1)
    remedy = f"You may have meant {alike[0]}" if alike else f"Known here: {', '.join(known)}"
    return _problem_at(origin, path, positions, "there is no such key", remedy)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _StatementReader:
    """Reads what one file says of limits, in its `[limits]` and in each scope alike."""

    source: DocumentSource
    untrusted: Mapping[str, Any]
    positions: Positions

    def scope(self, number: int, untrusted: Mapping[str, Any]) -> tuple[ScopeConditions, tuple[Stated | Problem, ...]]:
        """Whom one scope is for, and what it says."""
        conditions = ScopeConditions(
            match=_named_values(untrusted.get("match", {})), excepted=_named_values(untrusted.get("except", {}))
        )
        path = ("scope", number, "limits")
        return conditions, tuple(self.statements(path, untrusted["limits"], str(conditions)))

    def statements(self, path: KeyPath, limits: Mapping[str, Any], scope: str) -> Iterator[Stated | Problem]:
        """What one table says of each limit, or why that cannot be read."""
        for limit in LIMITS:
            if limit.name not in limits:
                continue
            said = limits[limit.name]
            table = said if isinstance(said, dict) else {"lock": said}
            for verb in (Verb.LOCK, Verb.CEILING, Verb.DEFAULT):
                if verb.value in table:
                    place = (*path, limit.name, verb.value) if table is said else (*path, limit.name)
                    yield self._statement(place, limit, verb, table, scope)

    def _statement(
        self, path: KeyPath, limit: Limit[Any], verb: Verb, table: Mapping[str, Any], scope: str
    ) -> Stated | Problem:
        try:
            value = limit.kind.from_native(table[verb.value])
        except ValueError as error:
            return _problem_at(self.source.origin, path, self.positions, str(error), f"Expected {limit.kind.grammar}")
        origin = Origin(
            layer=Layer.POLICY,
            place=f"{self.source.origin}:{self.positions.line(path)}",
            reason=table.get("reason", ""),
            policy_id=self.untrusted["id"],
            scope=scope,
            serial=self.untrusted["serial"],
            key_ids=self.source.key_ids,
        )
        may_loosen = table.get("env_may_loosen", True)
        return Stated(limit=limit, verb=verb, value=value, origin=origin, environment_may_loosen=may_loosen)


def _named_values(untrusted: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Conditions by attribute; a word that stands alone is a list of one."""
    return {name: frozenset([said] if isinstance(said, str) else said) for name, said in untrusted.items()}


def _readable(found: Iterable[Stated | Problem]) -> tuple[Stated, ...]:
    return tuple(item for item in found if isinstance(item, Stated))


def _own_contradictions(statements: tuple[Stated, ...]) -> Iterator[Problem]:
    said = {(statement.limit.name, statement.verb): statement for statement in statements}
    for default in statements:
        ceiling = said.get((default.limit.name, Verb.CEILING))
        if default.verb is Verb.DEFAULT and ceiling is not None:
            kind = default.limit.kind
            if not kind.within(default.value, ceiling.value):
                reason = f"its default {kind.text(default.value)} is looser than its ceiling {kind.text(ceiling.value)}"
                key = f"limits.{default.limit.name}.default"
                yield Problem(
                    key=key, origin=default.origin.place, reason=reason, remedy="Lower it, or raise the ceiling"
                )


def _date_problems(origin: str, untrusted: Mapping[str, Any], positions: Positions) -> Iterator[Problem]:
    begins = untrusted.get("not_before", untrusted["issued_at"])
    for key in ("issued_at", "not_before"):
        if key in untrusted and untrusted[key] >= untrusted["expires_at"]:
            reason = f"it expires at {untrusted['expires_at']}, which is not after {key}"
            yield _problem_at(origin, ("expires_at",), positions, reason, f"Choose a date after {begins}")


def _relation_problems(origin: str, untrusted: Mapping[str, Any], positions: Positions) -> Iterator[Problem]:
    """What the file says of other files, and of its own past."""
    for key in ("requires", "retires"):
        if untrusted["id"] in untrusted.get(key, ()):
            yield _problem_at(origin, (key,), positions, "it names the file's own id", "Name other policies")
    both = sorted(set(untrusted.get("requires", ())) & set(untrusted.get("retires", ())))
    if both:
        reason = f"{', '.join(both)} is retired here and required too"
        yield _problem_at(origin, ("retires",), positions, reason, "Keep one of the two")
    if untrusted.get("rollback_of", 0) >= untrusted["serial"]:
        reason = f"serial {untrusted['rollback_of']} is no earlier one than this file's {untrusted['serial']}"
        yield _problem_at(origin, ("rollback_of",), positions, reason, "Raise the serial, and name an earlier one")


def _problem_at(origin: str, path: KeyPath, positions: Positions, reason: str, remedy: str) -> Problem:
    return Problem(
        key=path_text(path) or "the file", origin=f"{origin}:{positions.line(path)}", reason=reason, remedy=remedy
    )


def _syntax_error(origin: str, text: str, error: ValueError) -> DocumentError:
    """What the parser says, at the line that it names last; what it quotes of the text stands before that."""
    named = re.findall(r"\bline ([0-9]+)", str(error))
    line = named[-1] if named else text.count("\n") + 1
    return _file_error(f"{origin}:{line}", f"it is not TOML: {error}", "Correct the syntax; https://toml.io shows it")


def _file_error(origin: str, reason: str, remedy: str) -> DocumentError:
    return DocumentError((Problem(key="the file", origin=origin, reason=reason, remedy=remedy),))
