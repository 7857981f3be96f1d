"""Finds somebody for whom some scopes hold and others do not, or shows that there is nobody.

Role, user, model and surface have one value each: every value that a scope names, one that none names, and what cannot
be determined are tried, and of the outcomes only those that leave least to be done are kept. Groups may be any of
2^n sets and are never tried out. That a scope holds, or does not, says of groups only "not in this one" and "if in
this one, then in one of those": of such clauses the largest set of groups that meets them follows by striking out,
and where that set fails, every set does.

Source: dual-Horn satisfiability, Dowling and Gallier, 1984.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeVar

from policy.errors import PolicyError, Problem
from policy.requester import SURFACES, UNDETERMINED, Requester, ScopeConditions

V = TypeVar("V")

MOST_PLACES = 4_096
"""Ways to choose role, user, model and surface that are followed at once; past that, the search is refused."""
ANYBODY = "anybody"
"""Who asks, where no scope asks for anything."""
_SINGLE_VALUED = (("surface", "surface"), ("role", "roles"), ("model", "models"), ("user", "users"))
"""Attributes that have one value: of a requester, and by their key in a scope."""

_Choice = tuple[str | None, int]
"""A value, and the scopes that it keeps in play."""
_Chosen = tuple[tuple[str, str | None], ...]
"""Attributes with the values chosen for them."""
_Place = tuple[int, _Chosen]
"""The scopes that still have to be kept from holding, after what was chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeSearch:
    """Scopes by number, and all that has to be known of them; a set of scopes is an integer with their bits."""

    choices: tuple[tuple[str, tuple[_Choice, ...]], ...]
    """For each attribute with one value that a scope asks for: its values worth trying, the plainest first."""
    groups: tuple[str, ...]
    """Every group that a scope names; a set of groups is an integer with their bits."""
    asked: tuple[int | None, ...]
    """By scope, the groups of which one must be met; `None` where it asks for none."""
    excepted: tuple[int, ...]
    """By scope, the groups that take somebody out."""

    def somebody(self, holding: int, avoided: int, *, fewest_groups: bool = False) -> Requester | None:
        """A requester for whom these scopes hold and those do not, whatever other scopes do.

        Args:
            holding: the scopes that hold.
            avoided: the scopes that do not.
            fewest_groups: whether to leave out groups that make no difference, for people to read.

        Raises:
            PolicyError: the scopes ask for too many values at once for the search to end in good time.
        """
        if holding & avoided:
            return None
        failed: list[int] = []
        for left, chosen in self._places(holding, avoided):
            if any(not fewer & ~left for fewer in failed):
                continue
            requester = reduce(_with_choice, chosen, UNDETERMINED)
            members = self._members(holding, left)
            if members is not None:
                members = self._fewest(members, holding, left) if fewest_groups else members
                groups = frozenset(self.groups[number] for number in bits_of(members))
                return replace(requester, groups=groups) if self.groups else requester
            if not left:  # what cannot be determined meets every `match` and no `except`
                return requester
            failed.append(left)
        return None

    def _places(self, holding: int, avoided: int) -> Sequence[_Place]:
        """Choices of the attributes with one value that let these scopes hold; what leaves least to avoid is first."""
        places: dict[int, _Chosen] = {avoided: ()}
        for attribute, choices in self.choices:
            fitting = ((scopes & avoided, value) for value, scopes in choices if not holding & ~scopes)
            best = _least(fitting)
            further: dict[int, _Chosen] = {}
            for left, chosen in places.items():
                for scopes, value in best:
                    further.setdefault(left & scopes, (*chosen, (attribute, value)))
            places = further if len(further) <= MOST_PLACES else dict(_least(further.items()))
            if len(places) > MOST_PLACES:
                raise _too_many()
        return sorted(places.items(), key=lambda place: place[0].bit_count())

    def _members(self, holding: int, left: int) -> int | None:
        """The largest set of groups with which those scopes hold and these do not; `None` where there is none."""
        out = 0
        for number in bits_of(holding):
            out |= self.excepted[number]
        struck = -1
        while struck != out:
            struck = out
            for number in bits_of(left):
                asked = self.asked[number]
                if self.excepted[number] & ~out:
                    continue
                if asked is None:
                    return None
                out |= asked
        members = (1 << len(self.groups)) - 1 & ~out
        return members if self._holds_all(members, holding) else None

    def _fewest(self, members: int, holding: int, left: int) -> int:
        """Fewer of these groups that do as well: none of them can be left out."""
        for number in bits_of(members):
            fewer = members & ~(1 << number)
            if self._holds_all(fewer, holding) and self._holds_none(fewer, left):
                members = fewer
        return members

    def _holds_all(self, members: int, scopes: int) -> bool:
        return all(self._holds(members, number) for number in bits_of(scopes))

    def _holds_none(self, members: int, scopes: int) -> bool:
        return not any(self._holds(members, number) for number in bits_of(scopes))

    def _holds(self, members: int, number: int) -> bool:
        asked = self.asked[number]
        return (asked is None or bool(asked & members)) and not self.excepted[number] & members


