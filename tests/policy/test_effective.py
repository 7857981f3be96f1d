"""The effective limits: complete, frozen, and with a digest over the values alone."""

import dataclasses
import hashlib
import json
from collections.abc import MutableMapping
from decimal import Decimal
from typing import Any, cast

import pytest

from policy.effective import Decision, EffectiveLimits, fixed_limits
from policy.limits import LIMITS, MAX_CPUS, MAX_RUNTIME_SECONDS, NETWORKING_ALLOWED, Limit
from policy.resolve import Layers, resolve
from policy.statements import Layer, Origin, Verb
from policy.values import UNLIMITED, Switch
from tests.policy.factories import document_of, said_by_environment

BUILT_IN_VALUES: dict[str, Any] = {
    "networking_allowed": True,
    "max_runtime_seconds": 30,
    "max_ram_megabytes": 128,
    "auto_install": True,
    "network_allowlist": ["public"],
    "network_private_allowed": False,
    "max_cpus": 1,
    "max_processes": 64,
    "max_disk_megabytes": 64,
    "max_output_kilobytes": 256,
    "max_file_megabytes": 16,
    "max_concurrent_runs": 2,
    "max_instance_runs": 8,
    "languages": ["python", "bash"],
    "require_resource_limiting": True,
    "debug": False,
}


def decision_of(limit: Limit[Any], value: object = None) -> Decision:
    origin = Origin(layer=Layer.BUILT_IN, place="built-in")
    value = limit.built_in if value is None else value
    return Decision(limit=limit, value=value, verb=Verb.DEFAULT, decided_by=origin, candidates=())


def limits_with(**values: object) -> EffectiveLimits:
    return EffectiveLimits(decisions={limit.name: decision_of(limit, values.get(limit.name)) for limit in LIMITS})


@pytest.mark.parametrize("left_out", [limit.name for limit in LIMITS])
def test_missing_limit_is_refused(left_out: str) -> None:
    decisions = {limit.name: decision_of(limit) for limit in LIMITS if limit.name != left_out}
    with pytest.raises(ValueError, match=left_out):
        EffectiveLimits(decisions=decisions)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_runtime_seconds", 0),
        ("max_runtime_seconds", -5),
        ("max_runtime_seconds", 86_401),
        ("max_runtime_seconds", True),
        ("max_runtime_seconds", Decimal(5)),
        ("max_runtime_seconds", "5"),
        ("max_cpus", Decimal("0.001")),
        ("max_cpus", Decimal("0.0101")),
        ("max_cpus", 1),
        ("debug", 0),
        ("max_output_kilobytes", UNLIMITED),
        ("languages", frozenset({"perl", "python"})),
    ],
)
def test_value_outside_its_kind_is_no_limit(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r".{8}"):
        limits_with(**{name: value})


def test_value_is_read_by_its_limit() -> None:
    effective = limits_with(max_runtime_seconds=7, max_cpus=Decimal("0.25"))
    assert effective[MAX_RUNTIME_SECONDS] == 7
    assert effective[MAX_CPUS] == Decimal("0.25")
    assert effective[NETWORKING_ALLOWED] is True
    assert effective.values == {**BUILT_IN_VALUES, "max_runtime_seconds": 7, "max_cpus": 0.25}


def test_it_cannot_be_changed() -> None:
    effective = limits_with()
    decisions = cast("MutableMapping[str, Decision]", effective.decisions)
    with pytest.raises(TypeError):
        decisions["debug"] = decision_of(LIMITS[-1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        effective.decisions = {}  # type: ignore[misc]  # the breach itself
    with pytest.raises(dataclasses.FrozenInstanceError):
        effective.decisions["debug"].value = True  # type: ignore[misc]  # the breach itself


def test_it_does_not_follow_the_mapping_it_was_made_from() -> None:
    decisions = {limit.name: decision_of(limit) for limit in LIMITS}
    effective = EffectiveLimits(decisions=decisions)
    decisions["max_runtime_seconds"] = decision_of(MAX_RUNTIME_SECONDS, 86_400)
    assert effective[MAX_RUNTIME_SECONDS] == 30


def test_fixed_limits_are_the_built_ins_with_some_values_in_their_place() -> None:
    fixed = fixed_limits({"max_runtime_seconds": 5}, "probe")
    assert fixed.values == {**BUILT_IN_VALUES, "max_runtime_seconds": 5}
    assert fixed.origin_of(MAX_RUNTIME_SECONDS) == "probe"


def test_fixed_limits_refuse_a_value_out_of_range() -> None:
    with pytest.raises(ValueError, match="outside 1 to 86400"):
        fixed_limits({"max_runtime_seconds": 0}, "probe")


def test_digest_is_sha256_of_the_canonical_json_of_the_values() -> None:
    canonical = json.dumps(BUILT_IN_VALUES, sort_keys=True, separators=(",", ":"))
    assert limits_with().digest == hashlib.sha256(canonical.encode()).hexdigest()


def test_equal_values_decided_by_different_people_have_equal_digests() -> None:
    by_valve = resolve(Layers(untrusted_person_valves={"MAX_RUNTIME_SECONDS": 20}))
    by_variable = resolve(Layers(environment=(said_by_environment(MAX_RUNTIME_SECONDS, Verb.LOCK, 20),)))
    by_policy = resolve(
        Layers(documents=(document_of({"max_runtime_seconds": {"lock": 20, "reason": "shared host"}}),))
    )
    assert by_valve.origin_of(MAX_RUNTIME_SECONDS) != by_variable.origin_of(MAX_RUNTIME_SECONDS)
    assert by_valve.digest == by_variable.digest == by_policy.digest


def test_equal_numbers_in_different_spellings_have_equal_digests() -> None:
    spellings = [limits_with(max_cpus=Decimal(text)).digest for text in ("2", "2.0", "2.000")]
    assert len(set(spellings)) == 1


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_another_value_of_any_limit_is_another_digest(limit: Limit[Any]) -> None:
    other = not limit.built_in if isinstance(limit.kind, Switch) else limit.kind.strictest
    assert limits_with(**{limit.name: other}).digest != limits_with().digest


def test_json_names_value_who_decided_and_all_candidates() -> None:
    document = document_of({"max_runtime_seconds": {"ceiling": 20, "reason": "shared host"}})
    found = resolve(Layers(documents=(document,), untrusted_person_valves={"MAX_RUNTIME_SECONDS": "60"})).as_json()
    runtime = found["limits"]["max_runtime_seconds"]
    assert (runtime["value"], runtime["decided_by"], runtime["reason"]) == (20, "policy", "shared host")
    assert [(each["layer"], each["statement"], each["value"], each["fate"]) for each in runtime["candidates"]] == [
        ("policy", "ceiling", "20", "won"),
        ("valve", "choice", "60", "clamped"),
        ("built-in", "default", "30", "shadowed"),
    ]
    assert found["policies"] == [
        {"id": "acme-prod", "serial": 7, "payload_sha256": document.payload_sha256, "signed_by": []}
    ]
    assert list(found["limits"]) == [limit.name for limit in LIMITS]
    assert json.loads(json.dumps(found)) == found
