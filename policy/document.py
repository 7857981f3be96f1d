"""Reads one policy file: bytes to a frozen document, or every problem at once, each with its key path and line.

What a schema cannot say is checked here: contradictions inside one file, the order of dates. Signatures, audience and
expiry are for whoever loads the set.

Source: TOML 1.0.0; `policy/policy.schema.json`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any

from policy.errors import DocumentError, Flaw, Problem
from policy.limits import LIMITS, Limit
from policy.positions import KeyPath
from policy.requester import ScopeConditions
from policy.schema import document_schema
from policy.shape import Shape, compiled_shape
from policy.statements import Layer, Origin, Stated, Verb
from policy.toml_text import TomlPlaces, TomlTable, read_toml

_NOT_YET_KEYS = ("rollout",)
_STATED_BY: Mapping[str, Verb] = MappingProxyType(
    {verb.value: verb for verb in (Verb.LOCK, Verb.CEILING, Verb.DEFAULT)}
)


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
    unknown_key_ids: tuple[str, ...] = ()
    """Keys that signed it too, and are not trusted here: not checked, and not counted."""


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
    unknown_key_ids: tuple[str, ...] = ()
    """Keys named in lines that were not checked, since they are not trusted here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentReading:
    """A policy file that is what it should be, beside the TOML it was read from."""

    document: PolicyDocument
    """What it says."""
    toml: TomlTable
    """How it says it, and where."""


def parse_document(source: DocumentSource) -> PolicyDocument:
    """Read a policy file.

    Raises:
        DocumentError: it is too large, no TOML, not of the schema's shape, or contradicts itself.
    """
    return read_document(source).document


def read_document(source: DocumentSource) -> DocumentReading:
    """Read a policy file, and keep where everything in it stands.

    Raises:
        DocumentError: as `parse_document`.
    """
    toml = read_toml(source.origin, source.text, _document_shape(), _NOT_YET_KEYS)
    untrusted, places = toml.untrusted, toml.places
    reader = _StatementReader(source=source, untrusted=untrusted, places=places)
    found = tuple(reader.statements(("limits",), untrusted.get("limits", {}), ""))
    scopes = tuple(reader.scope(number, scope) for number, scope in enumerate(untrusted.get("scope", ())))
    blocks = {(): found} | {("scope", number): statements for number, (_, statements) in enumerate(scopes)}
    problems = (
        *(item for block in blocks.values() for item in block if isinstance(item, Problem)),
        *(problem for path, block in blocks.items() for problem in _own_contradictions(path, _readable(block), places)),
        *_date_problems(untrusted, places),
        *_relation_problems(untrusted, places),
    )
    if problems:
        raise DocumentError(problems)
    document = PolicyDocument(
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
        unknown_key_ids=source.unknown_key_ids,
    )
    return DocumentReading(document=document, toml=toml)


@cache
def _document_shape() -> Shape:
    return compiled_shape(document_schema())


@dataclass(frozen=True, slots=True, kw_only=True)
class _StatementReader:
    """Reads what one file says of limits, in its `[limits]` and in each scope alike."""

    source: DocumentSource
    untrusted: Mapping[str, Any]
    places: TomlPlaces

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
            said = limits.get(limit.name)
            table = said if isinstance(said, dict) else {} if said is None else {"lock": said}
            for key, verb in _STATED_BY.items():
                if key in table:
                    place = (*path, limit.name, key) if table is said else (*path, limit.name)
                    yield self._statement(place, limit, verb, table[key], scope, table)

    def _statement(
        self, path: KeyPath, limit: Limit[Any], verb: Verb, native: object, scope: str, table: Mapping[str, Any]
    ) -> Stated | Problem:
        try:
            value = limit.kind.from_native(native)
        except ValueError as error:
            remedy = f"Expected {limit.kind.grammar}"
            return self.places.problem(path, Flaw.BAD_VALUE, reason=str(error), remedy=remedy)
        origin = Origin(
            layer=Layer.POLICY,
            place=self.places.line(path),
            reason=table.get("reason", ""),
            policy_id=self.untrusted["id"],
            scope=scope,
            serial=self.untrusted["serial"],
            key_ids=self.source.key_ids,
        )
        everywhere = self.untrusted.get("limits", {}).get(limit.name)
        by_file = everywhere.get("env_may_loosen", True) if isinstance(everywhere, dict) else True
        may_loosen = table.get("env_may_loosen", by_file)
        return Stated(limit=limit, verb=verb, value=value, origin=origin, environment_may_loosen=may_loosen)


def _named_values(untrusted: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Conditions by attribute; a word that stands alone is a list of one."""
    return {name: frozenset([said] if isinstance(said, str) else said) for name, said in untrusted.items()}


def _readable(found: Iterable[Stated | Problem]) -> tuple[Stated, ...]:
    return tuple(item for item in found if isinstance(item, Stated))


def _own_contradictions(path: KeyPath, statements: tuple[Stated, ...], places: TomlPlaces) -> Iterator[Problem]:
    """Defaults that their own block of statements, at this path, makes pointless."""
    said = {(statement.limit.name, statement.verb): statement for statement in statements}
    for default in (statement for statement in statements if statement.verb is Verb.DEFAULT):
        ceiling, kind = said.get((default.limit.name, Verb.CEILING)), default.limit.kind
        if ceiling is not None and not kind.within(default.value, ceiling.value):
            reason = f"its default {kind.text(default.value)} is looser than its ceiling {kind.text(ceiling.value)}"
            flaw, remedy = Flaw.DEFAULT_OUTSIDE_CEILING, "Lower it, or raise the ceiling"
        elif ceiling is None and not default.environment_may_loosen and not default.scoped:
            reason = "env_may_loosen = false stands beside a default alone, which is no bound"
            flaw, remedy = Flaw.IDLE_ENV_MAY_LOOSEN, "State a ceiling or a lock, or remove it"
        else:
            continue
        where = (*path, "limits", default.limit.name, Verb.DEFAULT.value)
        yield places.problem(where, flaw, reason=reason, remedy=remedy)


def _date_problems(untrusted: Mapping[str, Any], places: TomlPlaces) -> Iterator[Problem]:
    begins = untrusted.get("not_before", untrusted["issued_at"])
    for key in ("issued_at", "not_before"):
        if key in untrusted and untrusted[key] >= untrusted["expires_at"]:
            reason = f"it expires at {untrusted['expires_at'].isoformat()}, which is not after {key}"
            remedy = f"Choose a date after {begins}"
            yield places.problem(("expires_at",), Flaw.DATES_OUT_OF_ORDER, reason=reason, remedy=remedy)


def _relation_problems(untrusted: Mapping[str, Any], places: TomlPlaces) -> Iterator[Problem]:
    """What the file says of other files, and of its own past."""
    flaw = Flaw.CONTRADICTORY_RELATIONS
    for key in ("requires", "retires"):
        if untrusted["id"] in untrusted.get(key, ()):
            yield places.problem((key,), flaw, reason="it names the file's own id", remedy="Name other policies")
    both = sorted(set(untrusted.get("requires", ())) & set(untrusted.get("retires", ())))
    if both:
        reason = f"{', '.join(both)} is retired here and required too"
        yield places.problem(("retires",), flaw, reason=reason, remedy="Keep one of the two")
    if untrusted.get("rollback_of", 0) >= untrusted["serial"]:
        reason = f"serial {untrusted['rollback_of']} is no earlier one than this file's {untrusted['serial']}"
        remedy = "Raise the serial, and name an earlier one"
        yield places.problem(("rollback_of",), flaw, reason=reason, remedy=remedy)
