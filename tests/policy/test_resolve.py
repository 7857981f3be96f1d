"""Resolving: each rule by example, then as laws, and against a second, simpler reading of the same rules."""

import dataclasses
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.document import PolicyDocument, parse_document
from policy.effective import Candidate, Decision, Fate
from policy.limits import (
    LANGUAGES,
    LIMITS,
    MAX_CONCURRENT_RUNS,
    MAX_CPUS,
    MAX_INSTANCE_RUNS,
    MAX_OUTPUT_KILOBYTES,
    MAX_RAM_MEGABYTES,
    MAX_RUNTIME_SECONDS,
    NETWORK_ALLOWLIST,
    NETWORKING_ALLOWED,
    REQUIRE_RESOURCE_LIMITING,
    Limit,
)
from policy.requester import UNDETERMINED, Requester
from policy.resolve import Layers, resolve
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import UNLIMITED, from_untrusted_valve
from tests.policy.factories import (
    ADMINISTRATORS,
    PERSONS,
    destinations,
    document_of,
    document_saying,
    loosest,
    said_by_environment,
    source_of,
    text_of,
    values_of,
)

RUNTIME = MAX_RUNTIME_SECONDS
EVERY_LIMIT = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)


def locked(native: object, limit: Limit[Any] = RUNTIME) -> tuple[Stated, ...]:
    return (said_by_environment(limit, Verb.LOCK, native),)


def capped(native: object, limit: Limit[Any] = RUNTIME) -> tuple[Stated, ...]:
    return (said_by_environment(limit, Verb.CEILING, native),)


def preset(native: object, limit: Limit[Any] = RUNTIME) -> tuple[Stated, ...]:
    return (said_by_environment(limit, Verb.DEFAULT, native),)


def policies(*said: dict[str, Any] | int) -> tuple[PolicyDocument, ...]:
    """Make one file for each thing said of the runtime."""
    return tuple(document_of({"max_runtime_seconds": each}, f"p{number}") for number, each in enumerate(said, 1))


def decide(
    *,
    environment: tuple[Stated, ...] = (),
    documents: tuple[PolicyDocument, ...] = (),
    person: object = None,
    admin: object = None,
    limit: Limit[Any] = RUNTIME,
    requester: Requester = UNDETERMINED,
    lockdown: str | None = None,
) -> Decision:
    layers = Layers(
        environment=environment,
        documents=documents,
        untrusted_person_valves={limit.valve: person},
        untrusted_admin_valves={limit.valve: admin},
        requester=requester,
        lockdown=lockdown,
    )
    return resolve(layers).decisions[limit.name]


def fates(decision: Decision) -> list[tuple[str, Fate]]:
    return [(candidate.origin.place, candidate.fate) for candidate in decision.candidates]


@EVERY_LIMIT
def test_built_in_holds_where_nobody_says_anything(limit: Limit[Any]) -> None:
    decision = resolve(Layers()).decisions[limit.name]
    assert (decision.value, decision.decided_by.layer) == (limit.built_in, Layer.BUILT_IN)
    assert [candidate.fate for candidate in decision.candidates] == [Fate.WON]
    assert decision.notices == ()


# Rule 1: an environment lock decides.


def test_environment_lock_decides_over_everything_below() -> None:
    decision = decide(environment=locked(20), documents=policies({"ceiling": 60, "default": 5}), person=3, admin=4)
    assert (decision.value, decision.verb) == (20, Verb.LOCK)
    assert decision.decided_by.place == "SANDBOX_MAX_RUNTIME_SECONDS"


@pytest.mark.parametrize("valve", [1, 19, 21, 86_400, "unlimited", "x"])
def test_no_valve_moves_an_environment_lock(valve: object) -> None:
    decision = decide(environment=locked(20), person=valve, admin=valve)
    assert decision.value == 20
    assert len(decision.notices) == 2
    assert all("20 seconds" in notice for notice in decision.notices)


@pytest.mark.parametrize("said", [{"ceiling": 60}, {"lock": 60}], ids=["ceiling", "lock"])
def test_environment_lock_may_loosen_a_policy_and_that_is_reported(said: dict[str, Any]) -> None:
    decision = decide(environment=locked(100), documents=policies(said))
    assert (decision.value, decision.decided_by.layer) == (100, Layer.ENVIRONMENT)
    (notice,) = decision.notices
    assert "SANDBOX_MAX_RUNTIME_SECONDS loosens max_runtime_seconds past p1 serial 7" in notice
    assert "100 seconds instead of 60 seconds" in notice


def test_each_policy_that_is_loosened_is_reported() -> None:
    decision = decide(environment=locked(100), documents=policies({"ceiling": 60}, {"ceiling": 120}, {"lock": 30}))
    assert ["p1" in notice or "p3" in notice for notice in decision.notices] == [True, True]


