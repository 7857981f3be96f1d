"""Comparing two sets: by example, then as laws, and against every request of small universes, one by one."""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.compare import Difference, LimitComparison, Verdict, Witness, compared_limits
from policy.document import PolicyDocument, PolicyScope
from policy.errors import PolicyError
from policy.limits import (
    LANGUAGES,
    LIMITS,
    MAX_CPUS,
    MAX_INSTANCE_RUNS,
    MAX_RUNTIME_SECONDS,
    NETWORK_ALLOWLIST,
    NETWORK_PRIVATE_ALLOWED,
    NETWORKING_ALLOWED,
    REQUIRE_RESOURCE_LIMITING,
    Chooser,
    Limit,
)
from policy.requester import Requester, ScopeConditions
from policy.resolve import Layers, resolve
from policy.rule_tables import loosest
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import UNLIMITED
from tests.policy.factories import destinations, document_saying, said_by_environment

RUNTIME = MAX_RUNTIME_SECONDS
LANGUAGE_SETS = tuple(map(frozenset, ((), ("python",), ("bash",), ("python", "bash"))))
PLACES = tuple(
    destinations(*texts)
    for texts in (
        (),
        ("public",),
        ("public:443",),
        ("api.example.com", "10.0.0.0/8:443"),
        ("*.example.com:80", "10.1.0.0/16"),
        ("*.example.com",),
    )
)
VALUES: dict[Limit[Any], tuple[Any, ...]] = {
    RUNTIME: (1, 20, 30, 40, UNLIMITED),
    MAX_CPUS: (Decimal("0.5"), Decimal(2), UNLIMITED),
    MAX_INSTANCE_RUNS: (4, 20, UNLIMITED),
    NETWORKING_ALLOWED: (True, False),
    NETWORK_PRIVATE_ALLOWED: (True, False),
    REQUIRE_RESOURCE_LIMITING: (True, False),
    LANGUAGES: LANGUAGE_SETS,
    NETWORK_ALLOWLIST: PLACES,
}
"""Limits of every kind and of either chooser, each with the values that its universe has."""
GROUPS = ("students", "staff", "guests")
NAMES: dict[str, tuple[str, ...]] = {
    "roles": ("admin", "user"),
    "groups": GROUPS,
    "users": ("ann", "bob"),
    "models": ("llama", "qwen"),
    "surface": ("tool", "function"),
}
REQUESTERS = tuple(
    Requester(role=role, groups=groups, user=user, model=model, surface=surface)
    for role, groups, user, model, surface in product(
        ("admin", "user", "nobody-names-it", None),
        (
            *(
                frozenset(group for group, is_in in zip(GROUPS, bits, strict=True) if is_in)
                for bits in product((True, False), repeat=3)
            ),
            None,
        ),
        ("ann", "bob", "eve", None),
        ("llama", "qwen", "phi", None),
        ("tool", "function", None),
    )
)


def scope(
    *statements: Stated,
    match: Mapping[str, Iterable[str]] | None = None,
    excepted: Mapping[str, Iterable[str]] | None = None,
) -> PolicyScope:
    conditions = ScopeConditions(
        match={name: frozenset(values) for name, values in (match or {}).items()},
        excepted={name: frozenset(values) for name, values in (excepted or {}).items()},
    )
    scoped = (replace(each, origin=replace(each.origin, scope=str(conditions))) for each in statements)
    return PolicyScope(conditions=conditions, statements=tuple(scoped))


def stated(
    verb: Verb,
    value: Any,  # noqa: ANN401 -- of the limit's kind
    limit: Limit[Any] = RUNTIME,
    *,
    firm: bool = False,
    place: str = "p.toml:9",
) -> Stated:
    origin = Origin(layer=Layer.POLICY, place=place, policy_id="p", serial=7)
    return Stated(limit=limit, verb=verb, value=value, origin=origin, environment_may_loosen=not firm)


def policy(*said: Stated | PolicyScope, policy_id: str = "p") -> PolicyDocument:
    scopes = tuple(each for each in said if isinstance(each, PolicyScope))
    return replace(document_saying(policy_id, *(each for each in said if isinstance(each, Stated))), scopes=scopes)


Documents = tuple[PolicyDocument, ...]
Environment = tuple[Stated, ...]


