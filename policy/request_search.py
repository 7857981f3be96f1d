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
from policy.rule_tables import Mark, PointFacts, PointValves, RuleTables, Way, points_between
from policy.scope_search import ScopeSearch, bits_of, scope_search
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
        return RequestSearch(self, wide, narrow)

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


class RequestSearch:
    """One limit, one environment, and which side is to permit more; made by `LimitContrast.search_in`."""

    def __init__(self, contrast: LimitContrast, wide: Sequence[_View], narrow: Sequence[_View]) -> None:
        self._contrast = contrast
        self._views = tuple(zip(contrast.points, wide, narrow, strict=True))

    def request(self) -> FoundRequest | None:
        """A request that differs, rather of somebody who asks for much, or `None` where there is none.

        Raises:
            PolicyError: the scopes are too entangled for the search to end in good time.
        """
        for point, valves, holding, avoided in self._cases():
            requester = self._somebody(holding, avoided)
            if requester is not None:
                return FoundRequest(point=point, valves=valves, requester=requester, holding=holding, avoided=avoided)
        return None

    def concerned_scopes(self) -> int:
        """The scopes that hold for any request that differs, as bits.

        Raises:
            PolicyError: as `request`.
        """
        everything = (1 << len(self._contrast.scopes)) - 1
        unmet = everything
        tried: set[tuple[int, int]] = set()
        for _, _, holding, avoided in self._cases():
            if (holding, avoided) in tried or self._is_refuted(holding, avoided):
                continue
            for number in bits_of(unmet & ~avoided):
                requester = self._somebody(holding | 1 << number, avoided) if unmet >> number & 1 else None
                if requester is not None:
                    unmet &= ~self._holding_for(requester)
                elif (holding, avoided) not in tried:
                    if self._somebody(holding, avoided) is None:
                        break
                    tried.add((holding, avoided))
            if not unmet:
                break
        return everything & ~unmet

    def goes_beyond_scopes(self) -> bool:
        """Whether there is a request that differs of somebody for whom no scope holds.

        Raises:
            PolicyError: as `request`.
        """
        if self._somebody(0, (1 << len(self._contrast.scopes)) - 1) is None:
            return False
        return any(not one.present and not other.present for _, _, one, other, _, _ in self._ways())

    def _cases(self) -> Iterator[tuple[Any, PointValves, int, int]]:
        """Scopes that hold and scopes that do not, such that one side permits a point and the other does not."""
        for point, valves, one, other, wide, narrow in self._ways():
            avoided = wide.bits(one.absent) | narrow.bits(other.absent)
            present = [wide.scopes[mark] for mark in one.present] + [narrow.scopes[mark] for mark in other.present]
            for chosen in product(*present):
                holding = reduce(or_, chosen, 0)
                if not holding & avoided:
                    yield point, valves, holding, avoided

    def _ways(self) -> Iterator[tuple[Any, PointValves, Way, Way, _View, _View]]:
        """For each point and valves, a way in which one side permits it and one in which the other does not."""
        limit, ways = self._contrast.limit, self._contrast.tables.ways
        for valves in _PERSON_VALVES if limit.chosen_by is Chooser.PERSON else _ADMIN_VALVES:
            for point, wide, narrow in self._views:
                if wide == narrow:
                    continue
                permitting = ways(limit, point, wide.facts, valves)[True]
                forbidding = ways(limit, point, narrow.facts, valves)[False] if permitting else ()
                for one, other in product(permitting, forbidding):
                    yield point, valves, one, other, wide, narrow

    def _holding_for(self, requester: Requester) -> int:
        scopes = enumerate(self._contrast.scopes)
        return sum(1 << number for number, scope in scopes if scope.hold_for(requester))

    def _is_refuted(self, holding: int, avoided: int) -> bool:
        return any(not fewer & ~avoided for fewer in self._contrast.refuted.get(holding, ()))

    def _somebody(self, holding: int, avoided: int) -> Requester | None:
        if holding & avoided or self._is_refuted(holding, avoided):
            return None
        requester = self._contrast.search.somebody(holding, avoided)
        if requester is None:
            self._contrast.refuted.setdefault(holding, []).append(avoided)
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