@pytest.mark.parametrize("said", [{"ceiling": 60}, {"lock": 60}], ids=["ceiling", "lock"])
def test_environment_lock_is_brought_within_a_policy_that_does_not_let_it_loosen(said: dict[str, Any]) -> None:
    decision = decide(environment=locked(100), documents=policies({**said, "env_may_loosen": False}))
    assert (decision.value, decision.decided_by.layer) == (60, Layer.POLICY)
    (notice,) = decision.notices
    assert "SANDBOX_MAX_RUNTIME_SECONDS asks for 100 seconds" in notice
    assert "p1 serial 7" in notice
    assert "60 seconds" in notice
    assert ("SANDBOX_MAX_RUNTIME_SECONDS", Fate.CLAMPED) in fates(decision)


def test_environment_lock_may_tighten_any_policy_unsaid() -> None:
    decision = decide(
        environment=locked(10), documents=policies({"lock": 60, "env_may_loosen": False}, {"ceiling": 20})
    )
    assert (decision.value, decision.notices) == (10, ())


def test_default_is_no_bound_of_an_environment_lock() -> None:
    decision = decide(environment=locked(100), documents=policies({"default": 5}))
    assert (decision.value, decision.notices) == (100, ())


def test_one_firm_policy_binds_and_another_that_is_loosened_is_reported() -> None:
    decision = decide(
        environment=locked(100), documents=policies({"ceiling": 60, "env_may_loosen": False}, {"ceiling": 30})
    )
    assert decision.value == 60
    assert any("loosens" in notice and "p2" in notice for notice in decision.notices)
    assert any("asks for 100 seconds" in notice for notice in decision.notices)


# Rule 2: else the strictest lock of all policy files.


def test_policy_lock_decides_over_valves_and_defaults() -> None:
    decision = decide(environment=preset(5), documents=policies(40), person=3, admin=4)
    assert (decision.value, decision.decided_by.layer, decision.verb) == (40, Layer.POLICY, Verb.LOCK)


def test_strictest_lock_of_all_files_decides() -> None:
    decision = decide(documents=policies(40, 20, 30))
    assert (decision.value, decision.decided_by.policy_id) == (20, "p2")


def test_strictest_lock_of_sets_is_what_all_permit() -> None:
    documents = (document_of({"languages": ["python"]}, "p1"), document_of({"languages": ["bash"]}, "p2"))
    assert decide(documents=documents, limit=LANGUAGES).value == frozenset()


def test_policy_lock_is_brought_within_a_ceiling() -> None:
    decision = decide(environment=capped(25), documents=policies(40))
    assert (decision.value, decision.decided_by.layer, decision.verb) == (25, Layer.ENVIRONMENT, Verb.CEILING)


def test_person_is_told_who_locks_it_and_why() -> None:
    (notice,) = decide(documents=policies({"lock": 20, "reason": "shared host"}), person=60).notices
    assert "valve MAX_RUNTIME_SECONDS asks for 60 seconds" in notice
    assert "p1 serial 7" in notice
    assert "locks 20 seconds" in notice
    assert "shared host" in notice


def test_person_is_told_also_where_the_lock_itself_was_brought_in() -> None:
    decision = decide(environment=capped(25), documents=policies(40), person=60)
    assert decision.value == 25
    assert ["asks for 60 seconds" in notice for notice in decision.notices] == [True]


def test_person_whose_valve_agrees_with_a_lock_is_told_nothing() -> None:
    assert decide(documents=policies(20), person=20).notices == ()


# Rule 3: else valves, then defaults.


@pytest.mark.parametrize(
    ("said", "value", "layer"),
    [
        (
            {"person": 5, "admin": 20, "environment": preset(9), "documents": policies({"default": 8})},
            5,
            Layer.PERSON_VALVE,
        ),
        ({"admin": 20, "environment": preset(9), "documents": policies({"default": 8})}, 20, Layer.ADMIN_VALVE),
        ({"environment": preset(9), "documents": policies({"default": 8})}, 9, Layer.ENVIRONMENT),
        ({"documents": policies({"default": 8}, {"default": 6}, {"default": 7})}, 6, Layer.POLICY),
        ({}, 30, Layer.BUILT_IN),
    ],
    ids=["person", "administrator", "environment", "strictest policy", "built-in"],
)
def test_first_to_choose_decides(said: dict[str, Any], value: int, layer: Layer) -> None:
    decision = decide(**said)
    assert (decision.value, decision.decided_by.layer) == (value, layer)
    assert decision.notices == ()


@pytest.mark.parametrize("limit", ADMINISTRATORS, ids=lambda limit: limit.name)
def test_person_has_no_valve_for_an_administrators_limit(limit: Limit[Any]) -> None:
    decision = decide(person=limit.kind.native(limit.kind.strictest), limit=limit)
    assert decision.value == limit.built_in
    assert (limit.valve, Fate.IGNORED) in fates(decision)
    (notice,) = decision.notices
    assert "only an administrator" in notice


def test_default_of_the_environment_is_brought_within_a_policys_ceiling() -> None:
    decision = decide(environment=preset(50), documents=policies({"ceiling": 20}))
    assert (decision.value, decision.decided_by.layer) == (20, Layer.POLICY)


def test_built_in_is_brought_within_a_ceiling() -> None:
    assert decide(environment=capped(7)).value == 7


def test_administrators_valve_may_exceed_the_built_in_where_no_ceiling_speaks() -> None:
    assert decide(admin=300).value == 300
    assert decide(admin="unlimited").value is UNLIMITED


