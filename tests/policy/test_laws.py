"""The laws of resolving, over whole situations: files with scopes, environments, valves and who asks."""

import dataclasses
from collections.abc import Iterator
from functools import reduce
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policy.document import PolicyDocument, parse_document
from policy.limits import LIMITS, Limit
from policy.requester import Requester
from policy.resolve import Layers, resolve
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import from_untrusted_valve
from tests.policy.factories import (
    PERSONS,
    document_saying,
    loosest,
    policy_sets,
    requesters,
    scopes_of,
    situations,
    source_of,
    stored_valves,
    telling_values,
    written,
)

ONE_LIMIT = st.sampled_from(LIMITS)
FEW_LIMITS = st.lists(ONE_LIMIT, min_size=1, max_size=3, unique=True)
ATTRIBUTES = [field.name for field in dataclasses.fields(Requester)]
EVERY_LIMIT = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
REFUSED = "the set has been refused for too long"

Law = st.DataObject


def value_of(limit: Limit[Any], layers: Layers) -> Any:  # noqa: ANN401 -- a value of the limit's kind
    return resolve(layers).decisions[limit.name].value


def applying(limit: Limit[Any], layers: Layers, *, scoped: bool = True) -> list[Stated]:
    """What the policy files say of a limit to this requester."""
    found = [stated for document in layers.documents for stated in document.statements]
    for document in layers.documents:
        for scope in document.scopes:
            if scoped and scope.conditions.hold_for(layers.requester):
                found.extend(scope.statements)
    return [stated for stated in found if stated.limit is limit]


def environment_lock(limit: Limit[Any], layers: Layers) -> Stated | None:
    return next((each for each in layers.environment if each.limit is limit and each.verb is Verb.LOCK), None)


def person_reaches(limit: Limit[Any], layers: Layers) -> list[Any]:
    """The ends of what a person can reach: with the loosest valve, and with none."""
    valves: tuple[dict[str, Any] | None, ...] = (None, {limit.valve: limit.kind.native(loosest(limit))})
    return [value_of(limit, dataclasses.replace(layers, untrusted_person_valves=each)) for each in valves]


def everybody_reaches(limit: Limit[Any], layers: Layers) -> list[Any]:
    """The ends of what a person and an administrator can reach together."""
    valves: tuple[dict[str, Any] | None, ...] = (None, {limit.valve: limit.kind.native(loosest(limit))})
    return [
        value_of(limit, dataclasses.replace(layers, untrusted_person_valves=person, untrusted_admin_valves=admin))
        for person, admin in product(valves, valves)
    ]


def is_within(limit: Limit[Any], value: object, ends: list[Any]) -> bool:
    return any(limit.kind.within(value, end) for end in ends)


def with_scope(draw: st.DrawFn, limit: Limit[Any], layers: Layers) -> Layers:
    """The same situation with one scope more, in a file that is there or in a new one."""
    scope = draw(scopes_of([limit], "added", 9))
    documents = [*layers.documents, document_saying("added")]
    at = draw(st.integers(0, len(documents) - 1))
    documents[at] = dataclasses.replace(documents[at], scopes=(*documents[at].scopes, scope))
    return dataclasses.replace(layers, documents=tuple(documents))


def locks_of(layer: Layer, values: dict[str, Any]) -> tuple[Stated, ...]:
    return tuple(
        Stated(
            limit=limit,
            verb=Verb.LOCK,
            value=values[limit.name],
            origin=Origin(layer=layer, place=f"result-{limit.name}", policy_id="result", serial=1),
        )
        for limit in LIMITS
    )


def result_of(layers: Layers) -> dict[str, Any]:
    return {name: decision.value for name, decision in resolve(layers).decisions.items()}


# Deterministic, whatever the order, and idempotent.


@settings(max_examples=150)
@given(data=st.data())
def test_resolving_is_deterministic_and_independent_of_the_order_of_files(data: Law) -> None:
    layers = data.draw(situations(data.draw(FEW_LIMITS), lockdown=True))
    shuffled = dataclasses.replace(layers, documents=tuple(data.draw(st.permutations(layers.documents))))
    assert resolve(layers).as_json() == resolve(layers).as_json() == resolve(shuffled).as_json()


@settings(max_examples=300)
@given(data=st.data())
def test_values_do_not_depend_on_the_order_of_scopes(data: Law) -> None:
    layers = data.draw(situations([data.draw(ONE_LIMIT)], lockdown=True))
    documents = tuple(
        dataclasses.replace(document, scopes=tuple(data.draw(st.permutations(document.scopes))))
        for document in layers.documents
    )
    assert resolve(dataclasses.replace(layers, documents=documents)).digest == resolve(layers).digest


