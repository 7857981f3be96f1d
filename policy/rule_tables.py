"""What the rules make of one point of a limit's order, in tables that the resolver itself filled in.

A value permits a point or it does not, and a meet of values permits what all of them do. So all that the rules see of
a point is which marks there are: a lock, a ceiling or a default that permits it or forbids it, of the environment, of
policy files for everybody, and of scopes that hold. For each such case `resolve` is asked, with made-up statements;
its answers, as a function of what the scopes say, come out as the fewest *ways*. Nothing here restates a rule.

Source: Quine and McCluskey's method for the ways.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from policy.destinations import Destination, Reach, covers
from policy.document import PolicyDocument, PolicyScope
from policy.limits import Limit
from policy.requester import ScopeConditions
from policy.resolve import Layers, resolve
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import UNLIMITED, Destinations, Kind, Native, Switch, Thousandths, Whole, Words

PointValves = tuple[bool | None, bool | None]
"""Whether a person's valve and an administrator's permit a point; `None` where one is not set."""

_FOR_EVERYBODY = ScopeConditions(match={}, excepted={})
_MADE_UP_DATE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a statement says of a point."""

    verb: Verb
    """Lock, ceiling or default."""
    permits: bool
    """Whether its value permits the point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFacts:
    """All that the rules see of a point, valves and requester aside."""

    person_chooses: bool
    """Whether a person has a valve for the limit."""
    built_in_permits: bool
    """Whether the built-in permits the point."""
    environment: frozenset[Mark]
    """What the environment says."""
    everybody: frozenset[Mark]
    """What policy files say for everybody."""
    scoped: frozenset[Mark]
    """What any of their scopes says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to an outcome: whatever else scopes say, it comes about."""

    present: frozenset[Mark]
    """Of each of these, some scope that says it must hold."""
    absent: frozenset[Mark]
    """No scope that says one of these may hold."""


class RuleTables:
    """Asks the resolver once for each case, and keeps its answers for one comparison."""

    def __init__(self) -> None:
        self._ways: dict[tuple[PointFacts, PointValves], dict[bool, tuple[Way, ...]]] = {}

    def ways(
        self,
        limit: Limit[Any],
        point: Any,  # noqa: ANN401 -- a value of the limit's kind
        facts: PointFacts,
        valves: PointValves,
    ) -> dict[bool, tuple[Way, ...]]:
        """The fewest ways to each outcome: that the point is permitted, and that it is not.

        Args:
            limit: any one to which the facts apply; the rules treat all of them alike.
            point: a value of its kind, not the strictest.
            facts: what is said of the point.
            valves: what valves say of it.
        """
        key = (facts, valves)
        if key not in self._ways:
            self._ways[key] = _ways(limit, point, facts, valves)
        return self._ways[key]


def loosest(kind: Kind[Any]) -> Any:  # noqa: ANN401 -- a value of the kind
    """The loose end of a kind's order."""
    match kind:
        case Switch(strict=strict):
            return not strict
        case Whole(maximum=maximum, may_be_unlimited=free) | Thousandths(maximum=maximum, may_be_unlimited=free):
            return UNLIMITED if free else maximum
        case Words(choices=choices):
            return frozenset(choices)
        case Destinations():
            return kind.parse("public")
    raise ValueError(f"{kind} has no loose end that is known")


def points_between(kind: Kind[Any], values: Iterable[Any]) -> tuple[Any, ...]:
    """Enough points to tell all values apart that can come of these, the strictest first.

    Where one value that these and valves can lead to permits something that another does not, it is one of these
    points, or something that exactly the same of these values permit as one of these points.
    """
    said = {*values, loosest(kind)}
    match kind:
        case Switch():
            return (not kind.strict,)
        case Whole() | Thousandths():
            numbers = sorted(said - {kind.strictest, UNLIMITED})
            return (*numbers, UNLIMITED) if UNLIMITED in said else tuple(numbers)
        case Words(choices=choices):
            return tuple(frozenset({word}) for word in choices)
        case Destinations():
            return tuple(frozenset({item}) for item in _distinct_destinations(said))
    raise ValueError(f"{kind} has no points that are known")


