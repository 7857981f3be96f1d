"""Who asks, and whom a scope is for: what is undetermined meets every `match` and no `except`."""

import dataclasses
from collections.abc import MutableMapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.requester import (
    FUNCTION_SURFACE,
    SCOPE_ATTRIBUTES,
    SURFACES,
    TOOL_SURFACE,
    UNDETERMINED,
    Requester,
    ScopeConditions,
)
from policy.schema import document_schema
from tests.policy.factories import requesters, scope_conditions

ADA = Requester(role="user", groups=frozenset({"g-1", "students"}), user="u-1", model="llama", surface=TOOL_SURFACE)
FIELDS = {"roles": "role", "groups": "groups", "users": "user", "models": "model", "surface": "surface"}
OF_ADA: dict[str, list[str]] = {
    "roles": ["user"],
    "groups": ["students"],
    "users": ["u-1"],
    "models": ["llama"],
    "surface": ["tool"],
}
EACH_ATTRIBUTE = pytest.mark.parametrize("attribute", SCOPE_ATTRIBUTES)


def conditions(match: dict[str, Any] | None = None, excepted: dict[str, Any] | None = None) -> ScopeConditions:
    return ScopeConditions(
        match={name: frozenset(values) for name, values in (match or {}).items()},
        excepted={name: frozenset(values) for name, values in (excepted or {}).items()},
    )


def without(attribute: str) -> Requester:
    """Ada, of whom this cannot be determined."""
    lacking: dict[str, Any] = {FIELDS[attribute]: None}
    return dataclasses.replace(ADA, **lacking)


# What is known of somebody


@EACH_ATTRIBUTE
def test_known_attribute_is_one_of_the_values_or_not(attribute: str) -> None:
    assert ADA.has_any(attribute, frozenset({*OF_ADA[attribute], "another"})) is True
    assert ADA.has_any(attribute, frozenset({"another"})) is False
    assert ADA.has_any(attribute, frozenset()) is False
    assert not ADA.lacks(attribute)


@EACH_ATTRIBUTE
def test_undetermined_attribute_is_neither(attribute: str) -> None:
    assert without(attribute).has_any(attribute, frozenset(OF_ADA[attribute])) is None
    assert without(attribute).lacks(attribute)
    assert UNDETERMINED.lacks(attribute)
    assert [each for each in SCOPE_ATTRIBUTES if without(attribute).lacks(each)] == [attribute]


@pytest.mark.parametrize("attribute", ["role", "group", "user", "model", "surfaces", "", "match"])
def test_attribute_that_no_scope_has_is_refused(attribute: str) -> None:
    with pytest.raises(ValueError, match="no scope has the key"):
        ADA.has_any(attribute, frozenset({"x"}))


@pytest.mark.parametrize("attribute", ["roles", "users", "models"])
def test_empty_text_names_nobody_and_is_undetermined(attribute: str) -> None:
    empty: dict[str, Any] = {FIELDS[attribute]: ""}
    assert dataclasses.replace(ADA, **empty).lacks(attribute)


def test_member_of_no_group_is_known_to_be_in_none() -> None:
    loner = dataclasses.replace(ADA, groups=frozenset())
    assert not loner.lacks("groups")
    assert not conditions({"groups": ["students"]}).hold_for(loner)
    assert conditions(excepted={"groups": ["students"]}).hold_for(loner)


@pytest.mark.parametrize("surface", ["tools", "Tool", "", "action", "pipe"])
def test_surface_that_no_scope_can_name_is_refused(surface: str) -> None:
    with pytest.raises(ValueError, match="not one of tool, function"):
        Requester(surface=surface)


def test_requester_is_told_in_plain_json() -> None:
    assert ADA.as_json() == {
        "role": "user",
        "groups": ["g-1", "students"],
        "user": "u-1",
        "model": "llama",
        "surface": "tool",
    }
    assert set(UNDETERMINED.as_json().values()) == {None}
    assert Requester(groups=frozenset()).as_json()["groups"] == []


def test_equal_requesters_are_one_key() -> None:
    assert {ADA: 1}[dataclasses.replace(ADA)] == 1
    assert len({ADA, UNDETERMINED, without("groups"), Requester(groups=frozenset())}) == 4


# Whom a scope is for


@EACH_ATTRIBUTE
def test_match_holds_for_whom_it_names_and_whom_nobody_can_tell(attribute: str) -> None:
    named, other = conditions({attribute: [*OF_ADA[attribute], "x"]}), conditions({attribute: ["x", "y"]})
    assert named.hold_for(ADA)
    assert not other.hold_for(ADA)
    assert other.hold_for(without(attribute))


@EACH_ATTRIBUTE
def test_except_takes_out_whom_it_names_and_nobody_else(attribute: str) -> None:
    named, other = conditions(None, {attribute: [*OF_ADA[attribute], "x"]}), conditions(None, {attribute: ["x"]})
    assert not named.hold_for(ADA)
    assert other.hold_for(ADA)
    assert named.hold_for(without(attribute))


@EACH_ATTRIBUTE
def test_every_key_of_match_must_be_met(attribute: str) -> None:
    assert conditions(OF_ADA).hold_for(ADA)
    assert not conditions({**OF_ADA, attribute: ["x"]}).hold_for(ADA)
    assert conditions({**OF_ADA, attribute: ["x"]}).hold_for(without(attribute))