def compare(
    old: Documents, new: Documents, limit: Limit[Any] = RUNTIME, environment: Environment | None = None
) -> LimitComparison:
    return next(each for each in compared_limits(old, new, environment) if each.limit is limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a small universe."""

    requester: Requester
    person: Any
    admin: Any


def told_apart(documents: Documents) -> Iterator[Requester]:
    """One requester for each set of scopes that hold for anybody; nothing else of a requester is looked at."""
    scopes = [scope.conditions for document in documents for scope in document.scopes]
    found = {tuple(scope.hold_for(each) for scope in scopes): each for each in REQUESTERS}
    yield from found.values()


def value_of(documents: Documents, limit: Limit[Any], environment: Environment, request: Request) -> Any:  # noqa: ANN401 -- of the limit's kind
    valves = [
        {} if value is None else {limit.valve: limit.kind.native(value)} for value in (request.person, request.admin)
    ]
    layers = Layers(
        environment=environment,
        documents=documents,
        requester=request.requester,
        untrusted_person_valves=valves[0],
        untrusted_admin_valves=valves[1],
    )
    return resolve(layers)[limit]


def by_brute_force(
    old: Documents, new: Documents, limit: Limit[Any], environments: Iterable[Environment]
) -> tuple[list[Requester], list[Requester]]:
    """Who in the universe has more under the new set in any request, and who has less."""
    looser: list[Requester] = []
    tighter: list[Requester] = []
    valves = (None, *{limit.kind.strictest, *VALUES[limit]})
    for environment, requester, person, admin in product(environments, list(told_apart((*old, *new))), valves, valves):
        request = Request(requester=requester, person=person, admin=admin)
        before, after = (value_of(documents, limit, environment, request) for documents in (old, new))
        looser += [] if limit.kind.within(after, before) else [requester]
        tighter += [] if limit.kind.within(before, after) else [requester]
    return looser, tighter


def assert_concerns(witness: Witness | None, requesters: list[Requester], documents: Documents) -> None:
    """Hold the scopes that a witness names against all requesters whom the difference concerns."""
    assert (witness is not None) == bool(requesters)
    if witness is not None:
        scopes = {scope.conditions for document in documents for scope in document.scopes}
        held = [{scope for scope in scopes if scope.hold_for(requester)} for requester in requesters]
        assert (set(witness.scopes), witness.beyond_scopes) == (set().union(*held), set() in held)


def every_environment(limit: Limit[Any]) -> Iterator[Environment]:
    yield ()
    for value in VALUES[limit]:
        native = limit.kind.native(value)
        for verb in (Verb.LOCK, Verb.CEILING, Verb.DEFAULT):
            yield (said_by_environment(limit, verb, native),)
        for other in VALUES[limit]:
            if limit.kind.within(other, value):
                default = said_by_environment(limit, Verb.DEFAULT, limit.kind.native(other))
                yield said_by_environment(limit, Verb.CEILING, native), default


def assert_holds(witness: Witness | None, limit: Limit[Any], old: Documents, new: Documents, *, looser: bool) -> None:
    """Ask the resolver again whether a witness says the truth."""
    if witness is None:
        return
    request = Request(requester=witness.requester, person=witness.person, admin=witness.admin)
    before, after = (value_of(documents, limit, witness.environment, request) for documents in (old, new))
    assert (witness.old.value, witness.new.value) == (before, after)
    assert not (limit.kind.within(after, before) if looser else limit.kind.within(before, after))


def assert_witnesses_hold(difference: Difference, limit: Limit[Any], old: Documents, new: Documents) -> None:
    assert_holds(difference.looser, limit, old, new, looser=True)
    assert_holds(difference.tighter, limit, old, new, looser=False)


# Strategies.

SOME: st.SearchStrategy[Limit[Any]] = st.sampled_from(list(VALUES))
FEW_VALUES: tuple[Limit[Any], ...] = (MAX_CPUS, NETWORKING_ALLOWED, NETWORK_PRIVATE_ALLOWED, MAX_INSTANCE_RUNS)


@st.composite
def said_of(draw: st.DrawFn, limit: Limit[Any], place: str) -> tuple[Stated, ...]:
    """Draw what one table says of a limit: a lock, or a ceiling and a default within it, or less."""
    value, firm = st.sampled_from(VALUES[limit]), draw(st.booleans())
    match draw(st.sampled_from(("ceiling", "ceiling", "lock", "default", "both"))):
        case "lock":
            said = {Verb.LOCK: draw(value)}
        case "both":
            ceiling = draw(value)
            said = {Verb.CEILING: ceiling, Verb.DEFAULT: limit.kind.meet(ceiling, draw(value))}
        case verb:
            said = {Verb(verb): draw(value)}
    return tuple(stated(verb, each, limit, firm=firm, place=place) for verb, each in said.items())


CONDITIONS = st.dictionaries(
    st.sampled_from(("groups", "groups", "roles", "users", "models", "surface")), st.just(None), min_size=1, max_size=2
)


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, frozenset[str]]:
    return {
        name: draw(st.frozensets(st.sampled_from(NAMES[name]), min_size=1, max_size=2)) for name in draw(CONDITIONS)
    }


@st.composite
def scopes_of(draw: st.DrawFn, limit: Limit[Any]) -> PolicyScope:
    match draw(st.integers(0, 2)):
        case 0:
            who = {"match": draw(conditions())}
        case 1:
            who = {"excepted": draw(conditions())}
        case _:
            who = {"match": draw(conditions()), "excepted": draw(conditions())}
    return scope(*draw(said_of(limit, "s.toml:1")), **who)


@st.composite
def sets_of(draw: st.DrawFn, limit: Limit[Any]) -> Documents:
    """Draw a set of one or two files without contradictions."""
    documents = tuple(
        policy(
            *draw(st.just(()) | said_of(limit, f"{name}.toml:1")),
            *draw(st.lists(scopes_of(limit), max_size=3)),
            policy_id=name,
        )
        for name in draw(st.sampled_from((("p",), ("p",), ("p", "q"))))
    )
    locks = {each.value for document in documents for each in document.statements if each.verb is Verb.LOCK}
    return documents if len(locks) < 2 else documents[:1]


@st.composite
def changed(draw: st.DrawFn, limit: Limit[Any], documents: Documents) -> Documents:
    """Draw another set, which most often is this one with one thing changed."""
    if draw(st.integers(0, 3)) == 0:
        return draw(sets_of(limit))
    first, *rest = documents
    match draw(st.integers(0, 3)):
        case 0:
            first = replace(first, scopes=(*first.scopes, draw(scopes_of(limit))))
        case 1:
            first = replace(first, scopes=first.scopes[1:])
        case 2 if first.scopes:
            other = draw(scopes_of(limit))
            first = replace(first, scopes=(replace(first.scopes[0], conditions=other.conditions), *first.scopes[1:]))
        case _:
            first, rest = replace(first, statements=draw(st.just(()) | said_of(limit, "p.toml:1"))), []
    return (first, *rest)


@settings(max_examples=120)
@given(data=st.data())
def test_comparing_agrees_with_every_request_of_a_small_universe(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    old = data.draw(sets_of(limit))
    new = data.draw(changed(limit, old))
    environment = data.draw(st.just(()) | st.sampled_from(tuple(every_environment(limit))))

    difference = compare(old, new, limit, environment).plain

    assert_witnesses_hold(difference, limit, old, new)
    looser, tighter = by_brute_force(old, new, limit, [environment])
    if any(each.verb is Verb.LOCK for each in environment):  # beside which most scopes have no say
        assert (difference.looser is not None, difference.tighter is not None) == (bool(looser), bool(tighter))
        return
    assert_concerns(difference.looser, looser, (*old, *new))
    assert_concerns(difference.tighter, tighter, (*old, *new))


@settings(max_examples=30)
@given(data=st.data())
def test_where_no_environment_is_given_the_answer_holds_for_every_environment(data: st.DataObject) -> None:
    limit = data.draw(st.sampled_from(FEW_VALUES))
    old = data.draw(sets_of(limit))
    new = data.draw(changed(limit, old))

    comparison = compare(old, new, limit)

    for difference in (comparison.plain, comparison.under_lock, comparison.under_default):
        assert_witnesses_hold(difference, limit, old, new)
    looser, tighter = by_brute_force(old, new, limit, every_environment(limit))
    assert (comparison.verdict.loosens, comparison.verdict.tightens) == (bool(looser), bool(tighter))


# Laws.


@settings(max_examples=100)
@given(data=st.data())
def test_what_is_looser_one_way_is_tighter_the_other_way(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    old = data.draw(sets_of(limit))
    new = data.draw(changed(limit, old))

    there, back = compare(old, new, limit), compare(new, old, limit)

    for one, other in ((there.plain, back.plain), (there.under_lock, back.under_lock)):
        assert (one.verdict.loosens, one.verdict.tightens) == (other.verdict.tightens, other.verdict.loosens)
    assert (there.verdict.loosens, there.verdict.tightens) == (back.verdict.tightens, back.verdict.loosens)


@settings(max_examples=60)
@given(data=st.data())
def test_set_equals_itself_in_any_order_and_from_any_lines(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    documents = data.draw(sets_of(limit))
    moved = tuple(
        replace(
            document,
            statements=tuple(replace(each, origin=replace(each.origin, place="x:1")) for each in document.statements),
            scopes=tuple(data.draw(st.permutations(document.scopes))),
        )
        for document in reversed(documents)
    )
    assert compare(documents, moved, limit).verdict is Verdict.EQUAL


@settings(max_examples=100)
@given(data=st.data())
def test_two_changes_neither_of_which_loosens_do_not_loosen_together(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    first = data.draw(sets_of(limit))
    second = data.draw(changed(limit, first))
    third = data.draw(changed(limit, second))
    if compare(first, second, limit).verdict.loosens or compare(second, third, limit).verdict.loosens:
        return
    assert not compare(first, third, limit).verdict.loosens


@settings(max_examples=60)
@given(data=st.data())
def test_another_scope_of_ceilings_never_loosens(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    first, *rest = data.draw(sets_of(limit))
    ceiling = stated(Verb.CEILING, data.draw(st.sampled_from(VALUES[limit])), limit, firm=data.draw(st.booleans()))
    more = replace(first, scopes=(*first.scopes, scope(ceiling, match=data.draw(conditions()))))

    assert not compare((first, *rest), (more, *rest), limit).verdict.loosens


@settings(max_examples=60)
@given(data=st.data())
def test_another_scope_of_any_kind_never_loosens_what_an_administrator_chooses(data: st.DataObject) -> None:
    limit = data.draw(SOME.filter(lambda each: each.chosen_by is Chooser.ADMINISTRATOR))
    first, *rest = data.draw(sets_of(limit))
    more = replace(first, scopes=(*first.scopes, data.draw(scopes_of(limit))))

    assert not compare((first, *rest), (more, *rest), limit).verdict.loosens


@settings(max_examples=60)
@given(data=st.data())
def test_another_scope_of_any_kind_never_lets_a_person_reach_more(data: st.DataObject) -> None:
    limit = data.draw(SOME.filter(lambda each: each.chosen_by is Chooser.PERSON))
    first, *rest = data.draw(sets_of(limit))
    old, new = (first, *rest), (replace(first, scopes=(*first.scopes, data.draw(scopes_of(limit)))), *rest)
    kind = limit.kind

    for requester, admin in product(list(told_apart(new)), (None, *VALUES[limit])):
        most, unset = (
            (
                value_of(old, limit, (), Request(requester=requester, person=person, admin=admin)),
                value_of(new, limit, (), Request(requester=requester, person=person, admin=admin)),
            )
            for person in (loosest(kind), None)
        )
        assert kind.within(most[1], most[0])
        assert kind.within(unset[1], most[0]) or kind.within(unset[1], unset[0])


# Examples.


def test_raised_ceiling_is_looser_and_the_witness_says_who_how_much_and_by_which_lines() -> None:
    old = (policy(stated(Verb.CEILING, 60, place="old.toml:4")),)
    new = (policy(stated(Verb.CEILING, 120, place="new.toml:5")),)

    comparison = compare(old, new)

    assert (comparison.verdict, comparison.plain.tighter) == (Verdict.LOOSER, None)
    witness = comparison.plain.looser
    assert witness is not None
    assert (witness.who, witness.person, witness.admin) == ("anybody", UNLIMITED, None)
    assert (witness.old.value, witness.old.decided_by.place) == (60, "old.toml:4")
    assert (witness.new.value, witness.new.decided_by.place) == (120, "new.toml:5")
    assert (witness.scopes, witness.beyond_scopes) == ((), True)


CEILING_10 = stated(Verb.CEILING, 10)
EQUAL_SETS: dict[str, tuple[Documents, Documents]] = {
    "a second ceiling that never bites": (
        (policy(CEILING_10),),
        (policy(CEILING_10), policy(stated(Verb.CEILING, 60), policy_id="q")),
    ),
    "one scope for two groups, or one for each": (
        (policy(scope(CEILING_10, match={"groups": ["students", "guests"]})),),
        (policy(*(scope(CEILING_10, match={"groups": [group]}) for group in ("students", "guests"))),),
    ),
    "a scope that another one covers": (
        (policy(scope(CEILING_10, excepted={"groups": ["staff"]})),),
        (
            policy(
                scope(CEILING_10, excepted={"groups": ["staff"]}),
                scope(CEILING_10, match={"surface": ["tool"]}, excepted={"groups": ["staff"]}),
            ),
        ),
    ),
    "everybody, or either surface": (
        (policy(CEILING_10),),
        (policy(stated(Verb.CEILING, 10), scope(stated(Verb.CEILING, 12), match={"surface": ["tool"]})),),
    ),
    "a lock, or the same lock in two files": (
        (policy(stated(Verb.LOCK, 10)),),
        (policy(stated(Verb.LOCK, 10)), policy(stated(Verb.LOCK, 10), policy_id="q")),
    ),
    "a default that a lock hides": (
        (policy(stated(Verb.LOCK, 10)),),
        (policy(stated(Verb.LOCK, 10)), policy(stated(Verb.DEFAULT, 20), policy_id="q")),
    ),
    "another limit": (
        (policy(),),
        (policy(stated(Verb.CEILING, NETWORKING_ALLOWED.kind.strictest, NETWORKING_ALLOWED)),),
    ),
}


@pytest.mark.parametrize("name", EQUAL_SETS)
def test_what_is_said_otherwise_and_means_the_same_is_equal(name: str) -> None:
    old, new = EQUAL_SETS[name]
    assert compare(old, new).verdict is Verdict.EQUAL


def test_ceiling_moved_into_a_scope_is_looser_for_those_it_lets_out() -> None:
    new = (policy(scope(CEILING_10, excepted={"groups": ["staff", "tutors"]})),)

    comparison = compare((policy(CEILING_10),), new)

    assert comparison.verdict is Verdict.LOOSER
    witness = comparison.plain.looser
    assert witness is not None
    assert witness.requester.groups is not None
    assert len(witness.requester.groups & {"staff", "tutors"}) == 1
    assert (witness.scopes, witness.beyond_scopes) == ((), True)


def test_looser_scope_is_named_and_those_that_still_hold_are_not() -> None:
    students, guests = ({"groups": [group]} for group in ("students", "guests"))
    old = (policy(scope(CEILING_10, match=students), scope(CEILING_10, match=guests)),)
    raised = stated(Verb.CEILING, 12, place="new.toml:6")
    new = (policy(scope(raised, match=students), scope(CEILING_10, match=guests)),)

    witness = compare(old, new).plain.looser

    assert witness is not None
    assert (list(map(str, witness.scopes)), witness.places) == (["for groups students"], ("new.toml:6",))
    assert not witness.beyond_scopes
    assert witness.who == "group students"


@pytest.mark.parametrize(
    ("scopes", "who"),
    [
        ([scope(CEILING_10, match={"groups": ["a"]}, excepted={"groups": ["a"]})], "unknown groups"),
        (
            [
                scope(stated(Verb.CEILING, 20), match={"roles": ["admin"]}),
                scope(CEILING_10, match={"roles": ["user"]}, excepted={"roles": ["user"]}),
            ],
            "unknown role",
        ),
    ],
    ids=["one scope", "two scopes"],
)
def test_scope_that_holds_only_for_the_undetermined_loosens_for_them_when_it_goes(
    scopes: list[PolicyScope], who: str
) -> None:
    comparison = compare((policy(*scopes),), (policy(*scopes[:-1]),))

    assert comparison.verdict is Verdict.LOOSER
    assert comparison.plain.looser is not None
    assert comparison.plain.looser.who == who


def test_somebody_whom_no_scope_names_is_another() -> None:
    new = (policy(scope(CEILING_10, match={"users": ["ann"], "roles": ["user"]})),)

    witness = compare((policy(CEILING_10),), new).plain.looser

    assert witness is not None
    assert witness.who in {"another role, another user", "another role, user ann", "role user, another user"}
    assert witness.beyond_scopes


def test_removed_file_is_looser_where_its_limits_bit() -> None:
    kept, removed = policy(CEILING_10), policy(stated(Verb.CEILING, 5), policy_id="q")
    assert compare((kept, removed), (kept,)).verdict is Verdict.LOOSER
    assert compare((removed, kept), (removed,)).verdict is Verdict.EQUAL


def test_first_ceiling_above_the_built_in_lets_people_ask_for_more_and_administrators_for_less() -> None:
    comparison = compare((policy(),), (policy(stated(Verb.CEILING, 60)),))

    assert comparison.verdict is Verdict.MIXED
    looser, tighter = comparison.plain.looser, comparison.plain.tighter
    assert looser is not None
    assert (looser.person, looser.admin, looser.old.value, looser.new.value) == (UNLIMITED, None, 30, 60)
    assert tighter is not None
    assert (tighter.admin, tighter.old.value, tighter.new.value) == (UNLIMITED, UNLIMITED, 60)


def test_new_lock_is_looser_for_who_asked_for_less() -> None:
    comparison = compare((policy(CEILING_10),), (policy(stated(Verb.LOCK, 10)),))

    assert comparison.verdict is Verdict.LOOSER
    witness = comparison.plain.looser
    assert witness is not None
    assert (witness.person, witness.old.value, witness.new.value) == (1, 1, 10)


def test_narrower_destination_beside_a_wider_one_is_equal_and_alone_is_tighter() -> None:
    both = destinations("*.example.com", "10.0.0.0/8")
    old = (policy(stated(Verb.CEILING, both, NETWORK_ALLOWLIST)),)
    same = (*old, policy(stated(Verb.CEILING, destinations("public"), NETWORK_ALLOWLIST), policy_id="q"))
    less = (policy(stated(Verb.CEILING, destinations("api.example.com", "10.0.0.0/8"), NETWORK_ALLOWLIST)),)
    other = (policy(stated(Verb.CEILING, destinations("*.example.com:443", "10.0.0.0/7"), NETWORK_ALLOWLIST)),)

    assert compare(old, same, NETWORK_ALLOWLIST).verdict is Verdict.EQUAL
    assert compare(old, less, NETWORK_ALLOWLIST).verdict is Verdict.TIGHTER
    assert compare(old, other, NETWORK_ALLOWLIST).verdict is Verdict.MIXED


def test_destinations_whose_meet_alone_differs_are_told_apart() -> None:
    host, port = (
        scope(stated(Verb.CEILING, destinations(item), NETWORK_ALLOWLIST), match={"groups": [item]})
        for item in ("a.example", "public:443")
    )
    wide, narrow = (
        scope(stated(Verb.CEILING, value, NETWORK_ALLOWLIST), match={"surface": ["tool"]})
        for value in (destinations("public"), destinations("public:80", "b.example"))
    )

    witness = compare((policy(host, port, narrow),), (policy(host, port, wide),), NETWORK_ALLOWLIST).plain.looser

    assert witness is not None
    assert not NETWORK_ALLOWLIST.kind.within(witness.new.value, witness.old.value)


def test_letting_the_environment_loosen_is_looser_under_a_lock_of_the_environment_alone() -> None:
    old, new = (policy(stated(Verb.CEILING, 60, firm=True)),), (policy(stated(Verb.CEILING, 60)),)

    comparison = compare(old, new)

    assert (comparison.plain.verdict, comparison.under_lock.verdict) == (Verdict.EQUAL, Verdict.LOOSER)
    assert comparison.verdict is Verdict.LOOSER
    witness = comparison.under_lock.looser
    assert witness is not None
    assert [each.origin.place for each in witness.environment] == ["SANDBOX_MAX_RUNTIME_SECONDS"]
    assert (witness.person, witness.old.value, witness.new.value) == (None, 60, UNLIMITED)


def test_given_environment_is_the_only_one_looked_at() -> None:
    old, new = (policy(stated(Verb.CEILING, 60, firm=True)),), (policy(stated(Verb.CEILING, 60)),)
    lock = said_by_environment(RUNTIME, Verb.LOCK, 50)
    looser_lock = said_by_environment(RUNTIME, Verb.LOCK, 90)

    assert compare(old, new, environment=()).verdict is Verdict.EQUAL
    assert compare(old, new, environment=(lock,)).verdict is Verdict.EQUAL
    assert compare(old, new, environment=(looser_lock,)).plain.verdict is Verdict.LOOSER


def test_ceiling_of_the_given_environment_hides_what_is_looser_above_it() -> None:
    old, new = (policy(stated(Verb.CEILING, 60)),), (policy(stated(Verb.CEILING, 120)),)
    assert compare(old, new, environment=(said_by_environment(RUNTIME, Verb.CEILING, 50),)).verdict is Verdict.EQUAL


def test_default_of_a_scope_that_only_a_ceiling_of_the_environment_lets_out_is_looser_there() -> None:
    new = (policy(scope(stated(Verb.DEFAULT, 100), match={"groups": ["staff"]})),)

    comparison = compare((policy(),), new)

    assert comparison.plain.verdict is Verdict.EQUAL
    witness = comparison.under_default.looser
    assert witness is not None
    assert [each.origin.place for each in witness.environment] == ["SANDBOX_MAX_RUNTIME_SECONDS__CEILING"]
    assert (witness.old.value, witness.new.value) == (30, 100)


def test_lock_of_a_scope_that_a_default_of_the_environment_is_above_is_tighter_there() -> None:
    new = (policy(scope(stated(Verb.LOCK, UNLIMITED), match={"groups": ["staff"]})),)

    comparison = compare((policy(),), new)

    assert comparison.plain.tighter is None
    witness = comparison.under_default.tighter
    assert witness is not None
    assert [each.origin.place for each in witness.environment] == ["SANDBOX_MAX_RUNTIME_SECONDS__DEFAULT"]
    assert (witness.old.value, witness.new.value) == (UNLIMITED, 30)


def test_every_limit_is_compared_in_the_tables_order() -> None:
    assert [each.limit for each in compared_limits((policy(),), (policy(CEILING_10),), None)] == list(LIMITS)


def many_scopes(scopes: int, groups: int) -> Documents:
    """A file of many scopes with many groups and every kind of statement; the same one each time."""
    draws = random.Random(f"{scopes} scopes, {groups} groups")  # noqa: S311 -- no secret
    names = [f"group-{number}" for number in range(groups)]
    return (
        policy(
            stated(Verb.CEILING, 150),
            *(
                scope(
                    stated(draws.choice((Verb.LOCK, Verb.CEILING, Verb.DEFAULT)), draws.randint(2, 200)),
                    match={"groups": draws.sample(names, 3)},
                    excepted={"groups": draws.sample(names, 3), "users": [f"user-{draws.randint(0, 9)}"]},
                )
                for _ in range(scopes)
            ),
        ),
    )


def test_scopes_that_name_two_hundred_groups_are_compared_exactly() -> None:
    (old,) = many_scopes(30, 200)
    strict = replace(old.scopes[7], statements=tuple(replace(each, value=1) for each in old.scopes[7].statements))
    new = replace(old, scopes=(*old.scopes[:7], strict, *old.scopes[8:]))

    comparison = compare((old,), (new,))

    assert (comparison.verdict, compare((new,), (old,)).verdict) == (Verdict.TIGHTER, Verdict.LOOSER)
    assert_witnesses_hold(comparison.plain, RUNTIME, (old,), (new,))
    assert comparison.plain.tighter is not None
    assert strict.conditions in comparison.plain.tighter.scopes


def test_scopes_too_entangled_to_compare_are_refused_rather_than_answered_wrongly() -> None:
    entangled = [
        scope(CEILING_10, excepted={attribute: [f"{attribute}-{number}"]})
        for attribute in ("users", "models")
        for number in range(70)
    ]
    with pytest.raises(PolicyError, match="more than 4096 combinations"):
        compare((policy(stated(Verb.CEILING, 20), *entangled),), (policy(stated(Verb.CEILING, 60), *entangled),))
