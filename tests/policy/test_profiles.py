"""Named profiles and the policy files begun from them: each takes a stand on every limit, is valid, and holds."""

import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.document import PolicyDocument
from policy.errors import DocumentError, SignatureError
from policy.limits import (
    LANGUAGES,
    LIMITS,
    MAX_CPUS,
    MAX_RAM_MEGABYTES,
    MAX_RUNTIME_SECONDS,
    NETWORKING_ALLOWED,
    Limit,
)
from policy.lint.subjects import Setup
from policy.profiles import CLASSROOM, PRODUCTION, PROFILES, SINGLE_USER, LimitChoice, Profile
from policy.requester import UNDETERMINED, Requester
from policy.resolve import Layers, resolve
from policy.starters import StarterHead, checked_starter, locks_starter, profile_starter, toml_text
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import UNLIMITED
from tests.policy.factories import loosest, values_of
from tests.policy.lint.linting import linted_files

GOLDENS = Path(__file__).parent / "goldens"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
EVERY_LIMIT = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
STUDENT = Requester(role="user", groups=frozenset({"class-7"}), user="u-1", model="llama", surface="function")


def head_of(profile: Profile, **changes: Any) -> StarterHead:  # noqa: ANN401 -- whatever a head can hold
    head = StarterHead(
        policy_id=profile.name,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=90),
        audience=("prod-eu",) if profile.names_instances else ("*",),
        description=profile.description,
        owner="ops@acme.example" if profile.names_instances else None,
    )
    return replace(head, **changes)


def starter_of(profile: Profile, **changes: Any) -> PolicyDocument:  # noqa: ANN401 -- whatever a head can hold
    return checked_starter(profile_starter(profile, head_of(profile, **changes)))


def values_for(profile: Profile, who: Requester = UNDETERMINED, **layers: Any) -> dict[str, Any]:  # noqa: ANN401
    limits = resolve(Layers(documents=(starter_of(profile),), requester=who, **layers))
    return {name: decision.value for name, decision in limits.decisions.items()}


def valves_of(value: Any, *limits: Limit[Any]) -> dict[str, object]:  # noqa: ANN401
    return {limit.valve: limit.kind.native(value(limit)) for limit in limits}


# Every profile


@EVERY_PROFILE
def test_every_limit_is_addressed_once_in_the_order_of_the_table(profile: Profile) -> None:
    assert [choice.limit.name for choice in profile.choices] == [limit.name for limit in LIMITS]


@EVERY_PROFILE
def test_every_choice_says_why_in_one_line(profile: Profile) -> None:
    for choice in profile.choices:
        assert re.fullmatch(r"[^\n]{5,105}[^.\n]", choice.why), choice.limit.name


@EVERY_PROFILE
def test_starter_is_golden(profile: Profile) -> None:
    assert profile_starter(profile, head_of(profile)) == (GOLDENS / f"starter-{profile.name}.toml").read_text()


@EVERY_PROFILE
def test_starter_says_what_the_profile_says_and_nothing_else(profile: Profile) -> None:
    document = starter_of(profile)

    said = [(stated.limit.name, stated.verb, stated.value) for stated in document.statements]
    meant = [
        (choice.limit.name, verb, choice.limit.kind.from_native(native))
        for choice in profile.choices
        for verb, native in choice.stated.items()
    ]
    assert sorted(said, key=str) == sorted(meant, key=str)
    assert {
        stated.limit.name: (stated.origin.reason, stated.environment_may_loosen) for stated in document.statements
    } == {
        choice.limit.name: (choice.reason, choice.env_may_loosen) for choice in profile.choices if not choice.left_open
    }


@EVERY_PROFILE
def test_starter_says_its_scopes(profile: Profile) -> None:
    document = starter_of(profile)

    assert [scope.conditions for scope in document.scopes] == [scope.conditions for scope in profile.scopes]
    assert [
        [(stated.limit.name, stated.verb, stated.value) for stated in scope.statements] for scope in document.scopes
    ] == [[(limit.name, Verb.CEILING, native) for limit, native in scope.ceilings] for scope in profile.scopes]


@EVERY_PROFILE
def test_every_limit_stands_in_the_starter_also_one_left_open(profile: Profile) -> None:
    text = profile_starter(profile, head_of(profile))

    for limit in LIMITS:
        assert limit.name in text


@EVERY_PROFILE
def test_starter_begins_with_the_editors_directive_and_teaches(profile: Profile) -> None:
    text = profile_starter(profile, head_of(profile))

    assert text.startswith("#:schema ./policy.schema.json\n# ")
    for word in ("a lock", "ceiling = value", "default = value", "env_may_loosen", profile.name):
        assert word in text
    assert max(map(len, text.splitlines())) <= 120
    assert not re.search(r"[ \t]$", text, re.MULTILINE)


