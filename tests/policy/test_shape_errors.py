"""What is wrong with the shape of a policy file: each breach is found, where it is, and told from what looks alike."""

from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.limits import LIMITS, Limit
from policy.requester import SCOPE_ATTRIBUTES, SURFACES
from policy.schema import document_schema
from policy.shape_errors import shape_errors
from tests.policy.factories import HEADER, VERBS, values_of

WHO = {"groups": ["students"]}
LIMIT = {"debug": False}
SCOPE = {"match": WHO, "limits": LIMIT}
EVERY_LIMIT = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)


def breaches(limits: Any = None, **changes: Any) -> set[tuple[str, str]]:  # noqa: ANN401 -- whatever TOML can hold
    document = {**HEADER, "limits": {"debug": False} if limits is None else limits, **changes}
    errors = shape_errors({key: value for key, value in document.items() if value is not None}, document_schema())
    return {(".".join(map(str, error.path)), error.rule) for error in errors}


@EVERY_LIMIT
@settings(max_examples=15)
@given(data=st.data())
def test_every_value_of_a_limit_is_accepted_in_every_place(limit: Limit[Any], data: st.DataObject) -> None:
    native = limit.kind.native(data.draw(values_of(limit.kind)))
    assert breaches({limit.name: native}) == set()
    for verb in VERBS:
        assert breaches({limit.name: {verb.value: native}}) == set()


@EVERY_LIMIT
@pytest.mark.parametrize(
    "native",
    ["", "Unlimited", "none", "any", -1, -0.5, 10**9, float("inf"), {}, [1], ["none"], [""], [["a"]], ["a", "a"]],
    ids=repr,
)
def test_value_of_no_limit_is_refused_for_each(limit: Limit[Any], native: object) -> None:
    assert breaches({limit.name: native})
    assert breaches({limit.name: {"ceiling": native}})


@pytest.mark.parametrize(
    ("limit", "native"),
    [
        ("networking_allowed", 0),
        ("networking_allowed", 1.0),
        ("networking_allowed", "false"),
        ("max_runtime_seconds", 0),
        ("max_runtime_seconds", 30.0),
        ("max_runtime_seconds", True),
        ("max_runtime_seconds", "30"),
        ("max_runtime_seconds", 86_401),
        ("max_ram_megabytes", 31),
        ("max_cpus", 0.009),
        ("max_cpus", True),
        ("max_cpus", "1"),
        ("max_output_kilobytes", "unlimited"),
        ("max_file_megabytes", "unlimited"),
        ("languages", "python"),
        ("languages", ["perl"]),
        ("languages", ["python", "python"]),
        ("network_allowlist", "public"),
        ("network_allowlist", ["Example.com"]),
        ("network_allowlist", ["public", "public"]),
        ("network_allowlist", [f"a{number}.example" for number in range(257)]),
        ("max_runtime_seconds", datetime(2026, 11, 1, tzinfo=UTC)),
        ("network_allowlist", [datetime(2026, 11, 1, tzinfo=UTC)]),
    ],
    ids=repr,
)
def test_value_of_another_type_or_out_of_range_is_refused(limit: str, native: object) -> None:
    assert breaches({limit: native})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        *(({key: None}, {("", "required")}) for key in HEADER),
        ({"schema": 2}, {("schema", "const")}),
        ({"schema": 1.0}, {("schema", "type")}),
        ({"id": ""}, {("id", "pattern")}),
        ({"id": "Acme"}, {("id", "pattern")}),
        ({"id": "acme\n"}, {("id", "pattern")}),
        ({"id": "\nacme"}, {("id", "pattern")}),
        ({"id": "../acme"}, {("id", "pattern")}),
        ({"id": "a" * 65}, {("id", "pattern")}),
        ({"id": 5}, {("id", "type")}),
        ({"serial": 0}, {("serial", "minimum")}),
        ({"serial": 2**53}, {("serial", "maximum")}),
        ({"serial": 7.0}, {("serial", "type")}),
        ({"serial": "7"}, {("serial", "type")}),
        ({"serial": True}, {("serial", "type")}),
        ({"issued_at": "2026-11-01T00:00:00Z"}, {("issued_at", "format")}),
        ({"issued_at": datetime(2026, 11, 1)}, {("issued_at", "format")}),  # noqa: DTZ001 -- the case itself
        ({"expires_at": date(2026, 11, 1)}, {("expires_at", "format")}),
        ({"expires_at": time(7)}, {("expires_at", "format")}),
        ({"not_before": 5}, {("not_before", "format")}),
        ({"audience": []}, {("audience", "minItems")}),
        ({"audience": "prod"}, {("audience", "type")}),
        ({"audience": ["a", "a"]}, {("audience", "uniqueItems")}),
        ({"audience": [""]}, {("audience.0", "minLength")}),
        ({"audience": [datetime(2026, 11, 1, tzinfo=UTC)]}, {("audience.0", "type")}),
        ({"description": datetime(2026, 11, 1, tzinfo=UTC)}, {("description", "type")}),
        ({"owner": 5}, {("owner", "type")}),
        ({"limits": {}}, {("limits", "minProperties")}),
        ({"limits": []}, {("limits", "type")}),
        ({"colour": "red"}, {("", "additionalProperties")}),
        ({"rollout": {}}, {("", "additionalProperties")}),
        *(({key: None, "scope": [SCOPE], "limits": None}, {("", "required")}) for key in HEADER),
        ({"scope": []}, {("scope", "minItems")}),
        ({"scope": SCOPE}, {("scope", "type")}),
        ({"scope": [{}]}, {("scope.0", "required"), ("scope.0", "anyOf")}),
        ({"scope": [{"limits": LIMIT}]}, {("scope.0", "anyOf")}),
        ({"scope": [{"match": WHO}]}, {("scope.0", "required")}),
        ({"scope": [{"match": {}, "limits": LIMIT}]}, {("scope.0.match", "minProperties")}),
        ({"scope": [{**SCOPE, "except": {}}]}, {("scope.0.except", "minProperties")}),
        ({"scope": [{**SCOPE, "limits": {}}]}, {("scope.0.limits", "minProperties")}),
        ({"scope": [{**SCOPE, "limits": {"debug": 1}}]}, {("scope.0.limits.debug", "type")}),
        ({"scope": [{**SCOPE, "env_may_loosen": False}]}, {("scope.0", "additionalProperties")}),
        ({"scope": [SCOPE, {**SCOPE, "description": ""}]}, {("scope.1.description", "minLength")}),
        ({"requires": []}, {("requires", "minItems")}),
        ({"requires": ["Acme"]}, {("requires.0", "pattern")}),
        ({"requires": ["a", "a"]}, {("requires", "uniqueItems")}),
        ({"retires": ["a\n"]}, {("retires.0", "pattern")}),
        ({"retires": "a"}, {("retires", "type")}),
        ({"rollback_of": 0}, {("rollback_of", "minimum")}),
        ({"rollback_of": 2**53}, {("rollback_of", "maximum")}),
        ({"rollback_of": 5.0}, {("rollback_of", "type")}),
    ],
    ids=lambda item: "" if isinstance(item, set) else ascii(item)[:60],
)
def test_breach_is_found_where_it_is(changes: dict[str, Any], found: set[tuple[str, str]]) -> None:
    assert breaches(**changes) == found


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({}, ("", "anyOf")),
        ({"reason": "no statement"}, ("", "anyOf")),
        ({"env_may_loosen": False}, ("", "anyOf")),
        ({"lock": 5, "ceiling": 5}, ("", "false")),
        ({"lock": 5, "default": 5}, ("", "false")),
        ({"ceiling": 5, "colour": 1}, ("", "additionalProperties")),
        ({"ceiling": 5, "reason": ""}, (".reason", "minLength")),
        ({"ceiling": 5, "reason": 5}, (".reason", "type")),
        ({"ceiling": 5, "reason": datetime(2026, 11, 1, tzinfo=UTC)}, (".reason", "type")),
        ({"ceiling": 5, "env_may_loosen": "false"}, (".env_may_loosen", "type")),
        ({"ceiling": 5, "env_may_loosen": 0}, (".env_may_loosen", "type")),
    ],
    ids=lambda item: ascii(item)[:40],
)
def test_table_of_a_limit_says_something_and_nothing_beside_a_lock(table: object, found: tuple[str, str]) -> None:
    assert breaches({"max_processes": table}) == {(f"limits.max_processes{found[0]}", found[1])}