def _distinct_destinations(said: Iterable[frozenset[Destination]]) -> Iterable[Destination]:
    """Of every named host with every named port, one for each way in which the sets permit them."""
    sets = tuple(said)
    items = {item for each in sets for item in each}
    reaches = sorted({item.reach for item in items}, key=lambda reach: str(Destination(reach=reach, port=None)))
    ports = (None, *sorted({item.port for item in items if item.port is not None}))
    by_reach: dict[tuple[frozenset[int | None], ...], Reach] = {}
    for reach in reaches:
        by_reach.setdefault(tuple(frozenset(_open_ports(each, reach)) for each in sets), reach)
    found: dict[tuple[bool, ...], Destination] = {}
    for open_ports, reach in by_reach.items():
        for port in ports:
            permitted = tuple(None in each or port in each for each in open_ports)
            found.setdefault(permitted, Destination(reach=reach, port=port))
    return sorted(found.values(), key=str)


def _open_ports(destinations: Iterable[Destination], reach: Reach) -> Iterable[int | None]:
    """The ports at which a set permits a whole reach; `None` is all of them."""
    narrow = Destination(reach=reach, port=None)
    return (item.port for item in destinations if covers(Destination(reach=item.reach, port=None), narrow))


def _ways(limit: Limit[Any], point: Any, facts: PointFacts, valves: PointValves) -> dict[bool, tuple[Way, ...]]:  # noqa: ANN401
    marks = sorted(facts.scoped, key=lambda mark: (mark.verb.value, mark.permits))
    outcomes: dict[bool, set[int]] = {True: set(), False: set()}
    for holding in range(1 << len(marks)):
        scoped = [mark for number, mark in enumerate(marks) if holding >> number & 1]
        outcomes[_permitted(limit, point, facts, scoped, valves)].add(holding)
    return {outcome: tuple(_fewest_ways(marks, cases)) for outcome, cases in outcomes.items()}


def _permitted(
    limit: Limit[Any],
    point: Any,  # noqa: ANN401 -- a value of the limit's kind
    facts: PointFacts,
    scoped: Iterable[Mark],
    valves: PointValves,
) -> bool:
    """What the resolver says of a point, of made-up statements that say this of it."""

    def value_that(permits: bool) -> Any:  # noqa: ANN401, FBT001 -- a value of the limit's kind, for what a mark holds
        return point if permits else limit.kind.strictest

    def made_up(layer: Layer, marks: Iterable[Mark], scope: str = "") -> tuple[Stated, ...]:
        origin = Origin(layer=layer, place="made up", scope=scope)
        return tuple(
            Stated(
                limit=limit,
                verb=mark.verb,
                value=value_that(mark.permits),
                origin=origin,
                environment_may_loosen=False,
            )
            for mark in marks
        )

    def valve(permits: bool | None) -> dict[str, Native]:  # noqa: FBT001 -- as a valve of a point is given
        return {} if permits is None else {limit.valve: limit.kind.native(value_that(permits))}

    person, admin = valves
    scope = PolicyScope(conditions=_FOR_EVERYBODY, statements=made_up(Layer.POLICY, scoped, "for somebody"))
    layers = Layers(
        environment=made_up(Layer.ENVIRONMENT, facts.environment),
        documents=(_made_up_document(made_up(Layer.POLICY, facts.everybody), scope),),
        untrusted_person_valves=valve(person),
        untrusted_admin_valves=valve(admin),
    )
    return limit.kind.within(point, resolve(layers)[limit])


def _made_up_document(statements: tuple[Stated, ...], scope: PolicyScope) -> PolicyDocument:
    return PolicyDocument(
        origin="made up",
        policy_id="made-up",
        serial=1,
        issued_at=_MADE_UP_DATE,
        not_before=None,
        expires_at=_MADE_UP_DATE,
        audience=("*",),
        payload_sha256="",
        key_ids=(),
        statements=statements,
        scopes=(scope,),
    )


def _fewest_ways(marks: Sequence[Mark], cases: set[int]) -> Iterable[Way]:
    """The prime implicants of these cases, each an integer of the marks that are present."""
    terms = {(case, 0) for case in cases}
    everything = (1 << len(marks)) - 1
    while terms:
        merged: set[tuple[int, int]] = set()
        joined: set[tuple[int, int]] = set()
        for present, free in terms:
            for number in range(len(marks)):
                bit = 1 << number
                if not free & bit and (present ^ bit, free) in terms:
                    merged.add((present & ~bit, free | bit))
                    joined.add((present, free))
        for present, free in sorted(terms - joined):
            absent = everything & ~present & ~free
            yield Way(
                present=frozenset(mark for number, mark in enumerate(marks) if present >> number & 1),
                absent=frozenset(mark for number, mark in enumerate(marks) if absent >> number & 1),
            )
        terms = merged
