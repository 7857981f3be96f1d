"""What rules look at: policy files, sets of them, changes, variables and comments; and what a run was told."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from policy.destinations import Destination
from policy.document import DocumentReading, PolicyDocument
from policy.errors import Problem
from policy.limits import LIMITS, Limit
from policy.lint.findings import Location
from policy.lint.spans import key_span
from policy.positions import KeyPath, Positions, locate, path_text
from policy.requester import ScopeConditions
from policy.settings import GVISOR_URL, POLICY_KEYS, SETTINGS
from policy.signature_block import PolicySignature
from policy.statements import Stated, Verb

if TYPE_CHECKING:  # pydantic-settings and cryptography take longer to load than most files to lint
    from policy.environment import EnvironmentLayer
    from policy.keys import PublicKey


class Need(Enum):
    """What a rule must be given before it can look, by the options that give it."""

    ENVIRONMENT = "--env or --env-file"
    KEYS = "--key"
    SIGNATURES = "--key or --profile production"
    BASE = "--base"
    HOST = "--host or --host-facts"
    PRODUCTION = "--profile production"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedKey:
    """One public key in a file of `--key`."""

    location: Location
    """The first line of its PEM block."""
    raw: bytes
    """Its 32 bytes."""
    key_id: str
    """Its id: `sha256:` and the SHA-256 of its bytes in hexadecimal."""
    weak: str
    """Why nobody should trust it; empty for a good one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a run was told, the same for every rule."""

    now: datetime
    """The moment, in UTC."""
    production: bool = False
    """Whether `--profile production` was asked for."""
    environment: "EnvironmentSubject | None" = None
    """The variables to look at, with `--env` or `--env-file`."""
    keys: "tuple[PublicKey, ...] | None" = None
    """The keys of `--key` that can be trusted, each once; `None` where none were given."""
    named_keys: tuple[NamedKey, ...] = ()
    """All keys of `--key`, as they stand in the files."""
    threshold: int = 1
    """How many of them must have signed."""
    unenforceable: Mapping[str, str] | None = None
    """With `--host`: by limit, why the host cannot enforce it."""
    compares: bool = False
    """Whether `--base` was given."""

    def meets(self, need: Need | None) -> bool:
        """Whether a rule with this need can look."""
        match need:
            case None:
                met = True
            case Need.ENVIRONMENT:
                met = self.environment is not None
            case Need.KEYS:
                met = self.keys is not None
            case Need.SIGNATURES:
                met = self.keys is not None or self.production
            case Need.BASE:
                met = self.compares
            case Need.HOST:
                met = self.unenforceable is not None
            case Need.PRODUCTION:
                met = self.production
        return met


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedStatement:
    """One statement of a policy file, and its place."""

    path: KeyPath
    """The key that holds its value."""
    stated: Stated
    """What it says."""
    scope: int | None
    """The scope it stands in, counted from 0; `None` for everybody."""

    @property
    def limit(self) -> Limit[Any]:
        """Of which limit."""
        return self.stated.limit

    @property
    def verb(self) -> Verb:
        """What is said of it."""
        return self.stated.verb

    @property
    def value(self) -> Any:  # noqa: ANN401 -- of the limit's kind
        """The value."""
        return self.stated.value

    @property
    def table(self) -> KeyPath:
        """The key of the limit itself, which holds the value or the table with it."""
        return self.path[:-1] if self.path[-1] == self.verb.value else self.path


class Place(NamedTuple):  # a tuple, since thousands of them go from one process to another
    """A key of some policy file, and where it stands."""

    file: str
    """As it was named."""
    path: KeyPath
    """The key."""
    offset: int
    """Characters of the text before it."""
    line_starts: tuple[int, ...]
    """For each line of the text, the characters before it."""

    @property
    def location(self) -> Location:
        """The same for a finding."""
        length = len(str(self.path[-1])) if self.path else 0
        line = bisect_right(self.line_starts, self.offset)
        column = self.offset - self.line_starts[line - 1] + 1
        return Location(
            file=self.file,
            line=line,
            column=column,
            end_column=column + length,
            key=path_text(self.path),
        )


@dataclass(frozen=True, kw_only=True)  # without slots, since what rules ask for often is kept
class PolicyFile:
    """One file that was named as a policy."""

    name: str
    """As it was named; `-` for the standard input."""
    path: Path | None
    """Where it was read; `None` for the standard input."""
    untrusted: bytes
    """All of it."""
    text: str
    """Its text before the signature block; empty where that cannot be read."""
    flaws: tuple[Problem, ...] = ()
    """What its readers refuse; empty for a valid policy."""
    reading: DocumentReading | None = None
    """What it says and where; `None` where it is no valid policy."""
    signatures: tuple[PolicySignature, ...] = ()
    """The lines of its signature block; not verified."""

    @property
    def document(self) -> PolicyDocument:
        """What it says; only for a valid policy."""
        if self.reading is None:
            raise ValueError(f"{self.name} is no valid policy")
        return self.reading.document

    @property
    def untrusted_table(self) -> Mapping[str, Any]:
        """Its TOML as tomllib gives it; only for a valid policy."""
        if self.reading is None:
            raise ValueError(f"{self.name} is no valid policy")
        return self.reading.toml.untrusted

    def untrusted_at(self, path: KeyPath) -> Any:  # noqa: ANN401 -- whatever TOML can hold
        """What its TOML holds at a key; only for a valid policy that has it."""
        value: Any = self.untrusted_table
        for segment in path:
            value = value[segment]
        return value

    @property
    def positions(self) -> Positions:
        """Where its keys stand; only for a valid policy."""
        if self.reading is None:
            raise ValueError(f"{self.name} is no valid policy")
        return self.reading.toml.places.positions

    @property
    def first_signature_line(self) -> int:
        """The line of its first signature; only for a signed policy."""
        return self.text.count("\n") + 2

    @cached_property
    def located(self) -> Positions | None:
        """Where its keys stand, be it a valid policy or not; `None` where its text leaves nothing to go by."""
        if self.reading is not None:
            return self.positions
        try:
            return locate(self.text)
        except ValueError:
            return None

    @cached_property
    def everywhere(self) -> tuple[PlacedStatement, ...]:
        """What it says of limits for everybody, in the table's order."""
        return tuple(self._placed(("limits",), self.document.statements, None))

    @cached_property
    def scoped(self) -> tuple[PlacedStatement, ...]:
        """What its scopes say of limits, scope after scope."""
        return tuple(
            placed
            for number, scope in enumerate(self.document.scopes)
            for placed in self._placed(("scope", number, "limits"), scope.statements, number)
        )

    @property
    def statements(self) -> tuple[PlacedStatement, ...]:
        """All of them."""
        return self.everywhere + self.scoped

    @cached_property
    def bounds(self) -> Mapping[str, PlacedStatement]:
        """By limit, the lock or ceiling that it states for everybody."""
        return {placed.limit.name: placed for placed in self.everywhere if placed.verb is not Verb.DEFAULT}

    def location(self, path: KeyPath) -> Location:
        """Where a key stands, or the nearest table that would hold it."""
        position = self.positions.nearest(path)
        span = key_span(self.text, self.positions, path)
        length = span.end - span.start if span else 0
        return Location(
            file=self.name,
            line=position.line,
            column=position.column,
            end_column=position.column + length,
            key=path_text(path),
        )

    def place(self, path: KeyPath) -> Place:
        """Where a key stands, for those who may never ask for more."""
        return Place(self.name, path, self.positions.offset(path) or 0, self.positions.line_starts)

    def _placed(self, base: KeyPath, statements: tuple[Stated, ...], scope: int | None) -> Iterator[PlacedStatement]:
        table: Any = self.untrusted_table
        for segment in base if statements else ():
            table = table[segment]
        for stated in statements:
            path: KeyPath = (*base, stated.limit.name)
            if isinstance(table[stated.limit.name], dict):
                path = (*path, stated.verb.value)
            yield PlacedStatement(path=path, stated=stated, scope=scope)