# Rule 4: then every ceiling, and what bounds a person's valve.


def test_every_ceiling_of_environment_and_files_is_met() -> None:
    said: dict[str, Any] = {"documents": policies({"ceiling": 40}, {"ceiling": 35}), "admin": 300}
    assert decide(environment=capped(50), **said).value == 35
    assert decide(environment=capped(20), **said).value == 20


def test_persons_valve_is_no_looser_than_the_built_in_where_nobody_else_speaks() -> None:
    decision = decide(person=31)
    assert (decision.value, decision.decided_by.layer) == (30, Layer.BUILT_IN)
    assert fates(decision) == [("MAX_RUNTIME_SECONDS", Fate.CLAMPED), ("built-in", Fate.WON)]
    (notice,) = decision.notices
    assert "asks for 31 seconds; built-in permits 30 seconds" in notice


def test_default_alone_does_not_raise_what_a_person_may_have() -> None:
    assert decide(environment=preset(100), documents=policies({"default": 90}), person=80).value == 30


def test_persons_valve_may_reach_a_ceiling_above_the_built_in() -> None:
    assert decide(documents=policies({"ceiling": 60}), person=50).value == 50
    assert decide(documents=policies({"ceiling": 60}), person=61).value == 60
    assert decide(environment=capped("unlimited"), person="unlimited").value is UNLIMITED


def test_persons_valve_is_no_looser_than_the_administrators() -> None:
    decision = decide(person=50, admin=40)
    assert (decision.value, decision.decided_by.layer) == (40, Layer.ADMIN_VALVE)
    assert decide(person=50, admin=60).value == 50
    assert decide(person=50, admin=10, documents=policies({"ceiling": 60})).value == 10
    assert decide(person=50, admin=60, documents=policies({"ceiling": 45})).value == 45


@pytest.mark.parametrize(
    ("limit", "person", "admin", "ceiling", "value"),
    [
        (LANGUAGES, "python,bash", None, ["bash"], frozenset({"bash"})),
        (LANGUAGES, "python", None, ["bash"], frozenset()),
        (LANGUAGES, ["python", "bash"], "python", None, frozenset({"python"})),
        (NETWORK_ALLOWLIST, None, "public:443", ["*.example.com", "10.0.0.0/8:80"], destinations("*.example.com:443")),
        (NETWORKING_ALLOWED, True, None, False, False),
        (NETWORKING_ALLOWED, "TRUE", False, None, False),
        (REQUIRE_RESOURCE_LIMITING, None, False, True, True),
    ],
    ids=[
        "narrowed",
        "nothing shared",
        "by the administrator",
        "destinations",
        "switch",
        "two switches",
        "strict is true",
    ],
)
def test_sets_intersect_and_switches_meet(
    limit: Limit[Any], person: object, admin: object, ceiling: object, value: object
) -> None:
    environment = () if ceiling is None else capped(ceiling, limit)
    assert decide(environment=environment, person=person, admin=admin, limit=limit).value == value


# Scopes: they only tighten.

STUDENT = Requester(role="user", groups=frozenset({"students"}), user="u-1", model="llama", surface="tool")
TEACHER = dataclasses.replace(STUDENT, groups=frozenset({"staff"}))


def scoped(
    *said: dict[str, Any] | object, limit: Limit[Any] = RUNTIME, unscoped: object = None
) -> tuple[PolicyDocument, ...]:
    """Make one file with a scope of students for each thing said, and perhaps something for everybody."""
    scopes = [{"match": {"groups": ["students"]}, "limits": {limit.name: each}} for each in said]
    limits = {} if unscoped is None else {limit.name: unscoped}
    text = text_of(limits or {"debug": False}, id="p1", scope=scopes)
    return (parse_document(source_of(text, origin="p1.toml")),)


def test_scope_holds_for_its_own_and_for_nobody_else() -> None:
    documents = scoped({"ceiling": 10}, unscoped={"ceiling": 60})
    assert decide(documents=documents, person=50, requester=STUDENT).value == 10
    assert decide(documents=documents, person=50, requester=TEACHER).value == 50
    assert decide(documents=documents, person=50, requester=UNDETERMINED).value == 10


def test_ceilings_of_all_matching_scopes_are_met_whatever_their_order() -> None:
    for ceilings in (10, 20, 15), (20, 15, 10):
        documents = scoped(*({"ceiling": each} for each in ceilings), unscoped={"ceiling": 60})
        assert decide(documents=documents, person=50, requester=STUDENT).value == 10


def test_ceiling_of_a_scope_does_not_lift_what_a_person_may_have() -> None:
    documents = scoped({"ceiling": 60})
    assert decide(documents=documents, person=50, requester=STUDENT).value == 30
    assert decide(documents=documents, person=50, requester=TEACHER).value == 30
    assert decide(documents=documents, person=50, requester=UNDETERMINED).value == 30
    assert decide(documents=scoped({"ceiling": 20}), person=50, requester=STUDENT).value == 20


