"""The quick yes about shape: said of our schemas exactly where jsonschema finds nothing, of others never wrongly."""

import math
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.cases import cases_schema
from policy.limits import LIMITS
from policy.schema import document_schema
from policy.shape import Shape, compiled_shape
from policy.shape_errors import shape_errors
from tests.policy.factories import policy_sets, written

POLICY = """\
schema = 1
id = "acme-prod"
serial = 7
issued_at = 2026-11-01T00:00:00Z
not_before = 2026-11-02T00:00:00+01:00
expires_at = 2027-02-01T00:00:00Z
audience = ["prod-eu", "*"]
description = "All of it"
owner = "platform@acme.example"
requires = ["base"]
retires = ["older", "oldest"]
rollback_of = 6

[limits]
networking_allowed = true
max_cpus = 1.5
max_disk_megabytes = "unlimited"
network_allowlist = ["public", "*.example.com:443", "10.0.0.0/8"]
languages = ["python"]
[limits.max_runtime_seconds]
default = 30
ceiling = 60
reason = "shared host"
env_may_loosen = false
[limits.max_ram_megabytes]
lock = 128

[[scope]]
description = "Students"
match.groups = ["students", "pupils"]
match.surface = "tool"
limits.max_runtime_seconds.ceiling = 10
[[scope]]
except.users = ["u-1"]
limits.debug = false
"""
CASES = """\
policies = ["policy.toml"]

[[case]]
name = "Students wait ten seconds"
who = { role = "user", groups = ["students"], user = "u-1", model = "m", surface = "tool" }
valves = { max_runtime_seconds = 90, max_cpus = [1, 1.0] }
admin_valves = { max_runtime_seconds = "45" }
environment = { SANDBOX_DEBUG = "true" }
expect = { max_runtime_seconds = 10, max_cpus = 0.5, languages = [] }
[[case]]
name = "Others wait longer"
expect.max_runtime_seconds = 60
"""
SHAPES = {"policy": compiled_shape(document_schema()), "cases": compiled_shape(cases_schema())}
VALID = {"policy": tomllib.loads(POLICY), "cases": tomllib.loads(CASES)}
BOTH = pytest.mark.parametrize("kind", SHAPES)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SCALARS: tuple[Any, ...] = (
    *("", "a", "a\n", "b", "B", "\n", "public", "Example.com", "unlimited", "tool", NOON.isoformat(), "x" * 1_001),
    *(0, 1, 2, -1, 2**53, 2**63, -(2**200), 0.0, 1.0, 1.5, 1e9, float("nan"), float("inf"), float("-inf")),
    *(True, False, NOON, NOON.replace(tzinfo=None), NOON.date(), NOON.time()),
)
NAMES = ("a", "b", "lock", "ceiling", "limits", "scope", "match", "id", "colour", "SANDBOX_DEBUG", "debug", "a\n")


def toml_values() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.sampled_from(SCALARS),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
        max_leaves=5,
    )


def neighbours(value: Any) -> Iterator[Any]:  # noqa: ANN401 -- whatever TOML can hold
    """What somebody, or an attacker, may write instead of it."""
    match value:
        case bool():
            yield from (int(value), float(value), str(value).lower(), not value)
        case float() if not math.isfinite(value):
            yield from (0, str(value))
        case int() | float():
            yield from (float(value), int(value), bool(value), str(value), -value, value + 2**53, value + 0.0001, 0)
            yield from (2**63, 2**900, float("nan"), float("inf"), "unlimited", [value])
        case str():
            yield from (f"{value}\n", f"\n{value}", "", value.upper(), value * 1_001, [value], f"{value}\u202e", NOON)
        case datetime():
            yield from (value.isoformat(), value.replace(tzinfo=None), value.date(), value.time(), value.timestamp())
        case list():
            yield from ([], [*value, *value], [*value, 1], [*value, "a\n"], [*value, NOON], [*value, []])
            yield from ([{}], dict.fromkeys(map(str, value), 1), "a", [str(each) for each in range(600)])
        case dict():
            yield from ({}, [value], [], {**value, "colour": 1}, {**value, "lock": 1}, {**value, "ceiling": False})
            yield from ({**value, "": 1}, {**value, "sandbox_debug": "1"}, {**value, "SANDBOX_DEBUG": 1})
            yield from ({f"{key}\n": item} for key, item in value.items())