def scope_search(scopes: Sequence[ScopeConditions]) -> ScopeSearch:
    """Make ready to search among these scopes, numbered in this order."""
    groups = tuple(sorted(named_values(scopes, "groups")))
    numbers = {group: number for number, group in enumerate(groups)}

    def group_bits(names: Iterable[str]) -> int:
        return sum(1 << numbers[name] for name in names)

    return ScopeSearch(
        choices=tuple(
            (attribute, _choices(attribute, key, scopes))
            for attribute, key in _SINGLE_VALUED
            if any(key in scope.asks_for for scope in scopes)
        ),
        groups=groups,
        asked=tuple(group_bits(scope.match["groups"]) if "groups" in scope.match else None for scope in scopes),
        excepted=tuple(group_bits(scope.excepted.get("groups", ())) for scope in scopes),
    )


def named_values(scopes: Iterable[ScopeConditions], key: str) -> frozenset[str]:
    """Every value that a scope names under this key, in a match or an exception."""
    conditions = (side for scope in scopes for side in (scope.match, scope.excepted))
    return frozenset(value for side in conditions for value in side.get(key, ()))


def requester_words(requester: Requester, scopes: Sequence[ScopeConditions]) -> str:
    """Who that is, as far as these scopes ask for it."""
    asked = {key for scope in scopes for key in scope.asks_for}
    words = [
        _attribute_words(attribute, getattr(requester, attribute), named_values(scopes, key))
        for attribute, key in _SINGLE_VALUED
        if key in asked
    ]
    if "groups" in asked:
        words.insert(0, _group_words(requester.groups))
    return ", ".join(words) or ANYBODY


def _attribute_words(attribute: str, value: str | None, named: frozenset[str]) -> str:
    if value is None:
        return f"unknown {attribute}"
    if value not in named and attribute != "surface":
        return f"another {attribute}"
    return f"{attribute} {_plain_name(value)}"


def _group_words(groups: frozenset[str] | None) -> str:
    if not groups:
        return "unknown groups" if groups is None else "no group"
    most = 6
    shown = ", ".join(map(_plain_name, sorted(groups)[:most]))
    more = f" and {len(groups) - most} more" if len(groups) > most else ""
    return f"{'groups' if len(groups) > 1 else 'group'} {shown}{more}"


def _plain_name(name: str) -> str:
    """A name as it is, or quoted where it could be taken for something else."""
    return name if re.fullmatch(r"[\w@.:+*/-]+", name) else repr(name)


def bits_of(number: int) -> Iterator[int]:
    """The positions of an integer's set bits, the lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _choices(attribute: str, key: str, scopes: Sequence[ScopeConditions]) -> tuple[_Choice, ...]:
    """One value for each set of scopes that some value keeps in play; one that nobody names comes first."""
    named = named_values(scopes, key)
    values = [*SURFACES] if attribute == "surface" else [_unnamed(named), *sorted(named)]
    found: dict[int, str | None] = {}
    for value in (*values, None):
        of_value = _with_choice(UNDETERMINED, (attribute, value))  # what cannot be determined keeps every scope in play
        in_play = sum(1 << number for number, scope in enumerate(scopes) if scope.hold_for(of_value))
        found.setdefault(in_play, value)
    return tuple((value, in_play) for in_play, value in found.items())


def _with_choice(requester: Requester, choice: tuple[str, str | None]) -> Requester:
    attribute, value = choice
    match attribute:
        case "surface":
            return replace(requester, surface=value)
        case "role":
            return replace(requester, role=value)
        case "model":
            return replace(requester, model=value)
        case "user":
            return replace(requester, user=value)
    raise ValueError(f"{attribute} does not have one value")


def _unnamed(named: frozenset[str]) -> str:
    """A value that no scope names."""
    value = "other"
    while value in named:
        value += "-other"
    return value


def _least(found: Iterable[tuple[int, V]]) -> list[tuple[int, V]]:
    """Only those sets of scopes that hold no other one of these, and one of each."""
    kept: list[tuple[int, V]] = []
    for scopes, value in sorted(found, key=lambda each: each[0].bit_count()):
        if not any(not other & ~scopes for other, _ in kept):
            kept.append((scopes, value))
    return kept


def _too_many() -> PolicyError:
    reason = f"they ask for more than {MOST_PLACES} combinations of role, user, model and surface at once"
    remedy = "Compare fewer files at a time, or let fewer scopes except users and models"
    return PolicyError((Problem(key="scope", origin="comparison", reason=reason, remedy=remedy),))