@EVERY_PROFILE
def test_nothing_is_found_in_a_starter_but_what_its_owner_chooses_to_leave_open(profile: Profile) -> None:
    text = profile_starter(profile, head_of(profile, audience=("prod-eu",), owner="ops@acme.example"))

    found = linted_files({"started.toml": text}, Setup(now=NOW + timedelta(days=1)))

    expected = ["unconstrained-limit"] if profile is SINGLE_USER else []
    assert [finding.rule_name for finding in found if finding.suppressed is None] == expected


@pytest.mark.parametrize("days", [1, 90, 3650])
def test_what_a_starter_accepts_it_accepts_as_long_as_it_holds_and_for_a_year_at_most(days: int) -> None:
    text = profile_starter(SINGLE_USER, head_of(SINGLE_USER, expires_at=NOW + timedelta(days=days)))

    last = NOW.date() + timedelta(days=min(days - 1, 365))
    assert set(re.findall(r"until=([0-9-]+)", text)) == {str(last)}


@EVERY_PROFILE
def test_starter_holds_from_now_until_it_expires(profile: Profile) -> None:
    document = starter_of(profile)

    assert (document.policy_id, document.serial) == (profile.name, 1)
    assert (document.issued_at, document.not_before) == (NOW, None)
    assert document.expires_at == datetime(2027, 1, 30, tzinfo=UTC)


@EVERY_PROFILE
@pytest.mark.parametrize("layer", ["untrusted_person_valves", "untrusted_admin_valves"])
def test_no_valve_makes_a_stated_number_unlimited(profile: Profile, layer: str) -> None:
    valves: dict[str, Any] = {layer: valves_of(loosest, *LIMITS)}

    values = values_for(profile, **valves)

    for choice in profile.choices:
        assert values[choice.limit.name] is not UNLIMITED, choice.limit.name


# Names that people put in


@pytest.mark.parametrize("name", ['"', "\\", "'''", "x # y", "Ünit 7", 'end" debug = true', "]", "="], ids=ascii)
def test_any_name_is_read_back_as_it_was(name: str) -> None:
    document = starter_of(SINGLE_USER, audience=(name, "other"), owner=name, description=name)
    untrusted = tomllib.loads(profile_starter(SINGLE_USER, head_of(SINGLE_USER, owner=name, description=name)))

    assert document.audience == (name, "other")
    assert (untrusted["owner"], untrusted["description"]) == (name, name)


def test_name_that_could_pass_for_signatures_is_refused() -> None:
    with pytest.raises(SignatureError):
        starter_of(SINGLE_USER, owner="-----BEGIN POLICY SIGNATURES-----")


def test_name_longer_than_the_schema_has_it_is_refused() -> None:
    with pytest.raises(DocumentError):
        starter_of(SINGLE_USER, owner="x" * 1_001)


@given(data=st.data())
@pytest.mark.parametrize("verb", [Verb.LOCK, Verb.CEILING])
@EVERY_LIMIT
def test_any_value_is_read_back_as_it_was(limit: Limit[Any], verb: Verb, data: st.DataObject) -> None:
    value = data.draw(values_of(limit.kind))
    said: dict[str, Any] = {verb.value: limit.kind.native(value)}
    choice = LimitChoice(limit, "it is drawn", **said)
    profile = replace(SINGLE_USER, choices=(choice,))

    (stated,) = starter_of(profile).statements

    assert (stated.limit, stated.verb, stated.value) == (limit, verb, value)


def test_text_of_a_number_is_plain() -> None:
    assert [toml_text(native) for native in (5, 0.5, True, "unlimited", [], ["a", "b"])] == [
        "5",
        "0.5",
        "true",
        '"unlimited"',
        "[]",
        '["a", "b"]',
    ]


def test_locks_alone_make_a_policy_too() -> None:
    text = locks_starter(
        "Out of somewhere.", head_of(SINGLE_USER), [(MAX_CPUS, 0.5, "was X"), (LANGUAGES, [], "was Y")]
    )
    document = checked_starter(text)

    assert "# Out of somewhere.\n" in text
    assert "max_cpus = 0.5                        # was X\n" in text
    assert [(stated.limit, stated.verb) for stated in document.statements] == [
        (MAX_CPUS, Verb.LOCK),
        (LANGUAGES, Verb.LOCK),
    ]


# What a choice may say


@pytest.mark.parametrize(
    "said",
    [
        {"lock": 5, "ceiling": 5},
        {"lock": 5, "default": 5},
        {"ceiling": 0},
        {"ceiling": "many"},
        {"lock": True},
        {"default": 90_000},
        {"reason": "of nothing"},
        {"env_may_loosen": False},
    ],
    ids=str,
)
def test_choice_that_no_policy_could_state_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        LimitChoice(MAX_RUNTIME_SECONDS, "why not", **said)