def places_in(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    match value:
        case dict():
            inner: list[tuple[Any, object]] = list(value.items())
        case list():
            inner = list(enumerate(value))
        case _:
            inner = []
    for key, item in inner:
        yield (*path, key)
        yield from places_in(item, (*path, key))


def changed(document: dict[str, Any], path: tuple[Any, ...], *instead: Any) -> dict[str, Any]:  # noqa: ANN401 -- as above
    """The document with something else at this place, or with nothing there."""
    document = deepcopy(document)
    holder: Any = document
    for key in path[:-1]:
        holder = holder[key]
    if instead:
        holder[path[-1]] = instead[0]
    else:
        del holder[path[-1]]
    return document


def at(document: dict[str, Any], path: tuple[Any, ...]) -> Any:  # noqa: ANN401 -- as above
    for key in path:
        document = document[key]
    return document


def is_of_one_mind(shape: Shape, document: object) -> bool:
    return shape.accepts(document) == (not list(shape_errors(document, shape.schema)))  # type: ignore[arg-type] # any value


@st.composite
def mishaps(draw: st.DrawFn, document: dict[str, Any], *, most: int = 3) -> dict[str, Any]:
    """The document after a few mishaps, which may also leave it valid."""
    places = list(places_in(document))
    if not most or not places:
        return document
    path, value = draw(st.sampled_from([(path, at(document, path)) for path in places]))
    match draw(st.integers(0, 4)):
        case 0:
            instead = [draw(st.sampled_from([*neighbours(value), 1]))]
        case 1:
            instead = [draw(toml_values())]
        case 2:
            instead = [at(document, draw(st.sampled_from(places)))]
        case _:
            instead = []
    document = changed(document, path, *instead)
    if not instead and isinstance(path[-1], str) and draw(st.booleans()):
        document = changed(document, (*path[:-1], draw(st.sampled_from(NAMES))), value)
    return draw(mishaps(document, most=draw(st.integers(0, most - 1))))


@BOTH
def test_valid_file_is_accepted(kind: str) -> None:
    assert SHAPES[kind].accepts(VALID[kind])
    assert is_of_one_mind(SHAPES[kind], VALID[kind])


@BOTH
def test_authority_is_of_one_mind_about_every_single_change(kind: str) -> None:
    document = VALID[kind]
    apart = [
        (path, instead)
        for path in places_in(document)
        for instead in ((), *((value,) for value in (*neighbours(at(document, path)), *SCALARS)))
        if not is_of_one_mind(SHAPES[kind], changed(document, path, *instead))
    ]
    assert apart == []


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_authority_is_of_one_mind_about_every_policy_and_what_becomes_of_it(data: st.DataObject) -> None:
    shape = SHAPES["policy"]
    some = data.draw(st.lists(st.sampled_from(LIMITS), max_size=3, unique=True))
    for policy in data.draw(policy_sets(some, most_files=1)):
        document = tomllib.loads(written(policy))
        assert is_of_one_mind(shape, document)
        assert is_of_one_mind(shape, data.draw(mishaps(document)))


@BOTH
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_authority_is_of_one_mind_about_mishaps(kind: str, data: st.DataObject) -> None:
    assert is_of_one_mind(SHAPES[kind], data.draw(mishaps(VALID[kind]) | toml_values()))


# Each keyword of our schemas alone decides about some file.

KEYWORDS_ALONE: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "$ref": ("policy", ("scope", 0, "limits", "max_runtime_seconds", "ceiling"), 0),
    "additionalProperties": ("policy", ("colour",), "red"),
    "additionalProperties with a schema": ("cases", ("case", 0, "environment", "SANDBOX_DEBUG"), True),
    "anyOf": ("policy", ("limits", "max_ram_megabytes"), {"reason": "no statement"}),
    "const": ("policy", ("schema",), 2),
    "else": ("policy", ("limits", "max_cpus"), 0),
    "enum": ("policy", ("scope", 0, "match", "surface"), "tools"),
    "format date-time": ("policy", ("issued_at",), NOON.isoformat()),
    "format destination": ("policy", ("limits", "network_allowlist", 0), "Example.com"),
    "if": ("policy", ("limits", "max_disk_megabytes"), "64"),
    "items": ("policy", ("audience", 0), 5),
    "maxItems": ("policy", ("limits", "network_allowlist"), [f"a{number}.example" for number in range(257)]),
    "maxLength": ("policy", ("owner",), "x" * 1_001),
    "maximum": ("policy", ("serial",), 2**53),
    "minItems": ("policy", ("audience",), []),
    "minLength": ("policy", ("owner",), ""),
    "minProperties": ("policy", ("limits",), {}),
    "minimum": ("policy", ("serial",), 0),
    "pattern": ("policy", ("id",), "acme\n"),
    "properties": ("policy", ("serial",), "7"),
    "propertyNames": ("cases", ("case", 0, "environment"), {"PATH": "/"}),
    "required": ("policy", ("scope", 0), {"match": {"groups": ["a"]}}),
    "then": ("policy", ("limits", "max_ram_megabytes", "colour"), "red"),
    "type": ("policy", ("serial",), 7.0),
    "uniqueItems": ("policy", ("audience",), ["a", "a"]),
}