@pytest.mark.parametrize(
    "opened",
    [
        {"documents": scoped({"ceiling": 60}, unscoped={"ceiling": 90})},
        {"documents": scoped({"ceiling": 60}), "environment": capped(90)},
        {"documents": scoped({"ceiling": 60}), "admin": 90},
    ],
    ids=["a file's own ceiling", "the environment's ceiling", "the administrator's valve"],
)
def test_person_may_reach_the_ceiling_of_a_scope_where_somebody_else_lifts_the_bound(opened: dict[str, Any]) -> None:
    assert decide(**opened, person=70, requester=STUDENT).value == 60


@pytest.mark.parametrize("verb", ["lock", "default"])
def test_what_a_scope_alone_states_is_held_to_the_bounds_of_a_persons_valve(verb: str) -> None:
    loose = scoped({verb: 50})
    assert decide(documents=loose, requester=STUDENT).value == 30
    assert decide(documents=loose, requester=STUDENT).decided_by.layer is Layer.BUILT_IN
    assert decide(documents=loose, requester=STUDENT, environment=capped(60)).value == 50
    assert decide(documents=scoped({verb: 50}, unscoped={"ceiling": 40}), requester=STUDENT).value == 40
    assert decide(documents=scoped({verb: 20}), requester=STUDENT).value == 20
    assert decide(documents=loose, requester=TEACHER).value == 30


def test_lock_that_a_scope_alone_states_is_held_to_the_administrators_valve() -> None:
    assert decide(documents=scoped({"lock": 50}), admin=40, requester=STUDENT).value == 40
    assert decide(documents=scoped({"lock": 50}), admin="x", requester=STUDENT).value == 1
    assert decide(documents=scoped({"lock": 50}), admin=60, requester=STUDENT).value == 50


@pytest.mark.parametrize("verb", ["lock", "default"])
@pytest.mark.parametrize(
    ("below", "value"),
    [
        ({}, 2),
        ({"environment": preset(3, MAX_CONCURRENT_RUNS)}, 3),
        ({"admin": 4}, 4),
        ({"environment": capped(9, MAX_CONCURRENT_RUNS)}, 2),
    ],
    ids=["built-in", "environment's default", "administrator's valve", "under a ceiling"],
)
def test_scope_gives_no_more_of_an_administrators_limit_than_there_is_without_it(
    verb: str, below: dict[str, Any], value: int
) -> None:
    """A person cannot choose here, so a scope's own value past what would hold could be had by hiding."""
    documents = scoped({verb: 8}, limit=MAX_CONCURRENT_RUNS)
    assert decide(**below, documents=documents, requester=STUDENT, limit=MAX_CONCURRENT_RUNS).value == value
    assert decide(**below, documents=documents, requester=TEACHER, limit=MAX_CONCURRENT_RUNS).value == value


def test_scopes_that_lock_and_preset_an_administrators_limit_give_the_stricter() -> None:
    documents = scoped({"lock": 8}, {"default": 1}, limit=MAX_CONCURRENT_RUNS, unscoped={"ceiling": 9})
    assert decide(documents=documents, requester=STUDENT, limit=MAX_CONCURRENT_RUNS).value == 1
    assert decide(documents=documents, requester=STUDENT, admin=5, limit=MAX_CONCURRENT_RUNS).value == 5
    both_loose = scoped({"lock": 8}, {"default": 7}, limit=MAX_CONCURRENT_RUNS, unscoped={"ceiling": 9})
    assert decide(documents=both_loose, requester=STUDENT, limit=MAX_CONCURRENT_RUNS).value == 2


def test_strictest_lock_of_files_and_scopes_decides() -> None:
    documents = scoped({"lock": 20}, {"lock": 15}, unscoped={"lock": 40})
    assert decide(documents=documents, person=5, requester=STUDENT).value == 15
    assert decide(documents=documents, person=5, requester=TEACHER).value == 40
    assert decide(documents=scoped({"lock": 50}, unscoped={"lock": 40}), requester=STUDENT).value == 40


def test_locks_of_scopes_meet_as_sets() -> None:
    documents = scoped({"lock": ["python"]}, {"lock": ["bash"]}, limit=LANGUAGES)
    assert decide(documents=documents, requester=STUDENT, limit=LANGUAGES).value == frozenset()
    assert decide(documents=documents, requester=TEACHER, limit=LANGUAGES).value == {"python", "bash"}


def test_default_of_a_scope_is_met_with_the_files_own() -> None:
    documents = scoped({"default": 20}, unscoped={"default": 50})
    assert decide(documents=documents, requester=STUDENT).value == 20
    assert decide(documents=documents, requester=TEACHER).value == 50
    assert decide(documents=scoped({"default": 60}, unscoped={"default": 50}), requester=STUDENT).value == 50


def test_default_of_a_scope_is_below_the_environments_and_below_every_valve() -> None:
    documents = scoped({"default": 5})
    assert decide(documents=documents, environment=preset(9), requester=STUDENT).value == 9
    assert decide(documents=documents, person=12, requester=STUDENT).value == 12
    assert decide(documents=documents, admin=40, requester=STUDENT).value == 40


