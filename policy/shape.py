"""The shape of a TOML table: a JSON Schema, and a quick yes to what it permits.

jsonschema is the one authority on shape: `shape_errors` asks it what is wrong. Most files are as they should be, and
for those loading it costs more than all else a command does, and asking it more than reading them. So the keywords
that our schemas use are compiled to functions over values as TOML has them, which only say that nothing is wrong. Upon
a no the authority is asked, and decides; only a wrong yes could let anything through. Hence what is not known here is
refused when a schema is compiled, and what is in doubt gets a no.

Source: JSON Schema 2020-12, Core and Validation.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import getitem
from types import MappingProxyType
from typing import Any

from policy.destinations import parse_destination

ShapeCheck = Callable[[Any], bool]
"""Whether a value, as TOML has it, keeps to a schema, or to one keyword of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a TOML table has to look like."""

    schema: Mapping[str, Any]
    """The JSON Schema."""
    accepts: ShapeCheck
    """Whether nothing is wrong with a table; what is, `shape_errors` says."""


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


def compiled_shape(schema: Mapping[str, Any]) -> Shape:
    """Compile a JSON Schema, once for all tables that are held against it.

    Raises:
        ValueError: the schema has a keyword, or says something of one, that is not known here.
    """
    return Shape(schema=schema, accepts=_ShapeCompiler(schema).compiled(schema))


def schema_regex(pattern: str) -> re.Pattern[str]:
    """A pattern as ECMA-262 reads it: `$` is the end; Python's also stands before a last line feed."""
    return re.compile(pattern.replace("$", r"\Z"))


