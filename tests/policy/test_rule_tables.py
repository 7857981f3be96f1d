"""Points that tell values apart, and the ways that the resolver's rules come down to."""

from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.limits import LIMITS, MAX_INSTANCE_RUNS, MAX_RUNTIME_SECONDS, Limit
from policy.rule_tables import Mark, PointFacts, RuleTables, Way, loosest, points_between
from policy.statements import Verb
from tests.policy.factories import values_of

CEILING, LOCK, DEFAULT = (Mark(verb, permits=False) for verb in (Verb.CEILING, Verb.LOCK, Verb.DEFAULT))
OPEN_LOCK = Mark(Verb.LOCK, permits=True)


@given(data=st.data())
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_points_tell_every_two_meets_apart(limit: Limit[Any], data: st.DataObject) -> None:
    kind = limit.kind
    values = data.draw(st.lists(values_of(kind), min_size=1, max_size=4))
    points = points_between(kind, values)
    some = st.lists(st.sampled_from(values), min_size=1, max_size=3)
    one, other = (reduce(kind.meet, data.draw(some)) for _ in range(2))

    seen = any(kind.within(point, one) and not kind.within(point, other) for point in points)

    assert seen == (not kind.within(one, other))
    assert all(kind.within(each, loosest(kind)) for each in (*values, *points))
    assert not any(kind.within(point, kind.strictest) for point in points)


def facts_of(limit: Limit[Any], **said: frozenset[Mark]) -> PointFacts:
    return PointFacts(
        person_chooses=limit is MAX_RUNTIME_SECONDS,
        built_in_permits=True,
        environment=said.get("environment", frozenset()),
        everybody=said.get("everybody", frozenset()),
        scoped=said.get("scoped", frozenset()),
    )


@pytest.mark.parametrize(
    ("scoped", "person", "forbidding"),
    [
        ({CEILING}, None, [Way(present=frozenset({CEILING}), absent=frozenset())]),
        ({CEILING}, False, [Way(present=frozenset(), absent=frozenset())]),
        (
            {DEFAULT, LOCK},
            None,
            [
                Way(present=frozenset({DEFAULT}), absent=frozenset()),
                Way(present=frozenset({LOCK}), absent=frozenset()),
            ],
        ),
        ({OPEN_LOCK}, False, [Way(present=frozenset(), absent=frozenset({OPEN_LOCK}))]),
    ],
    ids=["a ceiling", "a valve", "a default or a lock", "a valve that no lock overrules"],
)
def test_ways_are_what_the_rules_come_down_to(
    scoped: set[Mark],
    person: bool | None,  # noqa: FBT001 -- a table's column
    forbidding: list[Way],
) -> None:
    facts = facts_of(MAX_RUNTIME_SECONDS, scoped=frozenset(scoped))
    ways = RuleTables().ways(MAX_RUNTIME_SECONDS, 20, facts, (person, None))
    assert sorted(ways[False], key=str) == sorted(forbidding, key=str)


def test_lock_of_the_environment_leaves_no_way_but_one_that_bounds_it() -> None:
    environment = frozenset({Mark(Verb.LOCK, permits=True)})
    facts = facts_of(MAX_INSTANCE_RUNS, environment=environment, scoped=frozenset({CEILING, DEFAULT}))

    ways = RuleTables().ways(MAX_INSTANCE_RUNS, 4, facts, (None, False))

    assert ways[False] == (Way(present=frozenset({CEILING}), absent=frozenset()),)
    assert ways[True] == (Way(present=frozenset(), absent=frozenset({CEILING})),)
