"""Who asks, and the scopes of policy files that are held against it.

A scope only ever tightens. So an attribute that cannot be determined meets every `match` and no `except`: whoever
hides what they are gets the strictest of what they might be.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

C = TypeVar("C", str, str | None)

TOOL_SURFACE = "tool"
"""The language model runs code through the tool."""
FUNCTION_SURFACE = "function"
"""A person presses the button under a message."""
SURFACES = (TOOL_SURFACE, FUNCTION_SURFACE)


def _composed(name: C) -> C:
    """A name in the one spelling (NFC) of those that look the same, as `é` typed on two systems."""
    return unicodedata.normalize("NFC", name) if name else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks for a run, and through what; `None` is what cannot be determined."""

    role: str | None = None
    """Their role in Open WebUI: `admin`, `user`, …"""
    groups: frozenset[str] | None = None
    """Ids and names of the groups they are in; empty where they are in none."""
    user: str | None = None
    """Their id in Open WebUI."""
    model: str | None = None
    """The id of the model that runs the code, as the server knows it."""
    surface: str | None = None
    """`tool` or `function`."""

    def __post_init__(self) -> None:
        """Refuse a surface that no scope can name, and spell names as scopes do."""
        if self.surface not in (None, *SURFACES):
            raise ValueError(f"{self.surface!r} is not one of {', '.join(SURFACES)}")
        for name in ("role", "user", "model"):
            object.__setattr__(self, name, _composed(getattr(self, name)))
        if self.groups is not None:
            object.__setattr__(self, "groups", frozenset(map(_composed, self.groups)))

    def has_any(self, attribute: str, values: frozenset[str]) -> bool | None:
        """Whether an attribute, by its key in a scope, is one of these values; `None` where that cannot be told."""
        match attribute:
            case "groups":
                return None if self.groups is None else not self.groups.isdisjoint(values)
            case "roles":
                own = self.role
            case "users":
                own = self.user
            case "models":
                own = self.model
            case "surface":
                own = self.surface
            case _:
                raise ValueError(f"no scope has the key {attribute}")
        return own in values if own else None  # an empty text names nobody

    def lacks(self, attribute: str) -> bool:
        """Whether an attribute cannot be determined."""
        return self.has_any(attribute, frozenset()) is None

    def as_json(self) -> dict[str, str | list[str] | None]:
        """Who asks, by the keys of a scope, each singular; `None` is what cannot be determined."""
        groups = None if self.groups is None else sorted(self.groups)
        return {
            "role": self.role,
            "groups": groups,
            "user": self.user,
            "model": self.model,
            "surface": self.surface,
        }


UNDETERMINED = Requester()
"""Somebody of whom nothing can be determined: every `match` is met, and no `except`."""


SCOPE_ATTRIBUTES = ("roles", "groups", "users", "models", "surface")
"""What a scope can ask for, by its keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeConditions:
    """Whom a scope is for."""

    match: Mapping[str, frozenset[str]]
    """By attribute, the values of which one must be met; every attribute named must be. Read-only."""
    excepted: Mapping[str, frozenset[str]]
    """By attribute, the values that take somebody out; one is enough. Read-only."""

    def __post_init__(self) -> None:
        """Keep what was given from changing, and give each name one spelling."""
        for side in ("match", "excepted"):
            named = {name: frozenset(map(_composed, values)) for name, values in getattr(self, side).items()}
            object.__setattr__(self, side, MappingProxyType(named))

    def __hash__(self) -> int:
        return hash((frozenset(self.match.items()), frozenset(self.excepted.items())))

    @property
    def asks_for(self) -> frozenset[str]:
        """The attributes that it has to be told."""
        return frozenset((*self.match, *self.excepted))

    def hold_for(self, requester: Requester) -> bool:
        """Whether the scope is for this requester."""
        met = all(requester.has_any(attribute, values) is not False for attribute, values in self.match.items())
        return met and not any(requester.has_any(name, values) for name, values in self.excepted.items())

    def __str__(self) -> str:
        """Whom it is for, as it completes a file's line."""
        matched = [_condition_words(name, values) for name, values in self.match.items()]
        excepted = [_condition_words(name, values) for name, values in self.excepted.items()]
        words = f"for {' and '.join(matched)}" if matched else "for everybody"
        return f"{words} except {' and '.join(excepted)}" if excepted else words


def _condition_words(attribute: str, values: frozenset[str]) -> str:
    """One condition as people who meet it may read it, which names no other person."""
    if attribute == "users":
        return "1 user" if len(values) == 1 else f"{len(values)} users"
    return f"{attribute} {_listed(values)}"


def _listed(values: frozenset[str]) -> str:
    most = 4
    shown = ", ".join(map(_shown_name, sorted(values)[:most]))
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"


def _shown_name(name: str) -> str:
    """A name as it is, or quoted where it could be taken for something else; of bounded length."""
    longest = 40
    cut = name if len(name) <= longest else f"{name[:longest]}…"
    return cut if re.fullmatch(r"[\w@.:+*/…-]+", cut) else repr(cut)