class _ShapeCompiler:
    """Compiles one schema, and what it refers to once."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._referred: dict[str, ShapeCheck] = {}

    def compiled(self, schema: Any) -> ShapeCheck:  # noqa: ANN401 -- a table, true or false
        """The check of one schema within the whole."""
        if isinstance(schema, bool):
            return lambda _value: schema
        keywords = schema.keys() - _SILENT_KEYWORDS
        if schema.get("format") == "date-time":
            keywords.discard("type")  # the format judges the type as well
        return _all_of(tuple(self._keyword_check(keyword, schema) for keyword in schema if keyword in keywords))

    def _keyword_check(self, keyword: str, schema: Mapping[str, Any]) -> ShapeCheck:
        if keyword in _VALUE_KEYWORDS:
            return _VALUE_KEYWORDS[keyword](schema[keyword])
        if keyword in _SCHEMA_KEYWORDS:
            return _SCHEMA_KEYWORDS[keyword](schema, self)
        raise ValueError(f"a schema with {keyword} cannot be compiled")

    def referred(self, reference: str) -> ShapeCheck:
        """The check of a schema elsewhere in the whole."""
        if reference not in self._referred:
            start, *keys = reference.split("/")
            if start != "#":
                raise ValueError(f"a reference to {reference} cannot be compiled")
            self._referred[reference] = self.compiled(reduce(getitem, keys, self._root))
        return self._referred[reference]


def _all_of(checks: tuple[ShapeCheck, ...]) -> ShapeCheck:
    def accepts(value: object) -> bool:
        for check in checks:  # noqa: SIM110 -- `all` with a generator takes twice the time
            if not check(value):
                return False
        return True

    return checks[0] if len(checks) == 1 else accepts


# Keywords that hold no schema. Each is given what the schema says of it.


def _type_check(said: object) -> ShapeCheck:
    types = _TOML_TYPES.get(str(said))
    if types is None:
        raise ValueError(f"type {said} cannot be compiled")
    return lambda value: type(value) in types


def _format_check(said: object) -> ShapeCheck:
    match said:
        case "date-time":
            return lambda value: isinstance(value, datetime) and value.tzinfo is not None
        case "destination":
            return _of_text(_is_item_of_allowlist)
    raise ValueError(f"format {said} cannot be compiled")


def _is_item_of_allowlist(text: str) -> bool:
    try:
        return bool(parse_destination(text))
    except ValueError:
        return False


def _is_distinct(value: object) -> bool:
    # Whether two values are equal that are no texts is in doubt: `1`, `1.0` and `true` are one to Python.
    return not isinstance(value, list) or ({str}.issuperset(map(type, value)) and len(set(value)) == len(value))


def _enum_check(said: Iterable[object]) -> ShapeCheck:
    choices = tuple(said)
    if not all(isinstance(choice, str | int) for choice in choices):
        raise ValueError(f"a choice among {choices} cannot be compiled")
    exact = frozenset((type(choice), choice) for choice in choices)  # `True` is 1, and yet another value
    return lambda value: isinstance(value, str | int) and (type(value), value) in exact


def _of_keys(check: Callable[[Iterable[str]], bool]) -> ShapeCheck:
    return lambda value: not isinstance(value, dict) or check(value.keys())


def _of_text(check: Callable[[str], object]) -> ShapeCheck:
    """Hold texts against a keyword; a date is one to the authority, so it is asked."""
    return lambda value: bool(check(value)) if isinstance(value, str) else not isinstance(value, datetime)


_NUMBERS = (int, float)  # and no `bool`
_TOML_TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "boolean": (bool,),
        "integer": (int,),
        "number": _NUMBERS,
    }
)
_VALUE_KEYWORDS: Mapping[str, Callable[[Any], ShapeCheck]] = MappingProxyType(
    {
        "type": _type_check,
        "const": lambda said: _enum_check([said]),
        "enum": _enum_check,
        # Not `said <= value`: a NaN is neither below nor above, and left to whoever reads the number.
        "minimum": lambda said: lambda value: type(value) not in _NUMBERS or not value < said,
        "maximum": lambda said: lambda value: type(value) not in _NUMBERS or not value > said,
        "minLength": lambda said: _of_text(lambda text: len(text) >= said),
        "maxLength": lambda said: _of_text(lambda text: len(text) <= said),
        "pattern": lambda said: _of_text(schema_regex(said).search),
        "format": _format_check,
        "minProperties": lambda said: lambda value: not isinstance(value, dict) or len(value) >= said,
        "required": lambda said: _of_keys(frozenset(said).issubset),
        "minItems": lambda said: lambda value: not isinstance(value, list) or len(value) >= said,
        "maxItems": lambda said: lambda value: not isinstance(value, list) or len(value) <= said,
        "uniqueItems": lambda _said: _is_distinct,
    }
)


# Keywords that hold schemas. Each is given the schema it stands in.


def _properties_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    checks = {name: compiler.compiled(inner) for name, inner in schema["properties"].items()}

    def accepts(value: object) -> bool:
        for key, item in value.items() if isinstance(value, dict) else ():
            check = checks.get(key)
            if check is not None and not check(item):
                return False
        return True

    return accepts


def _additional_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    known = frozenset(schema.get("properties", ()))
    if schema["additionalProperties"] is False:
        return lambda value: not isinstance(value, dict) or value.keys() <= known
    check = compiler.compiled(schema["additionalProperties"])
    return lambda value: not isinstance(value, dict) or all(check(value[key]) for key in value.keys() - known)


def _names_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    check = compiler.compiled(schema["propertyNames"])
    return lambda value: not isinstance(value, dict) or all(map(check, value))


def _items_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    check = compiler.compiled(schema["items"])
    return lambda value: not isinstance(value, list) or all(map(check, value))


def _any_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    checks = tuple(map(compiler.compiled, schema["anyOf"]))

    def accepts(value: object) -> bool:
        for check in checks:  # noqa: SIM110 -- as in `_all_of`
            if check(value):
                return True
        return False

    return accepts


def _condition_check(schema: Mapping[str, Any], compiler: _ShapeCompiler) -> ShapeCheck:
    if not _CERTAIN_KEYWORDS.issuperset(schema["if"]):
        raise ValueError("a condition can only be compiled of keywords that are never in doubt: a no opens its `else`")
    condition, then, otherwise = (compiler.compiled(schema.get(keyword, True)) for keyword in ("if", "then", "else"))
    return lambda value: then(value) if condition(value) else otherwise(value)


_SCHEMA_KEYWORDS: Mapping[str, Callable[[Mapping[str, Any], _ShapeCompiler], ShapeCheck]] = MappingProxyType(
    {
        "$ref": lambda schema, compiler: compiler.referred(schema["$ref"]),
        "additionalProperties": _additional_check,
        "propertyNames": _names_check,
        "properties": _properties_check,
        "items": _items_check,
        "if": _condition_check,
        "anyOf": _any_check,
    }
)
_CERTAIN_KEYWORDS = frozenset({"type", "required"})
_SILENT_KEYWORDS = frozenset({"$schema", "title", "description", "then", "else"})
"""What says nothing of a value, or only beside `if`."""
