"""Valves: plain types for Open WebUI's form, whatever is stored is accepted, and each says how far it reaches."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from plugins.valves import admin_valves_model, person_valves_model, untrusted_values
from policy.document import PolicyDocument, parse_document
from policy.environment import read_environment
from policy.errors import ConfigurationError, Problem, SetRefusedError
from policy.limits import LIMITS, Chooser
from policy.situation import Situation, StandIn
from tests.policy.factories import document_of, source_of, text_of

GARBAGE: dict[str, Any] = {
    "text": "as much as possible",
    "empty text": "",
    "control characters": "\x00\x1b[31m\ud800",
    "list": ["python", 7, None],
    "none": None,
    "huge": 10**5000,
    "negative": -1,
    "not a number": math.nan,
    "infinity": math.inf,
    "nested": {"a": {"b": [{"c": {}}] * 3}},
    "object": object(),
    "bytes": b"\xff",
    "date": datetime(2026, 11, 1, tzinfo=UTC),
}
PERSONS = [limit.valve for limit in LIMITS if limit.chosen_by is Chooser.PERSON]


def situation_of(*documents: PolicyDocument, **variables: str) -> Situation:
    return Situation(environment=read_environment(variables), documents=documents)


def description_of(valve: str, situation: Situation, *, person: bool = True) -> str:
    model = person_valves_model(situation) if person else admin_valves_model(situation)
    return str(model.model_json_schema()["properties"][valve]["description"])


def test_administrators_have_a_valve_for_every_limit() -> None:
    assert list(admin_valves_model(situation_of()).model_fields) == [limit.valve for limit in LIMITS]


def test_people_have_valves_only_for_what_the_table_leaves_to_them() -> None:
    fields = person_valves_model(situation_of()).model_fields

    assert list(fields) == PERSONS
    assert "DEBUG" not in fields
    assert "NETWORK_PRIVATE_ALLOWED" not in fields


def test_schema_advertises_one_plain_type_for_each_valve() -> None:
    properties = admin_valves_model(situation_of()).model_json_schema()["properties"]

    assert {name: entry["type"] for name, entry in properties.items()} == {
        "NETWORKING_ALLOWED": "boolean",
        "MAX_RUNTIME_SECONDS": "integer",
        "MAX_RAM_MEGABYTES": "integer",
        "AUTO_INSTALL": "boolean",
        "NETWORK_ALLOWLIST": "string",
        "NETWORK_PRIVATE_ALLOWED": "boolean",
        "MAX_CPUS": "number",
        "MAX_PROCESSES": "integer",
        "MAX_DISK_MEGABYTES": "integer",
        "MAX_OUTPUT_KILOBYTES": "integer",
        "MAX_FILE_MEGABYTES": "integer",
        "MAX_CONCURRENT_RUNS": "integer",
        "MAX_INSTANCE_RUNS": "integer",
        "LANGUAGES": "string",
        "REQUIRE_RESOURCE_LIMITING": "boolean",
        "DEBUG": "boolean",
    }
    assert {key for entry in properties.values() for key in entry} == {"default", "description", "title", "type"}
    assert "required" not in admin_valves_model(situation_of()).model_json_schema()


def test_schema_is_read_by_the_old_name_that_open_webui_calls() -> None:
    model = person_valves_model(situation_of())

    with pytest.deprecated_call():
        old = model.schema()
    assert old == model.model_json_schema()


@pytest.mark.parametrize("make", [admin_valves_model, person_valves_model])
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_no_stored_value_makes_the_valves_raise(make: Any, garbage: object) -> None:  # noqa: ANN401 -- a function
    model: type[BaseModel] = make(situation_of())
    stored = dict.fromkeys([*model.model_fields, "UNKNOWN", "with space"], garbage)

    valves = model(**stored)

    assert all(value is garbage for value in untrusted_values(valves).values())


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_all_valves_still_gives_limits_none_looser_than_the_built_in(garbage: object) -> None:
    stored = dict.fromkeys([limit.valve for limit in LIMITS], garbage)

    limits = situation_of().limits(untrusted_person_valves=stored, untrusted_admin_valves=stored)

    for limit in LIMITS:
        assert limit.kind.within(limits[limit], limit.built_in), limit.name


@given(
    stored=st.dictionaries(
        st.one_of(st.sampled_from([limit.valve for limit in LIMITS]), st.text(max_size=5)),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=6,
    )
)
def test_whatever_json_a_person_stores_gives_limits_none_looser_than_the_built_in(stored: dict[str, Any]) -> None:
    valves = person_valves_model(situation_of())(**stored)

    limits = situation_of().limits(untrusted_person_valves=untrusted_values(valves))

    assert [limit.name for limit in LIMITS if not limit.kind.within(limits[limit], limit.built_in)] == []


def test_saved_valves_keep_only_what_somebody_set() -> None:
    valves = admin_valves_model(situation_of())(MAX_CPUS=0.5, UNKNOWN=1)

    assert valves.model_dump(exclude_unset=True) == {"MAX_CPUS": 0.5}


@pytest.mark.parametrize(
    ("valves", "values"),
    [
        (None, {}),
        ("text", {}),
        (7, {}),
        ([("MAX_CPUS", 4)], {}),
        ({}, {}),
        ({"MAX_CPUS": 4}, {"MAX_CPUS": 4}),
        ({7: "x"}, {7: "x"}),
    ],
    ids=str,
)
def test_valves_of_any_form_are_read_as_values(valves: object, values: dict[object, object]) -> None:
    assert untrusted_values(valves) == values


def test_valves_that_open_webui_made_are_read_as_values() -> None:
    valves = person_valves_model(situation_of())(MAX_CPUS=4)

    assert untrusted_values(valves)["MAX_CPUS"] == 4


def test_description_says_what_the_valve_is_and_what_may_be_set() -> None:
    assert description_of("MAX_RUNTIME_SECONDS", situation_of()) == (
        "Wall clock for the code, from the moment its interpreter is ready. "
        "Expected: a whole number in plain digits from 1 to 86400 or unlimited. Unset: 30 seconds. "
        "No looser than what the administrator's valve says, or else 30 seconds."
    )


def test_description_for_administrators_says_that_nothing_constrains_a_valve() -> None:
    text = description_of("MAX_RUNTIME_SECONDS", situation_of(), person=False)

    assert text.endswith("Unset: 30 seconds. Nothing constrains this valve here.")


@pytest.mark.parametrize("person", [True, False], ids=["person", "administrator"])
def test_description_names_the_variable_that_locks(person: bool) -> None:  # noqa: FBT001 -- a parameter of the table
    text = description_of("NETWORKING_ALLOWED", situation_of(SANDBOX_NETWORKING_ALLOWED="false"), person=person)

    assert text.endswith("**Locked to false by SANDBOX_NETWORKING_ALLOWED: this valve changes nothing.**")


def test_description_names_the_policy_that_locks_and_its_reason() -> None:
    document = document_of({"max_cpus": {"lock": 0.5, "reason": "shared host"}})

    text = description_of("MAX_CPUS", situation_of(document))

    assert "**Locked to 0.5 CPUs by acme-prod serial 7 (acme-prod.toml:" in text
    assert text.endswith("unverified) (shared host): this valve changes nothing.**")


def test_description_names_the_tightest_ceiling_and_its_reason() -> None:
    document = document_of({"max_cpus": {"ceiling": 0.5, "reason": "shared host"}})

    text = description_of("MAX_CPUS", situation_of(document, SANDBOX_MAX_CPUS__CEILING="2"))

    assert "No looser than 0.5 CPUs, by acme-prod serial 7 (acme-prod.toml:" in text
    assert text.endswith("unverified) (shared host).")


def test_description_gives_the_meet_of_ceilings_of_which_none_is_the_tightest() -> None:
    one, other = (
        document_of({"languages": {"ceiling": ["python"]}}, "one"),
        document_of({"languages": {"ceiling": ["bash"]}}, "two"),
    )

    assert "No looser than none, by one serial 7" in description_of("LANGUAGES", situation_of(one, other))


def test_ceiling_inside_a_lock_is_told_as_a_lock() -> None:
    document = document_of({"max_runtime_seconds": {"lock": 60}})

    text = description_of("MAX_RUNTIME_SECONDS", situation_of(document, SANDBOX_MAX_RUNTIME_SECONDS__CEILING="10"))

    assert text.endswith(
        "**Locked to 10 seconds by SANDBOX_MAX_RUNTIME_SECONDS__CEILING: this valve changes nothing.**"
    )


def test_environment_lock_that_a_policy_holds_back_is_told_as_a_lock() -> None:
    document = document_of({"max_runtime_seconds": {"ceiling": 60, "env_may_loosen": False, "reason": "shared host"}})

    text = description_of("MAX_RUNTIME_SECONDS", situation_of(document, SANDBOX_MAX_RUNTIME_SECONDS="600"))

    assert "**Locked to 60 seconds by acme-prod serial 7 (" in text
    assert text.endswith("(shared host): this valve changes nothing.**")


def scoped_document(policy_id: str = "acme-prod", **limits: Any) -> PolicyDocument:  # noqa: ANN401 -- any TOML
    """A policy that holds everybody to 60 seconds, and students to these limits."""
    scope = {"match": {"groups": ["students"]}, "limits": limits}
    text = text_of({"max_runtime_seconds": {"ceiling": 60}}, id=policy_id, scope=[scope])
    return parse_document(source_of(text, origin=f"{policy_id}.toml"))


def test_description_tells_only_what_holds_for_everybody_and_that_some_may_have_less() -> None:
    document = scoped_document(max_runtime_seconds={"ceiling": 2}, networking_allowed=False)

    runtime, networking, cpus = (
        description_of(valve, situation_of(document))
        for valve in ("MAX_RUNTIME_SECONDS", "NETWORKING_ALLOWED", "MAX_CPUS")
    )

    assert "No looser than 60 seconds, by acme-prod serial 7 (acme-prod.toml:" in runtime
    assert runtime.endswith("unverified). A policy may hold some people to less (acme-prod).")
    assert networking.endswith("or else true. A policy may hold some people to less (acme-prod).")
    assert "Locked" not in networking
    assert "some people" not in cpus


def test_lock_for_everybody_is_told_as_it_is_beside_a_stricter_scope() -> None:
    document = scoped_document(max_runtime_seconds={"ceiling": 2})
    locking = document_of({"max_runtime_seconds": {"lock": 30}}, "base")

    text = description_of("MAX_RUNTIME_SECONDS", situation_of(document, locking))

    assert "**Locked to 30 seconds by base serial 7 (" in text
    assert text.endswith("changes nothing.** A policy may hold some people to less (acme-prod).")


def test_description_names_every_policy_that_holds_some_to_less() -> None:
    two = (scoped_document("b", max_cpus=0.5), scoped_document("a", max_cpus={"ceiling": 0.5}))

    assert description_of("MAX_CPUS", situation_of(*two)).endswith("some people to less (a, b).")


def test_scope_that_only_has_a_default_holds_nobody_to_less() -> None:
    document = scoped_document(max_cpus={"default": 0.5})

    assert "some people" not in description_of("MAX_CPUS", situation_of(document))


@pytest.mark.parametrize(
    ("firm", "told"), [(True, "A policy may hold some people to less (acme-prod)."), (False, "changes nothing.**")]
)
def test_scope_under_an_environment_lock_is_told_only_where_it_holds(firm: bool, told: str) -> None:  # noqa: FBT001
    document = scoped_document(max_cpus={"ceiling": 0.5, "env_may_loosen": not firm})

    text = description_of("MAX_CPUS", situation_of(document, SANDBOX_MAX_CPUS="2"))

    assert "**Locked to 2 CPUs by SANDBOX_MAX_CPUS" in text
    assert text.endswith(told)


def test_description_says_that_an_earlier_policy_set_stands_in() -> None:
    problem = Problem(key="acme.toml", origin="acme.toml:1", reason="it has expired", remedy="Renew it")
    refusal = SetRefusedError("expired", (problem,))
    stand_in = StandIn(refusal=refusal, until=datetime(2026, 11, 2, tzinfo=UTC), locked_down=False)

    text = description_of("MAX_CPUS", replace(situation_of(), stand_in=stand_in))

    assert text.endswith(f" **{stand_in.sentence}**")


def test_description_of_private_destinations_warns_of_the_lan() -> None:
    warned = [
        limit.name
        for limit in LIMITS
        if "LAN and metadata" in description_of(limit.valve, situation_of(), person=False)
    ]

    assert warned == ["network_private_allowed"]


def test_description_says_that_no_code_runs_and_why() -> None:
    problem = Problem(key="SANDBOX_DEBUG", origin="environment", reason="it is set but empty", remedy="Unset it")

    schema = person_valves_model(ConfigurationError((problem,))).model_json_schema()

    for entry in schema["properties"].values():
        assert entry["description"].endswith(
            "**No code runs at present: environment: SANDBOX_DEBUG: it is set but empty. Unset it.**"
        )
