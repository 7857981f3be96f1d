"""The JSON Schema of a policy file, generated from the table of limits, and the validator that applies it.

jsonschema is the one authority on shape. The published copy, `policy/policy.schema.json`, is for editors and
reviewers; a test holds it equal to what is generated here. Two things TOML tells apart and JSON does not are told
apart here too: `1` and `1.0`, and a date and a text that looks like one.

Source: JSON Schema 2020-12; RFC 3339 for dates.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jsonschema
from jsonschema import Draft202012Validator, FormatChecker, TypeChecker
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from policy.destinations import parse_destination
from policy.limits import LIMITS, Limit
from policy.requester import SCOPE_ATTRIBUTES, SURFACES
from policy.settings import DOCUMENT_ID, MAX_SERIAL
from policy.values import Switch

SCHEMA_VERSION = 1
"""The version of the policy file format, its `schema` key."""


PLAIN_TEXT = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069]*$"
"""One line without control or bidirectional characters, as JSON Schema and ECMA-262 spell it."""


class TomlDate(str):
    """A TOML date with an offset, in RFC 3339; a TOML string that looks like one stays a plain `str`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeError:
    """One breach of the schema."""

    path: tuple[str | int, ...]
    """Where in the document."""
    rule: str
    """The schema keyword that was broken; `false` where nothing may stand."""
    expected: Any
    """What the keyword says."""
    value: Any
    """What stands there, as JSON would hold it."""
    known_keys: tuple[str, ...]
    """For an unknown key: the keys that are known there."""
    cause: str
    """For a format: what its reader says."""


def document_schema() -> dict[str, Any]:
    """The JSON Schema of a whole policy file."""
    always = ["schema", "id", "serial", "issued_at", "expires_at", "audience"]
    date = {"type": "string", "format": "date-time"}
    text = plain_text_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy file of sandbox-lockdown",
        "type": "object",
        "if": {"required": ["scope"]},
        "then": {"required": always},
        "else": {"required": [*always, "limits"]},
        "additionalProperties": False,
        "properties": {
            "schema": {"type": "integer", "const": SCHEMA_VERSION, "description": "The version of this format."},
            "id": {"type": "string", "pattern": f"^{DOCUMENT_ID}$", "description": "What the policy is called."},
            "serial": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_SERIAL,
                "description": "Raised with each change.",
            },
            "issued_at": {**date, "description": "When it was issued, with an offset."},
            "expires_at": {**date, "description": "When it ends, with an offset."},
            "not_before": {**date, "description": "When it begins, with an offset."},
            "audience": {
                "type": "array",
                "items": text,
                "minItems": 1,
                "uniqueItems": True,
                "description": 'Instances it is for, by SANDBOX_INSTANCE; "*" is any.',
            },
            "description": {**text, "description": "What it is for."},
            "owner": {**text, "description": "Whom to ask."},
            "requires": {**_ids_schema(), "description": "Ids of other policies that must be present."},
            "retires": {**_ids_schema(), "description": "Ids of earlier policies that may be gone from now on."},
            "rollback_of": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_SERIAL,
                "description": "The earlier serial whose change this one takes back.",
            },
            "limits": _limits_schema(),
            "scope": {
                "type": "array",
                "minItems": 1,
                "items": _scope_schema(text),
                "description": "Stricter limits for some; scopes never loosen.",
            },
        },
    }


def plain_text_schema() -> dict[str, Any]:
    """A text for people: one line, in which no control or bidirectional character hides or forges anything."""
    return {"type": "string", "minLength": 1, "maxLength": 1_000, "pattern": PLAIN_TEXT}


def schema_text() -> str:
    """The published schema file, byte for byte."""
    return json.dumps(document_schema(), indent=2, ensure_ascii=False) + "\n"


