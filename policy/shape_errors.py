"""What is wrong with the shape of a TOML table: jsonschema, the one authority on shape, held to what TOML tells apart.

Two things TOML tells apart and JSON does not are told apart here too: `1` and `1.0`, and a date and a text that looks
like one. jsonschema takes longer to load than all else a command does, so this module is imported only once something
is known to be wrong; see `policy/shape.py`.

Source: JSON Schema 2020-12; RFC 3339 for dates.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import jsonschema
from jsonschema import Draft202012Validator, FormatChecker, TypeChecker
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from policy.destinations import parse_destination
from policy.shape import ShapeError, TomlDate, schema_regex


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
    """As jsonschema has it, but read as ECMA-262 has it."""
    if isinstance(instance, str) and not schema_regex(pattern).search(instance):
        yield jsonschema.ValidationError(f"it does not match {pattern}")


_StrictValidator = extend(  # type: ignore[no-untyped-call]  # its stubs leave it so
    Draft202012Validator,
    validators={"type": _type_errors, "pattern": _pattern_errors},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)