@settings(max_examples=150)
@given(data=st.data())
def test_result_as_locks_gives_the_result(data: Law) -> None:
    layers = data.draw(situations(data.draw(FEW_LIMITS), lockdown=True))
    result = result_of(layers)
    by_variables = locks_of(Layer.ENVIRONMENT, result)
    by_file = document_saying("result", *locks_of(Layer.POLICY, result))
    assert result_of(Layers(environment=by_variables)) == result
    assert result_of(Layers(documents=(by_file,), untrusted_person_valves=layers.untrusted_person_valves)) == result
    assert result_of(dataclasses.replace(layers, environment=by_variables)) == result
    unlocked = [each for each in layers.environment if each.verb is not Verb.LOCK]
    below = dataclasses.replace(layers, environment=tuple(unlocked))
    if len(unlocked) == len(layers.environment):
        assert result_of(dataclasses.replace(below, documents=(*layers.documents, by_file))) == result


# What comes out lies inside the bounds.


@settings(max_examples=300)
@given(data=st.data())
def test_result_is_within_every_ceiling_and_every_lock_that_applies(data: Law) -> None:
    limit = data.draw(ONE_LIMIT)
    layers = data.draw(situations([limit], lockdown=True))
    value, said, lock = value_of(limit, layers), applying(limit, layers), environment_lock(limit, layers)
    if lock is not None:
        assert limit.kind.within(value, lock.value)
        return
    bounds = [each for each in (*layers.environment, *said) if each.verb in {Verb.LOCK, Verb.CEILING}]
    assert all(limit.kind.within(value, each.value) for each in bounds)
    unscoped = [each.value for each in applying(limit, layers, scoped=False) if each.verb is Verb.LOCK]
    if unscoped and layers.lockdown is None:
        assert value == reduce(limit.kind.meet, [each.value for each in bounds])


@settings(max_examples=200)
@given(data=st.data())
def test_firm_statements_bound_environment_locks_and_nothing_else_does(data: Law) -> None:
    limit = data.draw(ONE_LIMIT)
    layers = data.draw(situations([limit]))
    lock = Stated(
        limit=limit,
        verb=Verb.LOCK,
        value=data.draw(telling_values(limit)),
        origin=Origin(layer=Layer.ENVIRONMENT, place=limit.variable),
    )
    locked = dataclasses.replace(layers, environment=(lock,))
    said = [each for each in applying(limit, locked) if each.verb is not Verb.DEFAULT]
    firm = [each.value for each in said if not each.environment_may_loosen]
    decision = resolve(locked).decisions[limit.name]
    assert decision.value == reduce(limit.kind.meet, firm, lock.value)
    loosened = [each for each in said if not limit.kind.within(decision.value, each.value)]
    assert len([notice for notice in decision.notices if "loosens" in notice]) == len(loosened)


@settings(max_examples=300)
@given(data=st.data())
def test_no_valve_of_a_person_reaches_past_a_ceiling_a_lock_or_the_administrator(data: Law) -> None:
    limit = data.draw(ONE_LIMIT)
    layers = data.draw(situations([limit]))
    unset = dataclasses.replace(layers, untrusted_person_valves=None)
    value, without = value_of(limit, layers), value_of(limit, unset)
    said = [*layers.environment, *applying(limit, layers)]
    admin = (layers.untrusted_admin_valves or {}).get(limit.valve)
    if limit not in PERSONS or any(each.verb is Verb.LOCK for each in said):
        assert value == without
        return
    assert all(limit.kind.within(value, each.value) for each in said if each.verb is Verb.CEILING)
    if admin is not None:
        assert limit.kind.within(value, readable(limit, admin))
    elif not any(each.verb is Verb.CEILING and not each.scoped for each in said):
        assert value == without or limit.kind.within(value, limit.built_in)


def readable(limit: Limit[Any], stored: object) -> Any:  # noqa: ANN401 -- a value of the limit's kind
    try:
        return from_untrusted_valve(limit.kind, stored)
    except ValueError:
        return limit.kind.strictest


# Scopes and files only tighten.


@settings(max_examples=300)
@given(data=st.data())
def test_another_scope_never_enlarges_what_a_person_can_reach(data: Law) -> None:
    limit = data.draw(ONE_LIMIT)
    layers = data.draw(situations([limit], lockdown=True))
    ends = person_reaches(limit, layers)
    scoped = data.draw(st.composite(with_scope)(limit, layers))
    assert is_within(limit, value_of(limit, scoped), ends)
    assert all(is_within(limit, value, ends) for value in person_reaches(limit, scoped))