def test_false_and_zero_and_nothing_are_values() -> None:
    assert not LimitChoice(NETWORKING_ALLOWED, "none", lock=False).left_open
    assert not LimitChoice(LANGUAGES, "none", ceiling=[]).left_open
    assert LimitChoice(LANGUAGES, "any").left_open


# Each profile keeps its word


def test_single_user_stays_bounded_and_may_have_more_than_the_built_in() -> None:
    values = values_for(
        SINGLE_USER, untrusted_person_valves={"MAX_RUNTIME_SECONDS": 86_400, "MAX_RAM_MEGABYTES": "unlimited"}
    )

    assert values["max_runtime_seconds"] == 600
    assert values["max_ram_megabytes"] == 4096
    assert values["network_private_allowed"] is False


@pytest.mark.parametrize(
    ("who", "seconds", "megabytes"),
    [
        (UNDETERMINED, 15, 256),
        (STUDENT, 20, 256),
        (replace(STUDENT, groups=frozenset()), 20, 256),
        (replace(STUDENT, groups=None), 20, 256),
        (replace(STUDENT, surface="tool"), 15, 256),
        (replace(STUDENT, surface=None), 15, 256),
        (replace(STUDENT, groups=frozenset({"staff"})), 60, 512),
        (replace(STUDENT, groups=frozenset({"staff"}), surface="tool"), 15, 512),
        (replace(STUDENT, groups=frozenset({"staff"}), surface="tool", role="admin"), 60, 512),
        (replace(STUDENT, role="admin"), 20, 256),
    ],
    ids=[
        "nobody knows who",
        "student",
        "in no group",
        "groups unknown",
        "student, by the model",
        "student, surface unknown",
        "staff",
        "staff, by the model",
        "administrator of the staff, by the model",
        "administrator who is not of the staff",
    ],
)
def test_classroom_gives_staff_more_and_everybody_else_less(who: Requester, seconds: int, megabytes: int) -> None:
    most = valves_of(loosest, MAX_RUNTIME_SECONDS, MAX_RAM_MEGABYTES, NETWORKING_ALLOWED)

    values = values_for(CLASSROOM, who, untrusted_person_valves=most)

    assert (values["max_runtime_seconds"], values["max_ram_megabytes"]) == (seconds, megabytes)
    assert values["networking_allowed"] is False


def test_classroom_holds_even_hidden_people_to_what_a_lesson_needs() -> None:
    values = values_for(CLASSROOM)

    assert (values["max_runtime_seconds"], values["max_ram_megabytes"]) == (10, 128)


@EVERY_LIMIT
def test_production_bounds_every_limit(limit: Limit[Any]) -> None:
    (choice,) = [choice for choice in PRODUCTION.choices if choice.limit is limit]

    assert {Verb.LOCK, Verb.CEILING} & choice.stated.keys()


@EVERY_LIMIT
def test_production_gives_nobody_more_than_the_built_in_unasked(limit: Limit[Any]) -> None:
    value = values_for(PRODUCTION)[limit.name]

    assert limit.kind.within(value, limit.built_in)


@pytest.mark.parametrize(
    "name",
    [
        "networking_allowed",
        "network_allowlist",
        "network_private_allowed",
        "max_runtime_seconds",
        "max_ram_megabytes",
        "auto_install",
        "require_resource_limiting",
        "debug",
    ],
)
def test_production_is_not_loosened_by_a_variable_where_it_matters(name: str) -> None:
    limit = next(limit for limit in LIMITS if limit.name == name)
    origin = Origin(layer=Layer.ENVIRONMENT, place=limit.variable)
    loosened = Stated(limit=limit, verb=Verb.LOCK, value=loosest(limit), origin=origin)

    value = values_for(PRODUCTION, environment=(loosened,))[name]

    (choice,) = [choice for choice in PRODUCTION.choices if choice.limit is limit]
    bound = choice.lock if choice.lock is not None else choice.ceiling
    assert value == limit.kind.from_native(bound) != loosest(limit)


def test_production_locks_what_must_not_move() -> None:
    locks = {choice.limit.name: choice.lock for choice in PRODUCTION.choices if choice.lock is not None}

    assert locks == {
        "networking_allowed": False,
        "auto_install": False,
        "network_allowlist": [],
        "network_private_allowed": False,
        "max_file_megabytes": 0,
        "require_resource_limiting": True,
        "debug": False,
    }
    assert all(choice.reason for choice in PRODUCTION.choices if choice.lock is not None)
    assert PRODUCTION.longest_days == 90