@pytest.mark.parametrize(("firm", "value"), [(True, 10), (False, 100)], ids=["firm", "not firm"])
def test_environment_lock_meets_scopes_as_it_meets_files(firm: bool, value: int) -> None:  # noqa: FBT001 -- a table
    documents = scoped({"ceiling": 10, "env_may_loosen": not firm})
    decision = decide(environment=locked(100), documents=documents, requester=STUDENT)
    assert decision.value == value
    (notice,) = decision.notices
    assert "for groups students" in notice
    assert decide(environment=locked(100), documents=documents, requester=TEACHER).value == 100
    assert decide(environment=locked(100), documents=documents, requester=TEACHER).notices == ()


def test_scope_for_others_is_listed_as_ignored_and_says_why() -> None:
    documents = scoped({"ceiling": 10, "default": 5}, unscoped={"ceiling": 60})
    decision = decide(documents=documents, person=50, requester=TEACHER)
    assert [(each.origin.layer.value, each.verb.value, each.text, each.fate.value) for each in decision.candidates] == [
        ("policy", "ceiling", "60", "shadowed"),
        ("valve", "choice", "50", "won"),
        ("built-in", "default", "30", "shadowed"),
        ("policy", "ceiling", "10", "ignored"),
        ("policy", "default", "5", "ignored"),
    ]
    assert {each.note for each in decision.candidates[3:]} == {"its scope is not for this request"}
    assert decision.notices == ()
    only = decide(documents=scoped({"ceiling": 10}), requester=TEACHER)
    assert [each.fate for each in only.candidates] == [Fate.WON, Fate.IGNORED]


def test_person_is_told_which_scope_brought_theirs_in() -> None:
    documents = scoped({"ceiling": 10, "reason": "one small host"}, unscoped={"ceiling": 60})
    decision = decide(documents=documents, person=50, requester=STUDENT)
    (notice,) = decision.notices
    assert decision.decided_by.scope == "for groups students"
    assert notice.startswith("The valve MAX_RUNTIME_SECONDS asks for 50 seconds; p1 serial 7 (p1.toml:")
    assert notice.endswith(", for groups students, unverified) permits 10 seconds (one small host).")


def test_same_scope_in_one_line_twice_wins_once() -> None:
    scope = '{ match.groups = ["students"], limits.max_runtime_seconds.ceiling = 10 }'
    text = f"scope = [{scope}, {scope}]\n{text_of({'debug': False})}"
    decision = decide(documents=(parse_document(source_of(text)),), requester=STUDENT)
    assert decision.value == 10
    assert [each.fate for each in decision.candidates] == [Fate.WON, Fate.SHADOWED, Fate.CLAMPED]


def test_attribute_out_of_a_scopes_reach_changes_nothing() -> None:
    documents = scoped({"ceiling": 10})
    for other in (dataclasses.replace(TEACHER, user=None), dataclasses.replace(TEACHER, model="qwen")):
        assert decide(documents=documents, requester=other).value == 30


# Lockdown: above everything, the environment too.

WHY = "the policy set has been refused for two days"


@EVERY_LIMIT
def test_lockdown_bounds_every_limit_by_its_lockdown_value(limit: Limit[Any]) -> None:
    decision = decide(admin=limit.kind.native(loosest(limit)), limit=limit, lockdown=WHY)
    assert decision.value == limit.lockdown
    assert limit.kind.within(limit.lockdown, limit.built_in)
    assert decision.candidates[0].origin.layer is Layer.LOCKDOWN
    assert (decision.candidates[0].verb, decision.candidates[0].text) == (Verb.CEILING, limit.kind.text(limit.lockdown))


def test_lockdown_says_in_the_provenance_why_it_holds() -> None:
    decision = decide(lockdown=WHY)
    assert (decision.value, decision.verb, decision.decided_by.layer) == (10, Verb.CEILING, Layer.LOCKDOWN)
    assert (str(decision.decided_by), decision.decided_by.reason) == ("lockdown", WHY)
    assert fates(decision) == [("lockdown", Fate.WON), ("built-in", Fate.CLAMPED)]
    told = resolve(Layers(lockdown=WHY)).as_json()["limits"]["max_runtime_seconds"]
    assert (told["decided_by"], told["statement"], told["reason"]) == ("lockdown", "ceiling", WHY)


def test_lockdown_is_above_an_environment_lock_and_says_so() -> None:
    decision = decide(environment=locked(100), lockdown=WHY)
    assert (decision.value, decision.decided_by.layer) == (10, Layer.LOCKDOWN)
    assert decision.notices == (
        f"SANDBOX_MAX_RUNTIME_SECONDS asks for 100 seconds; lockdown permits 10 seconds ({WHY}).",
    )
    assert fates(decision)[:2] == [("lockdown", Fate.WON), ("SANDBOX_MAX_RUNTIME_SECONDS", Fate.CLAMPED)]


def test_lockdown_only_ever_tightens() -> None:
    assert decide(environment=locked(5), lockdown=WHY).value == 5
    assert decide(documents=policies({"ceiling": 7}), lockdown=WHY).value == 7
    assert decide(documents=policies(4), lockdown=WHY).value == 4
    assert decide(person=3, admin=20, lockdown=WHY).value == 3
    assert decide(environment=locked(5), lockdown=WHY).notices == ()


