"""The JSON Schema of a policy file, generated from the table of limits.

The published copy, `policy/policy.schema.json`, is for editors and reviewers; a test holds it equal to what is
generated here. What breaks it is found by `policy/shape_errors.py`, that nothing does by `policy/shape.py`, which
knows the keywords used here and no others.

Source: JSON Schema 2020-12.
"""

import json
from collections.abc import Mapping
from typing import Any

from policy.limits import LIMITS, Limit
from policy.requester import SCOPE_ATTRIBUTES, SURFACES
from policy.settings import DOCUMENT_ID, MAX_SERIAL
from policy.values import Switch

SCHEMA_VERSION = 1
"""The version of the policy file format, its `schema` key."""


PLAIN_TEXT = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069]*$"
"""One line without control or bidirectional characters, as JSON Schema and ECMA-262 spell it."""


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
        # Not dependentSchemas, which says the same: the checker behind editors passes over it.
        "if": {"required": ["lock"]},
        "then": {"properties": {"ceiling": False, "default": False}},
    }
    kind = limit.kind
    end = f" Stricter is {str(kind.strict).lower()}." if isinstance(kind, Switch) else ""
    return {
        "description": f"{limit.description}.{end} A value of its own is a lock.",
        "if": {"type": "object"},
        "then": table,
        "else": value,
    }
