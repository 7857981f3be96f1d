"""Carries the older plugin's locks over: its `CODE_EVAL_VALVE_OVERRIDE_*` variables as locks of our limits.

There, an override set a valve exactly, whatever bounds the valve declared: a lock, here. What has no counterpart,
or no value that we could take, is a problem with its remedy, never dropped and never bent until it fits.
Source: EtiennePerot/safe-code-execution 0.8, `open-webui/{tools,functions}/run_code.py` and `docs/setup.md`.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policy.errors import Problem
from policy.limits import (
    AUTO_INSTALL,
    DEBUG,
    LIMITS,
    MAX_FILE_MEGABYTES,
    MAX_RAM_MEGABYTES,
    MAX_RUNTIME_SECONDS,
    NETWORK_PRIVATE_ALLOWED,
    NETWORKING_ALLOWED,
    REQUIRE_RESOURCE_LIMITING,
    Limit,
)
from policy.values import UNLIMITED, Native, Switch, spelt

LEGACY_PREFIX = "CODE_EVAL_VALVE_OVERRIDE_"
"""How the older plugin's variables begin; a valve's name follows."""
_LEGACY_STEM = "CODE_EVAL"
"""How every misspelling begins that is worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyValve:
    """A valve of the older plugin, and what has become of it here."""

    name: str
    """Its name there, behind the prefix."""
    limit: Limit[Any] | None = None
    """Its counterpart here; `None` where there is none."""
    zero_was_unlimited: bool = False
    """Whether 0 meant no limit there."""
    reason: str = ""
    """Why it has no counterpart."""
    remedy: str = ""
    """What to do in place of it."""
    needless_value: str | None = None
    """The value, in lower case, that asks for what holds here anyway; `None` where none does."""

    @property
    def variable(self) -> str:
        """The environment variable that set it."""
        return f"{LEGACY_PREFIX}{self.name}"


_OWN_FILES = f"Remove it; {MAX_FILE_MEGABYTES.variable} limits what one run may hand out"

LEGACY_VALVES: tuple[LegacyValve, ...] = (
    LegacyValve(name="NETWORKING_ALLOWED", limit=NETWORKING_ALLOWED),
    LegacyValve(name="MAX_RUNTIME_SECONDS", limit=MAX_RUNTIME_SECONDS),
    LegacyValve(name="MAX_RAM_MEGABYTES", limit=MAX_RAM_MEGABYTES, zero_was_unlimited=True),
    LegacyValve(name="REQUIRE_RESOURCE_LIMITING", limit=REQUIRE_RESOURCE_LIMITING),
    LegacyValve(name="AUTO_INSTALL", limit=AUTO_INSTALL),
    LegacyValve(name="DEBUG", limit=DEBUG),
    LegacyValve(
        name="CHECK_FOR_UPDATES",
        reason="nothing here looks for updates by itself",
        remedy="Remove it, and watch this project's releases",
        needless_value="false",
    ),
    LegacyValve(
        name="MAX_FILES_PER_EXECUTION",
        reason="files are limited by their size here, not by their number",
        remedy=_OWN_FILES,
    ),
    LegacyValve(
        name="MAX_FILES_PER_USER",
        reason="no files are kept here: they go to Open WebUI's own files, each to its owner",
        remedy=_OWN_FILES,
    ),
    LegacyValve(
        name="MAX_MEGABYTES_PER_USER",
        reason="no files are kept here: they go to Open WebUI's own files, each to its owner",
        remedy=_OWN_FILES,
    ),
    LegacyValve(
        name="WEB_ACCESSIBLE_DIRECTORY_PATH",
        reason="nothing is written here to a folder that the web server shows to everybody",
        remedy="Remove it, and clear that folder out once nobody needs what is in it",
    ),
    LegacyValve(
        name="WEB_ACCESSIBLE_DIRECTORY_URL",
        reason="nothing is written here to a folder that the web server shows to everybody",
        remedy="Remove it",
    ),
)
"""Every valve that the older plugin's tool or function has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedLock:
    """A lock that was carried over."""

    limit: Limit[Any]
    """What it locks."""
    value: Any
    """A value of the limit's kind."""
    source: str
    """The older plugin's variable."""

    @property
    def text(self) -> str:
        """The value as a variable holds it."""
        return self.limit.kind.text(self.value)

    @property
    def native(self) -> Native:
        """The value as TOML holds it."""
        return self.limit.kind.native(self.value)

    @property
    def comment(self) -> str:
        """Where it comes from, for whoever reads the policy file."""
        return f"was {self.source}{'=0: choose a number' if self.value is UNLIMITED else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyImport:
    """What came of the older plugin's variables."""

    locks: tuple[CarriedLock, ...]
    """What was carried over, in the table's order."""
    left: tuple[Problem, ...]
    """What could not be, each with its remedy."""
    warnings: tuple[str, ...]
    """What to know of what was carried over, one sentence each."""

    @property
    def variables(self) -> Mapping[str, str]:
        """The locks as variables."""
        return {lock.limit.variable: lock.text for lock in self.locks}


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacySource:
    """An environment that holds the older plugin's variables among others."""

    untrusted: Mapping[str, str]
    """Every variable, in the order in which people look through them."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where a variable stands, `FILE:LINE`; one that is not in it stands in the environment."""
    doubts: Mapping[str, Problem] = field(default_factory=dict)
    """Why nobody can tell what a variable's value is."""

    def place(self, name: str) -> str:
        """Where a variable stands."""
        return self.places.get(name, "environment")