CONDITIONS = pytest.mark.parametrize("part", ["match", "except"])


@CONDITIONS
@pytest.mark.parametrize("attribute", SCOPE_ATTRIBUTES)
def test_every_attribute_may_stand_under_match_and_except(part: str, attribute: str) -> None:
    for said in SURFACES if attribute == "surface" else (["a"], ["a", "b"], ["\U0001f600 x"], ["x" * 1_000]):
        assert breaches(scope=[{part: {attribute: said}, "limits": LIMIT}]) == set()


@CONDITIONS
@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"role": ["a"]}, ("", "additionalProperties")),
        ({"Groups": ["a"]}, ("", "additionalProperties")),
        ({"groups": []}, (".groups", "minItems")),
        ({"groups": "a"}, (".groups", "type")),
        ({"groups": [""]}, (".groups.0", "minLength")),
        ({"groups": ["x" * 1_001]}, (".groups.0", "maxLength")),
        ({"groups": ["a", "a"]}, (".groups", "uniqueItems")),
        ({"users": [5]}, (".users.0", "type")),
        ({"models": {"a": 1}}, (".models", "type")),
        ({"surface": "tools"}, (".surface", "enum")),
        ({"surface": ["tool"]}, (".surface", "enum")),
        ([], ("", "type")),
    ],
    ids=lambda item: ascii(item)[:40],
)
def test_conditions_of_another_shape_are_refused(part: str, said: object, found: tuple[str, str]) -> None:
    assert breaches(scope=[{part: said, "limits": LIMIT}]) == {(f"scope.0.{part}{found[0]}", found[1])}


@EVERY_LIMIT
def test_limits_of_a_scope_are_those_of_a_file(limit: Limit[Any]) -> None:
    native = limit.kind.native(limit.lockdown)
    for verb in VERBS:
        assert breaches(scope=[{**SCOPE, "limits": {limit.name: {verb.value: native}}}]) == set()
    beside = {limit.name: {"lock": native, "default": native}}
    assert breaches(scope=[{**SCOPE, "limits": beside}]) == {(f"scope.0.limits.{limit.name}", "false")}