@pytest.mark.parametrize("keyword", KEYWORDS_ALONE)
def test_file_that_breaks_one_keyword_is_not_accepted(keyword: str) -> None:
    kind, path, instead = KEYWORDS_ALONE[keyword]
    broken = changed(VALID[kind], path, instead)

    assert len(list(shape_errors(broken, SHAPES[kind].schema))) == 1
    assert not SHAPES[kind].accepts(broken)


def keywords_of(schema: object) -> Iterator[str]:
    """Every keyword in a schema, at any depth."""
    for keyword, said in schema.items() if isinstance(schema, Mapping) else ():
        yield keyword
        match keyword, said:
            case "properties", dict():
                inner = list(said.values())
            case _, dict():
                inner = [said]
            case "anyOf", list():
                inner = said
            case _:
                inner = []
        for each in inner:
            yield from keywords_of(each)


def test_every_keyword_of_our_schemas_is_in_that_table() -> None:
    used = {keyword for shape in SHAPES.values() for keyword in keywords_of(shape.schema)}

    assert used - {"$schema", "title", "description"} == {name.partition(" ")[0] for name in KEYWORDS_ALONE}


# Other schemas: what the authority refuses is never accepted, and what is not known here is no schema.

A_TEXT = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        {"patternProperties": {}},
        {"not": {}},
        {"exclusiveMinimum": 1},
        {"$id": "x"},
        {"$defs": {}},
        {"properties": {"a": {"not": {}}}},
        {"additionalProperties": {"not": {}}},
        {"propertyNames": {"not": {}}},
        {"items": {"not": {}}},
        {"anyOf": [True, {"not": {}}]},
        {"if": {"not": {}}},
        {"if": {"type": "object"}, "then": {"not": {}}},
        {"if": {"type": "object"}, "else": {"not": {}}},
        {"type": "null"},
        {"type": ["string", "integer"]},
        {"format": "email"},
        {"type": "string", "format": "date"},
        {"const": 1.0},
        {"const": {"a": 1}},
        {"enum": ["a", None]},
        {"$ref": "other.json#/a"},
        {"if": {"pattern": "a"}, "else": False},
        {"if": {"properties": {"a": A_TEXT}}, "else": False},
    ],
    ids=str,
)
def test_schema_that_says_what_is_not_known_here_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="compiled"):
        compiled_shape(schema)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 1}, True),
        ({"enum": [0]}, False),
        ({"enum": [True]}, 1),
        ({"uniqueItems": True}, [1, 1.0]),
        ({"uniqueItems": True}, [["a"], ["a"]]),
        ({"uniqueItems": True}, [{}, {}]),
        ({"uniqueItems": True}, [NOON, NOON]),
        ({"pattern": "^a$"}, NOON),
        ({"maxLength": 2}, NOON),
        ({"format": "destination"}, NOON),
        ({"type": "string"}, NOON),
        ({"type": "object", "format": "date-time"}, {}),
    ],
    ids=str,
)
def test_value_that_python_takes_for_another_is_not_accepted(schema: dict[str, Any], value: Any) -> None:  # noqa: ANN401 -- any
    assert list(shape_errors(value, schema))
    assert not compiled_shape(schema).accepts(value)


def schemas() -> st.SearchStrategy[Any]:
    size, names = st.integers(0, 2), st.sampled_from(NAMES)
    types = st.sampled_from(("object", "array", "string", "boolean", "integer", "number"))
    choice = st.sampled_from([scalar for scalar in SCALARS if isinstance(scalar, str | int)])
    plain: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(
            ("minimum", "maximum", "minLength", "maxLength", "minProperties", "minItems", "maxItems"), size
        ),
        "type": types,
        "const": choice,
        "enum": st.lists(choice, min_size=1, max_size=3),
        "pattern": st.sampled_from(("^a$", "a", "^[^\\n]*$", "^$")),
        "format": st.sampled_from(("date-time", "destination")),
        "required": st.lists(names, max_size=2, unique=True),
        "uniqueItems": st.booleans(),
    }
    certain = st.fixed_dictionaries({}, optional={"type": types, "required": plain["required"]})

    def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        by_name = st.dictionaries(names, inner, max_size=3)
        nested = {
            **dict.fromkeys(("items", "additionalProperties", "propertyNames", "then", "else"), inner),
            "properties": by_name,
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "if": certain,
        }
        return st.fixed_dictionaries({}, optional={**plain, **nested})

    return st.recursive(st.booleans() | st.fixed_dictionaries({}, optional=plain), around, max_leaves=6)


@settings(max_examples=500, deadline=None)
@given(schema=schemas().filter(lambda schema: isinstance(schema, dict)), value=toml_values())
def test_yes_is_never_said_where_the_authority_objects(schema: dict[str, Any], value: Any) -> None:  # noqa: ANN401 -- any
    if compiled_shape(schema).accepts(value):
        assert list(shape_errors(value, schema)) == []