def shape_errors(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[ShapeError]:
    """Everything about the shape of parsed TOML that is wrong, in the schema's order."""
    validator = _StrictValidator(schema, format_checker=_formats())
    yield from map(_shape_error, validator.iter_errors(_json_image(document)))


def _shape_error(error: jsonschema.ValidationError) -> ShapeError:
    schema = error.schema if isinstance(error.schema, dict) else {}
    return ShapeError(
        path=tuple(error.absolute_path),
        rule=str(error.validator or "false"),
        expected=error.validator_value,
        value=error.instance,
        known_keys=tuple(schema.get("properties", ())),
        cause=str(error.cause or ""),
    )


def _ids_schema() -> dict[str, Any]:
    policy_id = {"type": "string", "pattern": f"^{DOCUMENT_ID}$"}
    return {"type": "array", "items": policy_id, "minItems": 1, "uniqueItems": True}


def _limits_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {limit.name: _limit_schema(limit) for limit in LIMITS},
    }


def _scope_schema(text: Mapping[str, Any]) -> dict[str, Any]:
    names = {"type": "array", "items": dict(text), "minItems": 1, "uniqueItems": True}
    conditions = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {name: names for name in SCOPE_ATTRIBUTES if name != "surface"}
        | {"surface": {"enum": list(SURFACES), "description": "Through the tool, or through the button."}},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["limits"],
        "anyOf": [{"required": ["match"]}, {"required": ["except"]}],
        "properties": {
            "match": {**conditions, "description": "Only for whom every key is met by one of its values."},
            "except": {**conditions, "description": "Not for whom any key is met by one of its values."},
            "description": {**text, "description": "What it is for."},
            "limits": {"$ref": "#/properties/limits"},
        },
    }


def _limit_schema(limit: Limit[Any]) -> dict[str, Any]:
    value = limit.kind.schema()
    statements = {
        "lock": {**value, "description": "Exactly this."},
        "ceiling": {**value, "description": "Nothing looser than this."},
        "default": {**value, "description": "This, where nobody chooses."},
    }
    remarks = {
        "reason": {**plain_text_schema(), "description": "Shown to people."},
        "env_may_loosen": {"type": "boolean", "description": "May an environment lock be looser? True if left out."},
    }
    table = {
        "type": "object",
        "additionalProperties": False,
        "properties": {**statements, **remarks},
        "anyOf": [{"required": [name]} for name in statements],
        "dependentSchemas": {"lock": {"properties": {"ceiling": False, "default": False}}},
    }
    kind = limit.kind
    end = f" Stricter is {str(kind.strict).lower()}." if isinstance(kind, Switch) else ""
    return {
        "description": f"{limit.description}.{end} A value of its own is a lock.",
        "if": {"type": "object"},
        "then": table,
        "else": value,
    }


def _json_image(value: object) -> object:
    """The document as JSON would hold it, with dates told apart from texts."""
    match value:
        case dict():
            return {key: _json_image(item) for key, item in value.items()}
        case list():
            return [_json_image(item) for item in value]
        case datetime() if value.tzinfo is not None:
            return TomlDate(value.isoformat())
        case _:
            return value


def _is_integer(_checker: TypeChecker, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _formats() -> FormatChecker:
    checker = FormatChecker(formats=())
    checker.checks("date-time")(lambda value: isinstance(value, TomlDate))
    checker.checks("destination", raises=ValueError)(_is_destination)
    return checker


def _is_destination(value: object) -> bool:
    # What is no text is refused by its type, in words that fit it.
    return not isinstance(value, str) or bool(parse_destination(value))


def _type_errors(
    validator: Validator, types: str, instance: object, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """As jsonschema has it, but a date is no text, and stands only where the format asks for one."""
    if schema.get("format") == "date-time":
        return  # the format judges the type as well
    if isinstance(instance, TomlDate):
        yield jsonschema.ValidationError(f"a date is not of type {types}")
        return
    yield from Draft202012Validator.VALIDATORS["type"](validator, types, instance, schema)


def _pattern_errors(
    _validator: Validator, pattern: str, instance: object, _schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """As jsonschema has it, but `$` is the end, as in ECMA-262; Python's also stands before a last line feed."""
    if isinstance(instance, str) and not re.search(pattern.replace("$", r"\Z"), instance):
        yield jsonschema.ValidationError(f"it does not match {pattern}")


_StrictValidator = extend(  # type: ignore[no-untyped-call]  # its stubs leave it so
    Draft202012Validator,
    validators={"type": _type_errors, "pattern": _pattern_errors},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)