def test_lockdown_does_not_lift_what_a_person_may_have() -> None:
    decision = decide(person=64, limit=MAX_RAM_MEGABYTES, lockdown=WHY)
    assert (decision.value, decide(person=512, limit=MAX_RAM_MEGABYTES, lockdown=WHY).value) == (64, 128)


def test_person_is_told_of_the_lockdown() -> None:
    (notice,) = decide(person=20, lockdown=WHY).notices
    assert notice == f"The valve MAX_RUNTIME_SECONDS asks for 20 seconds; lockdown permits 10 seconds ({WHY})."


def test_lock_that_loosens_a_policy_is_reported_under_lockdown_too() -> None:
    decision = decide(environment=locked(100), documents=policies({"ceiling": 5}), lockdown=WHY)
    assert decision.value == 10
    assert ["loosens" in notice for notice in decision.notices] == [False, True]


# Malformed valves.

MALFORMED = [
    "",
    "x",
    " 5",
    "5 ",
    "+5",
    "1_000",
    "-1",
    "0",
    "\u0663",
    "86401",
    0,
    -1,
    5.0,
    2**70,
    True,
    [],
    {},
    [5],
    b"5",
]


@pytest.mark.parametrize("stored", MALFORMED, ids=ascii)
def test_persons_malformed_valve_is_ignored_with_a_notice(stored: object) -> None:
    decision = decide(person=stored, admin=20)
    assert (decision.value, decision.decided_by.layer) == (20, Layer.ADMIN_VALVE)
    assert fates(decision)[0] == ("MAX_RUNTIME_SECONDS", Fate.INVALID)
    (notice,) = decision.notices
    assert "The valve MAX_RUNTIME_SECONDS is ignored" in notice
    assert "expected a whole number" in notice


@pytest.mark.parametrize("stored", MALFORMED, ids=ascii)
def test_administrators_malformed_valve_is_the_strict_end_with_a_notice(stored: object) -> None:
    decision = decide(admin=stored)
    assert (decision.value, decision.decided_by.layer) == (1, Layer.ADMIN_VALVE)
    (notice,) = decision.notices
    assert "The admin-valve MAX_RUNTIME_SECONDS cannot be read" in notice
    assert "1 second holds" in notice


def test_administrators_malformed_valve_bounds_the_persons() -> None:
    decision = decide(admin="x", person=20)
    assert decision.value == 1
    assert len(decision.notices) == 2


def test_both_valves_malformed_is_the_strict_end() -> None:
    decision = decide(admin="x", person="y")
    assert decision.value == 1
    assert len(decision.notices) == 2


@EVERY_LIMIT
def test_administrators_malformed_valve_is_the_strict_end_of_every_limit(limit: Limit[Any]) -> None:
    assert decide(admin={"a": "table"}, limit=limit).value == limit.kind.strictest


def test_malformed_valve_is_below_a_lock_all_the_same() -> None:
    assert decide(environment=locked(20), admin="x", person="y").value == 20
    assert decide(documents=policies(20), admin="x", person="y").value == 20


def test_valve_of_none_counts_as_not_set() -> None:
    decision = decide(person=None, admin=None)
    assert (decision.value, decision.notices, len(decision.candidates)) == (30, (), 1)


@pytest.mark.parametrize(
    "stored",
    ["9" * 10_000_000, "\x00\u202e\ud800" * 1000, 10**6000, ["x" * 10_000] * 1000],
    ids=["digits", "controls", "number", "list"],
)
def test_hostile_valve_makes_a_short_printable_notice(stored: object) -> None:
    decision = decide(person=stored)
    (notice,) = decision.notices
    assert len(notice) < 700  # an escape takes six characters
    assert notice.isprintable()
    assert all(len(candidate.text) < 600 and candidate.text.isprintable() for candidate in decision.candidates)


def test_valves_by_another_name_are_none() -> None:
    valves = {"max_runtime_seconds": 5, "MAX_RUNTIME": 5, "SANDBOX_MAX_RUNTIME_SECONDS": 5}
    assert resolve(Layers(untrusted_person_valves=valves, untrusted_admin_valves=valves))[RUNTIME] == 30


# Provenance.


def test_every_candidate_is_listed_with_what_became_of_it() -> None:
    decision = decide(
        environment=(*capped(50), *preset(45)),
        documents=policies({"ceiling": 40, "default": 10}, {"ceiling": 60}),
        person=55,
        admin=52,
    )
    assert decision.value == 40
    assert [(each.origin.layer.value, each.verb.value, each.text, each.fate.value) for each in decision.candidates] == [
        ("environment", "ceiling", "50", "shadowed"),
        ("environment", "default", "45", "shadowed"),
        ("policy", "ceiling", "40", "won"),
        ("policy", "default", "10", "shadowed"),
        ("policy", "ceiling", "60", "shadowed"),
        ("valve", "choice", "55", "clamped"),
        ("admin-valve", "choice", "52", "shadowed"),
        ("built-in", "default", "30", "shadowed"),
    ]


