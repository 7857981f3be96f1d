"""Finds a request to which one of two sets of policy files permits a point of a limit that the other does not.

`rule_tables` says which scopes must hold and which must not for that to come about, `scope_search` whether there is
anybody for whom they do. A point, valves and two ways are one case; the cases together are all there are, and their
number grows with a low power of the number of scopes, whatever groups they name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import or_
from typing import Any

from policy.document import PolicyDocument
from policy.limits import Chooser, Limit
from policy.requester import Requester, ScopeConditions
from policy.rule_tables import Mark, PointFacts, PointValves, RuleTables, points_between
from policy.scope_search import ScopeSearch, scope_search
from policy.statements import Stated

_PERSON_VALVES: tuple[PointValves, ...] = (
    (True, None),
    (None, None),
    (False, None),
    *((person, admin) for admin in (True, False) for person in (None, True, False)),
)
_ADMIN_VALVES: tuple[PointValves, ...] = ((None, None), (None, True), (None, False))
"""All that valves can say of a point, by who has one for the limit; what tells people most comes first."""

SpokenFor = tuple[ScopeConditions | None, Stated]
"""A statement, and the scope it is in; `None` for one for everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRequest:
    """A request that one side permits more."""

    point: Any
    """What is permitted on one side alone: a value of the limit's kind."""
    valves: PointValves
    """What its valves say of the point."""
    requester: Requester
    """Who asks."""
    holding: int
    """The scopes that must hold for it, as bits."""
    avoided: int
    """The scopes that must not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """One side, as it looks from one point."""

    facts: PointFacts
    scopes: Mapping[Mark, tuple[int, ...]]
    """By what they say of the point, the scopes, each as its bit."""

    def bits(self, marks: Iterable[Mark]) -> int:
        """All scopes that say one of these."""
        return reduce(or_, (bit for mark in marks for bit in self.scopes[mark]), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitContrast:
    """What two sets say of one limit."""

    limit: Limit[Any]
    """Which limit."""
    sides: tuple[tuple[SpokenFor, ...], tuple[SpokenFor, ...]]
    """All statements of either set."""
    scopes: tuple[ScopeConditions, ...]
    """The scopes of both sets that speak of the limit; a scope's number is its place here."""
    points: tuple[Any, ...]
    """Enough points to tell all values apart, the strictest first."""
    search: ScopeSearch
    """Finds somebody for whom some of the scopes hold."""
    refuted: dict[int, list[int]]
    """By scopes that should hold: scopes that cannot all be avoided then. It grows with each search."""
    tables: RuleTables
    """What the rules make of a point."""

    def search_in(self, environment: tuple[Stated, ...], *, wider: int) -> "RequestSearch":
        """Make ready to search for requests to which one side, 0 or 1, permits more in this environment."""
        wide, narrow = (
            tuple(self._view(point, self.sides[side], environment) for point in self.points)
            for side in (wider, 1 - wider)
        )
        return RequestSearch(contrast=self, wide=wide, narrow=narrow)

    def _view(self, point: Any, side: Sequence[SpokenFor], environment: tuple[Stated, ...]) -> _View:  # noqa: ANN401
        numbers = {scope: number for number, scope in enumerate(self.scopes)}
        everybody: set[Mark] = set()
        scopes: dict[Mark, set[int]] = {}
        for who, stated in side:
            mark = self._mark(stated, point)
            if who is None:
                everybody.add(mark)
            else:
                scopes.setdefault(mark, set()).add(1 << numbers[who])
        facts = PointFacts(
            person_chooses=self.limit.chosen_by is Chooser.PERSON,
            built_in_permits=self.limit.kind.within(point, self.limit.built_in),
            environment=frozenset(self._mark(stated, point) for stated in environment),
            everybody=frozenset(everybody),
            scoped=frozenset(scopes),
        )
        return _View(facts=facts, scopes={mark: tuple(sorted(bits)) for mark, bits in scopes.items()})

    def _mark(self, stated: Stated, point: Any) -> Mark:  # noqa: ANN401 -- a value of the limit's kind
        return Mark(stated.verb, self.limit.kind.within(point, stated.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSearch:
    """One limit, one environment, and which side is to permit more."""

    contrast: LimitContrast
    """What is said of the limit."""
    wide: tuple[_View, ...]
    """By point, the side that is to permit it."""
    narrow: tuple[_View, ...]
    """By point, the other side."""

    def request(self, *, holding: int = 0, avoided: int = 0) -> FoundRequest | None:
        """A request that differs, rather of somebody who asks for much, or `None` where there is none.

        Args:
            holding: scopes that have to hold for the requester, as bits.
            avoided: scopes that have not to.

        Raises:
            PolicyError: the scopes are too entangled for the search to end in good time.
        """
        for valves in _PERSON_VALVES if self.contrast.limit.chosen_by is Chooser.PERSON else _ADMIN_VALVES:
            for number, point in enumerate(self.contrast.points):
                for held, kept_out in self._cases(number, valves):
                    requester = self._somebody(holding | held, avoided | kept_out)
                    if requester is not None:
                        return FoundRequest(
                            point=point, valves=valves, requester=requester, holding=held, avoided=kept_out
                        )
        return None

    def _cases(self, number: int, valves: PointValves) -> Iterator[tuple[int, int]]:
        """Scopes that hold and scopes that do not, such that one side permits a point and the other does not."""
        wide, narrow = self.wide[number], self.narrow[number]
        if wide == narrow:
            return
        limit, point, ways = self.contrast.limit, self.contrast.points[number], self.contrast.tables.ways
        permitting = ways(limit, point, wide.facts, valves)[True]
        forbidding = ways(limit, point, narrow.facts, valves)[False] if permitting else ()
        for one, other in product(permitting, forbidding):
            avoided = wide.bits(one.absent) | narrow.bits(other.absent)
            present = [wide.scopes[mark] for mark in one.present] + [narrow.scopes[mark] for mark in other.present]
            for chosen in product(*present):
                yield reduce(or_, chosen, 0), avoided

    def _somebody(self, holding: int, avoided: int) -> Requester | None:
        if holding & avoided:
            return None
        refuted = self.contrast.refuted.setdefault(holding, [])
        if any(not fewer & ~avoided for fewer in refuted):
            return None
        requester = self.contrast.search.somebody(holding, avoided)
        if requester is None:
            refuted.append(avoided)
        return requester


def limit_contrast(
    limit: Limit[Any],
    old: Sequence[PolicyDocument],
    new: Sequence[PolicyDocument],
    environment: tuple[Stated, ...],
    *,
    firm_only: bool,
    tables: RuleTables,
) -> LimitContrast | None:
    """What two sets say of a limit, or `None` where they say the same.

    Args:
        limit: which one.
        old: one set, side 0.
        new: the other, side 1.
        environment: what the environment may say of the limit.
        firm_only: whether only that counts which an environment lock may not loosen.
        tables: what the rules make of a point.
    """
    sides = (tuple(_statements(old, limit, firm_only=firm_only)), tuple(_statements(new, limit, firm_only=firm_only)))
    if _contents(sides[0]) == _contents(sides[1]):
        return None
    scopes = tuple(dict.fromkeys(who for side in sides for who, _ in side if who is not None))
    stated = (*environment, *(stated for side in sides for _, stated in side))
    return LimitContrast(
        limit=limit,
        sides=sides,
        scopes=scopes,
        points=points_between(limit.kind, [limit.built_in, *(each.value for each in stated)]),
        search=scope_search(scopes),
        refuted={},
        tables=tables,
    )


def _statements(documents: Iterable[PolicyDocument], limit: Limit[Any], *, firm_only: bool) -> Iterator[SpokenFor]:
    """What is said of a limit, and for whom."""
    for document in documents:
        blocks = [(None, document.statements), *((scope.conditions, scope.statements) for scope in document.scopes)]
        for who, statements in blocks:
            for stated in statements:
                if stated.limit is limit and not (firm_only and stated.environment_may_loosen):
                    yield who, stated


def _contents(side: Iterable[SpokenFor]) -> frozenset[tuple[ScopeConditions | None, Any, Any]]:
    """What a side says, wherever it stands."""
    return frozenset((who, stated.verb, stated.value) for who, stated in side)