class FactStatement(NamedTuple):
    """One statement for everybody, as a set is judged by it."""

    limit: str
    """The limit's name."""
    verb: Verb
    """What is said of it."""
    value: Any
    """A value of the limit's kind."""
    environment_may_loosen: bool
    """Whether an environment lock may be looser."""
    place: Place
    """Where it stands."""


FactRow = tuple[str, Verb, Any, bool, KeyPath, int]
"""A statement for everybody as one process hands it to another: all but the file of a `FactStatement`."""


class FactList(NamedTuple):
    """One list of destinations, for everybody or in a scope, as a set is judged by it."""

    verb: Verb
    """What is said of network_allowlist."""
    value: frozenset[Destination]
    """What the list permits."""
    environment_may_loosen: bool
    """Whether an environment lock may be looser."""
    scoped: bool
    """Whether it stands in a scope."""
    path: KeyPath
    """The key that holds it."""
    offset: int
    """Characters of the text before that."""
    untrusted_items: tuple[str, ...]
    """Its items as they are written."""
    spans: tuple[tuple[int, int], ...]
    """For each item, the characters before it, and its length."""


@dataclass(frozen=True, kw_only=True)  # without slots, since what rules ask for often is kept
class FileFacts:
    """What is needed of a valid policy file beside the others of its set."""

    name: str
    """The file, as it was named."""
    folder: str
    """Where it lies: files of one folder are one set."""
    policy_id: str
    """Its id."""
    id_place: Place
    """Where that stands."""
    serial: int
    """Its serial."""
    signed: bool
    """Whether it has a signature block."""
    audience: tuple[str, ...]
    """Instances it is for; `*` is any."""
    audience_place: Place
    """Where that stands."""
    requires: tuple[tuple[str, Place], ...]
    """Ids that must be present, and where it says so."""
    retires: tuple[tuple[str, Place], ...]
    """Ids that must be gone, and where it says so."""
    rows: tuple[FactRow, ...]
    """What it says of limits for everybody."""
    lists: tuple[FactList, ...]
    """What it says of network_allowlist, its scopes included."""
    line_starts: tuple[int, ...]
    """For each line of its text, the characters before it."""

    @cached_property
    def statements(self) -> tuple[FactStatement, ...]:
        """What it says of limits for everybody, each with its place."""
        name, line_starts = self.name, self.line_starts
        return tuple(
            FactStatement(limit, verb, value, may_loosen, Place(name, path, offset, line_starts))
            for limit, verb, value, may_loosen, path, offset in self.rows
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """The valid policy files of one folder."""

    folder: str
    """The folder, as it was named."""
    files: tuple[FileFacts, ...]
    """In the order of their names; at least one."""
    complete: bool = True
    """Whether these are all policy files of the folder: none was left out, and none is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file before and after."""

    old: PolicyFile | None
    """As the base has it; `None` for a new file, and for one that was no valid policy there."""
    new: PolicyFile | None
    """As it is now; `None` for one that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetChange:
    """The valid policy files of one folder, before and after."""

    folder: str
    """The folder, as it was named."""
    base: str
    """What it is held against: a revision, or a file or folder."""
    changes: tuple[FileChange, ...]
    """Each file whose text differs; at least one."""
    old: tuple[PolicyFile, ...]
    """All that is in the base."""
    new: tuple[PolicyFile, ...]
    """All that is there now; none where the folder is gone."""
    comparable: bool = True
    """Whether every file of either side is a valid policy."""
    doubtful: tuple[str, ...] = ()
    """Files of the base, or not linted themselves, that are no valid policy: of those, nothing else tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable that was set."""

    name: str
    """Its name."""
    untrusted: str
    """Its value."""
    location: Location
    """Where it is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSubject:
    """The variables of a process or a file."""

    name: str
    """The file as it was named, or `environment`."""
    variables: Mapping[str, Variable]
    """By name."""
    text: str
    """The file's text; empty for the process."""
    problems: tuple[Problem, ...]
    """What a server with these variables would refuse."""
    layer: "EnvironmentLayer | None"
    """What they say; `None` where anything is wrong with them."""

    @property
    def shown_text(self) -> str:
        """The file's text as it may stand in a log: variables of others, and what was misplaced, may be secrets."""
        return "\n".join(map(_shown_line, self.text.split("\n")))

    def location(self, variable: str) -> Location:
        """Where a variable is set, or the file as a whole."""
        known = self.variables.get(variable)
        return known.location if known else Location(file=self.name, key=variable)

    def problem_location(self, problem: Problem) -> Location:
        """Where a problem stands: what cannot be read as a file of variables has lines all the same."""
        if problem.position is None:
            return self.location(problem.key)
        name = problem.key if problem.key.isidentifier() else ""
        return Location(file=self.name, line=problem.position.line, end_column=1 + len(name), key=name)

    def stated(self, limit: Limit[Any], verb: Verb) -> Stated | None:
        """What they say of one limit."""
        statements = self.layer.statements if self.layer else ()
        # By name: a process that judges files gets its variables as a copy, limits included.
        return next((said for said in statements if said.limit.name == limit.name and said.verb is verb), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """One comment `policy: ignore[…]`, and what came of it."""

    location: Location
    """Where it stands."""
    rules: tuple[str, ...]
    """The ids or names that it gives."""
    reason: str
    """Why; empty where it gives none."""
    until: date | None
    """The last day on which it holds; `None` where it gives none that can be read."""
    malformed: str
    """What is wrong with it; empty where nothing is."""
    lines: tuple[int, ...]
    """The lines that it is for."""
    unknown: tuple[str, ...] = ()
    """Of its rules, those that do not exist."""
    used: tuple[str, ...] = ()
    """Of its rules, those that it takes findings of out, or would but for its date or the profile."""
    refused: tuple[str, ...] = ()
    """Of its rules, those that cannot be taken out here."""
    settled: bool = True
    """Whether its file and all of its set are valid: else rules could not look that were given what they need."""
    fix_start: int = 0
    """Characters before the comment, with the blanks before it."""
    fix_end: int = 0
    """Characters before what follows it; its line feed goes with it where it stands alone."""

    def holds_on(self, day: date) -> bool:
        """Whether it takes findings out on that day."""
        return not self.malformed and self.until is not None and day <= self.until


def _shown_line(line: str) -> str:
    """A line of a file of variables, without a value that nobody should see."""
    name, equals, value = line.partition("=")
    if not line.strip() or line.lstrip().startswith("#") or name in _harmless_variables():
        return line
    return f"{name}={'…' if value else ''}" if equals and name.isidentifier() else "…"


@cache
def _harmless_variables() -> frozenset[str]:
    """Our variables whose values hold no secret, whatever somebody puts there by mistake."""
    limits = {f"{limit.variable}{suffix}" for limit in LIMITS for suffix in ("", "__CEILING", "__DEFAULT")}
    settings = {setting.variable for setting in SETTINGS if setting not in (POLICY_KEYS, GVISOR_URL)}
    return frozenset(limits | settings)


def scope_conditions(file: PolicyFile, number: int) -> ScopeConditions:
    """Whom one scope of a valid policy is for."""
    return file.document.scopes[number].conditions