def test_origin_of_a_policy_names_file_line_serial_and_keys() -> None:
    decision = decide(documents=policies({"ceiling": 5}))
    origin = decision.decided_by
    assert (origin.policy_id, origin.serial, origin.key_ids) == ("p1", 7, ())
    assert origin.place.startswith("p1.toml:")
    assert str(origin) == f"p1 serial 7 ({origin.place}, unverified)"
    assert "unsigned" not in str(dataclasses.replace(origin, key_ids=("sha256:aa",)))


def test_several_ceilings_that_bring_a_set_in_together_all_won() -> None:
    documents = (
        document_of({"network_allowlist": {"ceiling": ["a.example", "b.example"]}}, "p1"),
        document_of({"network_allowlist": {"ceiling": ["b.example", "c.example"]}}, "p2"),
    )
    decision = decide(documents=documents, admin="a.example,b.example,c.example", limit=NETWORK_ALLOWLIST)
    assert decision.value == destinations("b.example")
    assert [candidate.fate for candidate in decision.candidates] == [Fate.WON, Fate.WON, Fate.CLAMPED, Fate.SHADOWED]


def test_policies_that_took_part_are_named() -> None:
    effective = resolve(Layers(documents=policies({"ceiling": 5}, {"ceiling": 6})))
    assert [(policy.policy_id, policy.serial) for policy in effective.policies] == [("p1", 7), ("p2", 7)]


def test_notices_are_those_of_every_limit_in_the_tables_order() -> None:
    valves = {"MAX_OUTPUT_KILOBYTES": "x", "MAX_RUNTIME_SECONDS": 60, "MAX_CPUS": 0.1}
    effective = resolve(Layers(untrusted_person_valves=valves))
    assert effective[MAX_CPUS] == MAX_CPUS.kind.parse("0.1")
    assert effective[MAX_OUTPUT_KILOBYTES] == 256
    assert ["MAX_RUNTIME_SECONDS" in notice for notice in effective.notices] == [True, False]


# Laws.

SOME_LIMITS: tuple[Limit[Any], ...] = (
    RUNTIME,
    MAX_OUTPUT_KILOBYTES,
    MAX_CPUS,
    MAX_INSTANCE_RUNS,
    NETWORKING_ALLOWED,
    REQUIRE_RESOURCE_LIMITING,
    LANGUAGES,
    NETWORK_ALLOWLIST,
)
SOME = st.sampled_from(SOME_LIMITS)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(1, 200)
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(["unlimited", "none", "public", "python", "-1", "1e9", " 5", "\u0665", "true", 10**400, -(2**63)])
    | st.binary(max_size=5)
)
GARBAGE = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@st.composite
def said_of(draw: st.DrawFn, limit: Limit[Any], layer: Layer, place: str) -> tuple[Stated, ...]:
    """Draw what one layer says of a limit: a lock, or a ceiling and a default within it, or less."""
    value = values_of(limit.kind)
    said: dict[Verb, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        said[Verb.LOCK] = draw(value)
    else:
        if draw(st.booleans()):
            said[Verb.CEILING] = draw(value)
        if draw(st.booleans()):
            said[Verb.DEFAULT] = limit.kind.meet(
                draw(value), said.get(Verb.CEILING, limit.kind.meet(draw(value), draw(value)))
            )
    firm = layer is Layer.POLICY and draw(st.booleans())
    return tuple(
        Stated(
            limit=limit,
            verb=verb,
            value=each,
            origin=Origin(layer=layer, place=f"{place}:{verb.value}", policy_id=place, serial=7),
            environment_may_loosen=not firm,
        )
        for verb, each in said.items()
    )


@st.composite
def layers_of(draw: st.DrawFn, limit: Limit[Any]) -> Layers:
    names = draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3))
    stored = GARBAGE | values_of(limit.kind).map(limit.kind.native) | values_of(limit.kind).map(limit.kind.text)
    return Layers(
        environment=draw(st.just(()) | said_of(limit, Layer.ENVIRONMENT, "environment")),
        documents=tuple(document_saying(name, *draw(said_of(limit, Layer.POLICY, name))) for name in names),
        untrusted_person_valves=draw(st.none() | stored.map(lambda value: {limit.valve: value})),
        untrusted_admin_valves=draw(st.none() | stored.map(lambda value: {limit.valve: value})),
    )


def readable(limit: Limit[Any], stored: object) -> Any:  # noqa: ANN401 -- a value of the limit's kind
    try:
        return from_untrusted_valve(limit.kind, stored)
    except ValueError:
        return None