@settings(max_examples=300)
@given(data=st.data())
def test_another_file_or_scope_never_enlarges_what_valves_can_reach(data: Law) -> None:
    limit = data.draw(ONE_LIMIT)
    layers = data.draw(situations([limit], lockdown=True))
    ends = everybody_reaches(limit, layers)
    (added,) = data.draw(policy_sets([limit], most_files=1).filter(bool))
    added = dataclasses.replace(added, policy_id="added")
    larger = dataclasses.replace(layers, documents=(*layers.documents, added))
    larger = data.draw(st.just(larger) | st.composite(with_scope)(limit, layers))
    assert is_within(limit, value_of(limit, larger), ends)
    assert all(is_within(limit, value, ends) for value in everybody_reaches(limit, larger))


@settings(max_examples=300)
@given(data=st.data())
def test_requester_of_whom_less_is_known_never_reaches_more(data: Law) -> None:
    limit = data.draw(ONE_LIMIT)
    layers = data.draw(situations([limit], lockdown=True))
    known = dataclasses.replace(layers, requester=data.draw(requesters(known=True)))
    hidden: dict[str, Any] = dict.fromkeys(data.draw(st.sets(st.sampled_from(ATTRIBUTES), min_size=1)))
    hiding = dataclasses.replace(known, requester=dataclasses.replace(known.requester, **hidden))
    ends = person_reaches(limit, known)
    assert is_within(limit, value_of(limit, hiding), ends)
    assert all(is_within(limit, value, ends) for value in person_reaches(limit, hiding))


@settings(max_examples=100)
@given(data=st.data())
def test_scope_for_nobody_here_changes_no_value(data: Law) -> None:
    limits = data.draw(FEW_LIMITS)
    layers = data.draw(situations(limits))
    scope = data.draw(scopes_of(limits, "added", 9))
    assume(not scope.conditions.hold_for(layers.requester))
    added = dataclasses.replace(document_saying("added"), scopes=(scope,))
    larger = dataclasses.replace(layers, documents=(*layers.documents, added))
    assert resolve(larger).digest == resolve(layers).digest


# The valves that the laws above try stand for all others.


@settings(max_examples=200)
@given(data=st.data())
def test_no_valve_reaches_past_the_loosest_and_none(data: Law) -> None:
    limit = data.draw(ONE_LIMIT)
    layers = data.draw(situations([limit], lockdown=True))
    assert is_within(limit, value_of(limit, layers), person_reaches(limit, layers))
    assert is_within(limit, value_of(limit, layers), everybody_reaches(limit, layers))
    stored = data.draw(stored_valves([limit]))
    tried = dataclasses.replace(layers, untrusted_person_valves=stored)
    assert is_within(limit, value_of(limit, tried), person_reaches(limit, layers))


# Lockdown.


@EVERY_LIMIT
def test_lockdown_value_of_every_limit_is_within_its_built_in(limit: Limit[Any]) -> None:
    assert limit.kind.within(limit.lockdown, limit.built_in)


@settings(max_examples=300)
@given(data=st.data())
def test_lockdown_gives_what_is_within_its_values_and_within_the_result_without_it(data: Law) -> None:
    limit = data.draw(ONE_LIMIT)
    layers = data.draw(situations([limit]))
    value = value_of(limit, dataclasses.replace(layers, lockdown=REFUSED))
    assert value == limit.kind.meet(value_of(limit, layers), limit.lockdown)


# The strategies themselves.


@settings(max_examples=60)
@given(data=st.data())
def test_generated_files_say_the_same_when_written_and_read(data: Law) -> None:
    limits = data.draw(FEW_LIMITS)
    for document in data.draw(policy_sets(limits)):
        if said_in(document):
            assert said_in(parse_document(source_of(written(document)))) == said_in(document)


def said_in(document: PolicyDocument) -> list[tuple[Any, ...]]:
    """Everything that a document says, but for where it says so."""
    return [
        (
            str(conditions),
            stated.limit.name,
            stated.verb,
            stated.value,
            stated.environment_may_loosen or stated.verb is Verb.DEFAULT,
        )
        for conditions, statements in _blocks(document)
        for stated in sorted(statements, key=lambda stated: (LIMITS.index(stated.limit), stated.verb.value))
    ]


def _blocks(document: PolicyDocument) -> Iterator[tuple[object, tuple[Stated, ...]]]:
    yield "", document.statements
    for scope in document.scopes:
        yield scope.conditions, scope.statements