@EACH_ATTRIBUTE
def test_one_key_of_except_is_enough_to_be_out(attribute: str) -> None:
    others = {name: ["x"] for name in SCOPE_ATTRIBUTES}
    assert conditions(None, others).hold_for(ADA)
    assert not conditions(None, {**others, attribute: OF_ADA[attribute]}).hold_for(ADA)


def test_except_outweighs_match() -> None:
    scope = conditions({"roles": ["user"]}, {"groups": ["students"]})
    assert not scope.hold_for(ADA)
    assert scope.hold_for(dataclasses.replace(ADA, groups=frozenset({"staff"})))
    assert not scope.hold_for(dataclasses.replace(ADA, groups=frozenset(), role="admin"))


@pytest.mark.parametrize("named", ["g-1", "students"])
def test_group_is_met_by_its_id_and_by_its_name(named: str) -> None:
    assert conditions({"groups": [named]}).hold_for(ADA)
    assert not conditions(None, {"groups": [named]}).hold_for(ADA)


@pytest.mark.parametrize("near", ["Students", "students ", "student", "STUDENTS", "g-1\n"])
def test_names_are_compared_exactly(near: str) -> None:
    assert not conditions({"groups": [near]}).hold_for(ADA)


@pytest.mark.parametrize("surface", SURFACES)
def test_surface_tells_tool_and_function_apart(surface: str) -> None:
    asked = dataclasses.replace(ADA, surface=surface)
    assert conditions({"surface": [TOOL_SURFACE]}).hold_for(asked) == (surface == TOOL_SURFACE)
    assert conditions({"surface": [FUNCTION_SURFACE]}).hold_for(asked) == (surface == FUNCTION_SURFACE)


def test_nobody_known_meets_every_match_and_no_except() -> None:
    assert conditions({name: ["x"] for name in SCOPE_ATTRIBUTES}).hold_for(UNDETERMINED)
    assert conditions(None, OF_ADA).hold_for(UNDETERMINED)


@given(scope=scope_conditions(), known=requesters(known=True), hidden=st.sets(st.sampled_from(list(FIELDS.values()))))
def test_hiding_never_takes_anybody_out_of_a_scope(scope: ScopeConditions, known: Requester, hidden: set[str]) -> None:
    if scope.hold_for(known):
        lacking: dict[str, Any] = dict.fromkeys(hidden)
        assert scope.hold_for(dataclasses.replace(known, **lacking))


def test_scope_says_what_it_asks_for() -> None:
    assert conditions({"groups": ["a"]}, {"surface": ["tool"]}).asks_for == {"groups", "surface"}


def test_attributes_are_those_of_the_schema() -> None:
    scope = document_schema()["properties"]["scope"]["items"]["properties"]
    assert tuple(scope["match"]["properties"]) == tuple(scope["except"]["properties"]) == SCOPE_ATTRIBUTES


# Conditions as a value


def test_equal_conditions_are_one_key_whatever_their_order() -> None:
    one = conditions({"roles": ["user"], "groups": ["a", "b"]}, {"users": ["u"]})
    other = conditions({"groups": ["b", "a"], "roles": ["user"]}, {"users": ["u"]})
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other, conditions({"roles": ["user"]}), conditions(None, {"roles": ["user"]})}) == 3


def test_conditions_cannot_be_changed() -> None:
    given_match = {"groups": frozenset({"a"})}
    scope = ScopeConditions(match=given_match, excepted={})
    given_match["groups"] = frozenset({"b"})
    assert scope.match["groups"] == {"a"}
    with pytest.raises(TypeError):
        cast("MutableMapping[str, frozenset[str]]", scope.match)["groups"] = frozenset()
    with pytest.raises(dataclasses.FrozenInstanceError):
        scope.match = {}  # type: ignore[misc]  # the breach itself


# In words


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (conditions({"groups": ["students"]}), "for groups students"),
        (conditions({"groups": ["b", "a"], "surface": ["tool"]}), "for groups a, b and surface tool"),
        (conditions(None, {"groups": ["staff"]}), "for everybody except groups staff"),
        (
            conditions({"roles": ["user"]}, {"users": ["u-1"], "models": ["m"]}),
            "for roles user except 1 user and models m",
        ),
        (conditions({"groups": list("fedcba")}), "for groups a, b, c, d and 2 more"),
        (conditions({"users": list("fedcba")}), "for 6 users"),  # whoever meets it learns nobody's id
        (conditions({"groups": ["Class of 2026", "a, b"]}), "for groups 'Class of 2026', 'a, b'"),
        (conditions({"models": ["llama3.1:8b-q4", "org/qwen"]}), "for models llama3.1:8b-q4, org/qwen"),
        (conditions({"groups": ["\x1b[31m\u202e\n"]}), r"for groups '\x1b[31m\u202e\n'"),
    ],
    ids=lambda item: ascii(item) if isinstance(item, str) else "",
)
def test_words_say_whom_it_is_for(scope: ScopeConditions, words: str) -> None:
    assert str(scope) == words


@given(names=st.frozensets(st.text(min_size=1, max_size=1_000), min_size=1, max_size=10))
def test_words_are_printable_and_of_bounded_length(names: frozenset[str]) -> None:
    words = str(conditions(dict.fromkeys(SCOPE_ATTRIBUTES, names), dict.fromkeys(SCOPE_ATTRIBUTES, names)))
    assert words.isprintable()
    assert len(words) < 20_000
    assert len(str(conditions({"groups": ["x" * 1_000] * 50}))) < 60