def expected(limit: Limit[Any], layers: Layers) -> Any:  # noqa: ANN401 -- a value of the limit's kind
    """Resolve one limit by the design's four rules, with nothing about who, why and what else."""
    meet, strictest = limit.kind.meet, limit.kind.strictest
    policy = [stated for document in layers.documents for stated in document.statements]
    environment = {stated.verb: stated.value for stated in layers.environment}
    said = {verb: [stated.value for stated in policy if stated.verb is verb] for verb in Verb}
    if Verb.LOCK in environment:
        firm = [
            stated.value for stated in policy if not stated.environment_may_loosen and stated.verb is not Verb.DEFAULT
        ]
        return reduce(meet, firm, environment[Verb.LOCK])
    person = (layers.untrusted_person_valves or {}).get(limit.valve)
    admin = (layers.untrusted_admin_valves or {}).get(limit.valve)
    person = readable(limit, person) if limit in PERSONS and person is not None else None
    if admin is not None:
        admin = readable(limit, admin)
        admin = strictest if admin is None else admin
    ceilings = [*said[Verb.CEILING], *([environment[Verb.CEILING]] if Verb.CEILING in environment else [])]
    if said[Verb.LOCK]:
        value = reduce(meet, said[Verb.LOCK])
    elif person is not None:
        bounds = [*ceilings, *([] if admin is None else [admin])] or [limit.built_in]
        value = reduce(meet, bounds, person)
    elif admin is not None:
        value = admin
    else:
        value = environment.get(
            Verb.DEFAULT, reduce(meet, said[Verb.DEFAULT]) if said[Verb.DEFAULT] else limit.built_in
        )
    return reduce(meet, ceilings, value)


def value_of(limit: Limit[Any], layers: Layers) -> Any:  # noqa: ANN401 -- a value of the limit's kind
    return resolve(layers).decisions[limit.name].value


@settings(max_examples=300)
@given(data=st.data())
def test_resolving_follows_the_four_rules(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    layers = data.draw(layers_of(limit))
    decision = resolve(layers).decisions[limit.name]
    assert decision.value == expected(limit, layers)
    assert limit.kind.from_native(limit.kind.native(decision.value)) == decision.value
    assert decision.candidates[-1].origin.layer is Layer.BUILT_IN
    assert sum(each.fate in {Fate.WON, Fate.INVALID} for each in decision.candidates) >= 1
    assert all(isinstance(each, Candidate) and each.text.isprintable() for each in decision.candidates)


@settings(max_examples=60)
@given(data=st.data())
def test_resolving_is_deterministic_and_independent_of_the_order_of_files(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    layers = data.draw(layers_of(limit))
    shuffled = dataclasses.replace(layers, documents=tuple(data.draw(st.permutations(layers.documents))))
    assert resolve(shuffled).as_json() == resolve(layers).as_json()
    assert resolve(layers).digest == resolve(layers).digest


@settings(max_examples=100)
@given(data=st.data())
def test_no_valve_reaches_past_a_ceiling_or_a_lock(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    layers = data.draw(layers_of(limit))
    unset = dataclasses.replace(layers, untrusted_person_valves=None, untrusted_admin_valves=None)
    value, without = value_of(limit, layers), value_of(limit, unset)
    said = [*layers.environment, *(stated for document in layers.documents for stated in document.statements)]
    verbs = {stated.verb for stated in said}
    if Verb.LOCK in verbs:
        assert value == without
    else:
        assert all(limit.kind.within(value, stated.value) for stated in said if stated.verb is Verb.CEILING)
    if Verb.CEILING not in verbs and layers.untrusted_admin_valves is None:
        assert limit.kind.within(value, limit.built_in) or value == without


@settings(max_examples=60)
@given(data=st.data())
def test_persons_valve_never_loosens_an_administrators(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    layers = data.draw(
        layers_of(limit).filter(lambda layers: (layers.untrusted_admin_valves or {}).get(limit.valve) is not None)
    )
    unset = dataclasses.replace(layers, untrusted_person_valves=None)
    assert limit.kind.within(value_of(limit, layers), value_of(limit, unset))


@settings(max_examples=100)
@given(data=st.data())
def test_another_ceiling_never_loosens(data: st.DataObject) -> None:
    limit = data.draw(SOME)
    layers = data.draw(layers_of(limit))
    # Where nothing else bounds a person's valve, the built-in does: a first ceiling may set that bound higher.
    first = Stated(
        limit=limit,
        verb=Verb.CEILING,
        value=data.draw(values_of(limit.kind)),
        origin=Origin(layer=Layer.POLICY, place="first"),
    )
    bounded = dataclasses.replace(layers, documents=(*layers.documents, document_saying("first", first)))
    second = dataclasses.replace(
        first, value=data.draw(values_of(limit.kind)), origin=Origin(layer=Layer.POLICY, place="second")
    )
    tightened = dataclasses.replace(bounded, documents=(*bounded.documents, document_saying("second", second)))
    value = value_of(limit, tightened)
    assert limit.kind.within(value, value_of(limit, bounded))
    if not any(stated.verb is Verb.LOCK for stated in layers.environment):
        assert limit.kind.within(value, first.value)
        assert limit.kind.within(value, second.value)


@settings(max_examples=60)
@given(valves=st.dictionaries(st.sampled_from([limit.valve for limit in LIMITS]), GARBAGE), admin=st.booleans())
def test_no_valves_whatever_they_hold_raise(valves: dict[str, object], admin: bool) -> None:  # noqa: FBT001 -- drawn
    layers = Layers(untrusted_admin_valves=valves) if admin else Layers(untrusted_person_valves=valves)
    effective = resolve(layers)
    if not admin:
        assert all(limit.kind.within(effective[limit], limit.built_in) for limit in LIMITS)
        assert all(effective[limit] == limit.built_in for limit in ADMINISTRATORS)