def legacy_names(names: Iterable[str]) -> tuple[str, ...]:
    """The older plugin's variables among these, and those that were meant to be."""
    return tuple(name for name in names if name.upper().startswith(_LEGACY_STEM))


def carry_over(source: LegacySource) -> LegacyImport:
    """Turn the older plugin's variables into locks, as far as they can be."""
    locks: list[CarriedLock] = []
    left: list[Problem] = []
    warnings: list[str] = []
    valves = {valve.variable: valve for valve in LEGACY_VALVES}
    for name in legacy_names(source.untrusted):
        found = _carried(valves.get(name), name, source)
        match found:
            case CarriedLock():
                locks.append(found)
            case Problem():
                left.append(found)
            case _:
                warnings.append(found)
    locks.sort(key=lambda lock: LIMITS.index(lock.limit))
    warnings.extend(warning for lock in locks for warning in _lock_warnings(lock))
    return LegacyImport(locks=tuple(locks), left=tuple(left), warnings=tuple(warnings))


def _carried(valve: LegacyValve | None, name: str, source: LegacySource) -> CarriedLock | Problem | str:
    """A lock; or why none can be had; or a sentence where none is needed."""
    text, place = source.untrusted[name], source.place(name)
    if valve is None:
        reason = "the older plugin has no such valve, and ignored it"
        return Problem(key=name, origin=place, reason=reason, remedy=_meant(name))
    if valve.limit is not None:
        return _lock(valve, valve.limit, source)
    if text.lower() == valve.needless_value:
        return f"{name}={text} needs no counterpart: {valve.reason}."
    return Problem(key=name, origin=place, reason=valve.reason, remedy=valve.remedy)


def _lock(valve: LegacyValve, limit: Limit[Any], source: LegacySource) -> CarriedLock | Problem:
    name, place = valve.variable, source.place(valve.variable)
    if name in source.doubts:
        return source.doubts[name]
    try:
        value = _legacy_value(valve, limit, source.untrusted[name])
    except ValueError as error:
        # Who had a number that does not fit is never pointed to the loosest value there is.
        grammar = limit.kind.grammar.removesuffix(f" or {UNLIMITED.value}")
        return Problem(key=name, origin=place, reason=str(error), remedy=f"Set {limit.variable} to {grammar}")
    rival = _rival(limit, value, source.untrusted)
    if rival:
        return Problem(key=name, origin=place, reason=f"{rival} says something else", remedy="Keep one of them")
    return CarriedLock(limit=limit, value=value, source=name)


def _legacy_value(valve: LegacyValve, limit: Limit[Any], text: str) -> Any:  # noqa: ANN401 -- a value of any limit's kind
    """Read a value as the older plugin did, and hold it to our range.

    Raises:
        ValueError: the older plugin could not read it, or it is outside our range.
    """
    if isinstance(limit.kind, Switch):
        try:
            return limit.kind.parse(text)
        except ValueError as error:
            raise ValueError(f"{error}; the older plugin did not take it either") from error
    try:
        number = int(text)  # with sign, underscores and space around, as there
    except ValueError as error:
        raise ValueError(f"{spelt(text)} is not a whole number; the older plugin did not take it either") from error
    if number == 0 and valve.zero_was_unlimited:
        return UNLIMITED
    return limit.kind.from_native(number)


def _rival(limit: Limit[Any], value: object, untrusted: Mapping[str, str]) -> str:
    """A variable of ours that is set beside, and does not agree; empty where there is none."""
    for name in (f"{limit.variable}__CEILING", f"{limit.variable}__DEFAULT"):
        if name in untrusted:
            return name
    same = (None, limit.kind.text(value))
    return "" if untrusted.get(limit.variable) in same else limit.variable


def _lock_warnings(lock: CarriedLock) -> Iterator[str]:
    limit, said = lock.limit, f"{lock.limit.variable}={lock.text}"
    if lock.value is UNLIMITED:
        yield f"{said} is what {lock.source}=0 meant: one run can take all that the server has. Choose a number."
    elif not limit.kind.within(lock.value, limit.built_in):
        yield f"{said} is looser than the built-in {limit.kind.text(limit.built_in)}."
    if limit is NETWORKING_ALLOWED and lock.value:
        private = NETWORK_PRIVATE_ALLOWED.variable
        yield (
            f"{said} reaches public addresses only; with the older plugin, code was on the server's own network, "
            f"private addresses included. That takes {private}=true as well."
        )


def _meant(name: str) -> str:
    alike = difflib.get_close_matches(name.upper(), [valve.variable for valve in LEGACY_VALVES], n=1, cutoff=0.8)
    return f"Was {alike[0]} meant? Correct it, or remove it" if alike else "Remove it"
