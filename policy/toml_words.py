"""What is wrong with a TOML text, or with the shape of its table, in words that need no schema to be understood.

Loaded only once something is known to be wrong. A remedy names the loosest value only to whoever meant to write it.

Source: TOML 1.0.0; the keywords are those of `policy/schema.py`.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from types import MappingProxyType
from typing import Any

from policy.errors import Flaw
from policy.positions import KeyPath
from policy.schema import PLAIN_TEXT
from policy.settings import DOCUMENT_ID
from policy.shape import ShapeError, TomlDate
from policy.values import UNLIMITED

_LONGEST_SHOWN_VALUE = 80
_LONGEST_SHOWN_LINE = 500
_WHOLE_HEAD = 3
_EXAMPLE_DATE = "2026-11-01T00:00:00Z"
_LONGEST_ID = 64
_QUOTED_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_QUOTED_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9:]{5})"
)
_TYPE_WORDS = MappingProxyType(
    {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "array": "a list",
        "object": "a table",
    }
)
_KIND_WORDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((dict,), "is a table"),
    ((list,), "is a list"),
    ((bool,), "is a truth value"),
    ((int,), "is a whole number"),
    ((float,), "is a number with a point"),
    ((TomlDate,), "is a date"),
    ((str,), "is a text"),
)
# How tomllib begins what it says of a key that is stated twice.
_TWICE = re.compile("Cannot overwrite|Cannot declare|Duplicate inline table key|Cannot mutate immutable namespace")
# What people write in place of TOML, by the line in which it cannot be read on: none of it is TOML anywhere.
_NAME = r"[^=#\"']*"
_SYNTAX_HINTS = (
    (r"[ \t]*[{<]", "Write lines of key = value: TOML is neither JSON nor XML"),
    ("[^#\"']*[\u2018-\u201f\u00ab\u00bb]", 'Write straight quotes: "'),
    (r"[ \t]*[\w.-]+[ \t]*:(?:[ \t]|$)", "Write key = value: TOML has no colon between them"),
    (rf"{_NAME}=[ \t]*(?:True|TRUE|False|FALSE)\b", "Write true or false in lower case"),
    (rf"{_NAME}=[ \t]*(?:#|$)", "Write a value after the ="),
    (rf"{_NAME}=[ \t]*[+-]?0[0-9]", "Write the number without zeros before it"),
    (rf"{_NAME}=[ \t]*[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}", f"Write a date that exists, such as {_EXAMPLE_DATE}"),
    (rf"{_NAME}=[ \t]*[+-]?[0-9][0-9._]*[ \t]*[A-Za-z]", "Write the number alone: its unit is in the key's name"),
    (rf"{_NAME}=[ \t]*(?!true|false|inf|nan)[A-Za-z]", "Put a text in quotes"),
    (rf"{_NAME}=[^\[{{#]*,[ \t]*(?:#|$)", "Remove the comma at the end of the line"),
    (rf"{_NAME}=[ \t]*{{", "Write { key = value, … } in one line, without a comma before its }"),
    (r"[ \t]*\[[^\]]*$", "Close the bracket of the header"),
    (r"[^=\[\]#\"']+$", "Write key = value"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlawWords:
    """One thing that is wrong, without its place."""

    flaw: Flaw
    """What kind of thing."""
    reason: str
    """Why it is refused, without full stop."""
    remedy: str
    """What to do about it, without full stop."""


# Texts that are no TOML.


def syntax_words(said: str, line: str, *, at_end: bool) -> FlawWords:
    """What keeps a text from being TOML.

    Args:
        said: what its reader says.
        line: the line that it names.
        at_end: whether nothing but blanks follows there.
    """
    if _TWICE.match(said):
        reason = f"it is not TOML, which states each key once: {said}"
        return FlawWords(flaw=Flaw.DUPLICATE_KEY, reason=reason, remedy="Keep one of the two")
    remedy = _syntax_remedy(said, line[:_LONGEST_SHOWN_LINE], at_end=at_end)
    return FlawWords(flaw=Flaw.NOT_TOML, reason=f"it is not TOML: {said}", remedy=remedy)


def _syntax_remedy(said: str, line: str, *, at_end: bool) -> str:
    if "Illegal character '\\n'" in said:
        return "Close the quotes in that line"
    foreign = re.match(r"[ \t]*\[{0,2}[^=#\"'\]\x80-\U0010ffff]*([^\x00-\x7f\u2018-\u201f])[^=#\"'\]]*[=\]]", line)
    if foreign:
        return f"Spell the key with a-z, 0-9, _ and -: it holds {character_name(foreign[1])}"
    if at_end and not line.strip():
        return "Close what was opened before: quotes, a bracket or a brace"
    hints = (remedy for pattern, remedy in _SYNTAX_HINTS if re.match(pattern, line))
    return next(hints, "Correct the syntax; https://toml.io shows it")


def character_name(character: str) -> str:
    """A character by code point and name, as Unicode has them: `U+0430 CYRILLIC SMALL LETTER A`."""
    code = f"U+{ord(character):04X}"
    name = unicodedata.name(character, "")
    return f"{code} {name}" if name else code


# Keys that nobody knows.


def unknown_key_words(path: KeyPath, error: ShapeError, schema: Mapping[str, Any]) -> FlawWords:
    """What is wrong with a key that is not known where it stands."""
    key = str(path[-1])
    foreign = next((character for character in key if not character.isascii()), None)
    told = "" if foreign is None else f"; it holds {character_name(foreign)}"
    return FlawWords(
        flaw=Flaw.UNKNOWN_KEY if foreign is None else Flaw.LOOK_ALIKE_KEY,
        reason=f"there is no such key{told}",
        remedy=_key_remedy(path, error.known_keys, schema),
    )


def _key_remedy(path: KeyPath, known: Sequence[str], schema: Mapping[str, Any]) -> str:
    key = str(path[-1])
    plain = key.casefold().replace("-", "_").removeprefix("sandbox_")
    top = schema.get("properties", {})
    limits = top.get("limits", {}).get("properties", {})
    if plain in known:
        return f"You may have meant {plain}"
    if len(path) == 1 and key == "case":
        return "Keep cases for policy test in a file of their own, outside the folder of policies"
    if key in top:
        return "Move it to the top of the file: what follows a [header] belongs to that table"
    if plain in limits:
        spelt = "" if plain == key else f", as {plain}"
        return f"Write limits.{plain}" if path[0] == "scope" else f"Move it under [limits]{spelt}"
    parts = [each for each in known if f"_{plain}_" in f"_{each}_"]
    alike = parts if len(parts) == 1 else difflib.get_close_matches(plain[:_LONGEST_SHOWN_VALUE], known, n=1)
    return f"You may have meant {alike[0]}" if alike else f"Known here: {', '.join(known)}"


# Breaches of the schema.


def telling_breaches(errors: Iterable[ShapeError]) -> Iterator[ShapeError]:
    """These breaches, each of one place, without those that only repeat what another one says of the same value."""
    found = tuple(errors)
    said = {(error.path, error.rule) for error in found}
    for error in found:
        if (error.path, _said_by(error)) not in said:
            yield from _single_breaches(error)


def _said_by(error: ShapeError) -> str | None:
    """The keyword whose breach says all that this one does, where there can be one."""
    if error.rule == "format" and error.value == "":
        return "minLength"
    return "type" if error.rule == "const" else None


def _single_breaches(error: ShapeError) -> Iterator[ShapeError]:
    """One breach for each item of a list that stood before, and every other breach as it is."""
    if error.rule != "uniqueItems":
        yield error
        return
    items = error.value
    for number, item in enumerate(items):
        if item in items[:number]:
            yield replace(error, path=(*error.path, number), value=item)


def breach_words(error: ShapeError) -> FlawWords:
    """What one breach of the schema is."""
    flaw, reason, remedy = _BREACH_TEXTS.get(error.rule, _other_text)(error)
    return FlawWords(flaw=flaw, reason=reason, remedy=remedy)


def _missing_text(error: ShapeError) -> tuple[Flaw, str, str]:
    lacking = [key for key in error.expected if key not in error.value]
    remedy = "Add it" if len(lacking) == 1 else "Add them"
    if "schema" in lacking and len(lacking) >= _WHOLE_HEAD:
        remedy = "Add them; policy init writes a whole file"
    return Flaw.MISSING_KEY, f"it lacks {', '.join(lacking)}", remedy


def _type_text(error: ShapeError) -> tuple[Flaw, str, str]:
    if error.value == UNLIMITED.value and error.expected == "integer" and "limits" in error.path:
        return Flaw.WRONG_TYPE, "it cannot be unlimited", "Write a whole number"
    wanted = _TYPE_WORDS.get(error.expected, error.expected)
    remedy = _type_remedy(error) or f"Write {wanted}"
    return Flaw.WRONG_TYPE, f"{_kind_text(error.value)}, not {wanted}", remedy


def _kind_text(value: object) -> str:
    """What a value is, in words that go on with `, not …`."""
    words = next((words for types, words in _KIND_WORDS if isinstance(value, types)), "is a date or time")
    return f"it {words}" if isinstance(value, dict | list) else f"{_short_value(value)} {words}"


def _type_remedy(error: ShapeError) -> str:
    """How to write what is probably meant; empty where that cannot be told."""
    match error.value:
        case str() as text if not isinstance(text, TomlDate):
            return _text_remedy(text, error.expected)
        case float() as number if error.expected == "integer" and number.is_integer():
            return f"Write {number:.0f}"
        case dict() if error.path == ("scope",):
            return "Write [[scope]], with two brackets"
        case list() if error.path == ("limits",):
            return "Write [limits], with one bracket"
        case (int() | float() | TomlDate()) as plain if error.expected == "string":
            return f'Write "{_short_value(plain)}", in quotes'
    return ""


def _text_remedy(text: str, expected: str) -> str:
    """How to write what somebody quoted."""
    if expected in ("integer", "number") and _QUOTED_NUMBER.fullmatch(text):
        return f"Write {text} without quotes"
    if expected == "boolean" and text.lower() in ("true", "false"):
        return f"Write {text.lower()} without quotes"
    if expected == "array" and text == "none":
        return "Write [] for none"
    if expected == "array" and re.fullmatch(r'[^\\",\n]{1,60}', text):
        return f'Write ["{text}"]'
    return ""


def _format_text(error: ShapeError) -> tuple[Flaw, str, str]:
    if error.expected == "date-time":
        return Flaw.DATE_WITHOUT_OFFSET, *_offset_text(error.value)
    scheme, is_url, rest = str(error.value).partition("://")
    if not is_url:
        return Flaw.BAD_DESTINATION, error.cause, "Correct the item"
    host = re.split("[/?#]", rest.rpartition("@")[2], maxsplit=1)[0].lower()
    port = "" if ":" in host else {"https": ":443", "http": ":80"}.get(scheme.lower(), "")
    reason = f"{_short_value(error.value)} is a URL, and an item is a host with or without a port"
    return Flaw.BAD_DESTINATION, reason, f"Write {_short_value(host + port)}" if host else "Write a host"


def _offset_text(value: object) -> tuple[str, str]:
    shown = value.isoformat() if isinstance(value, date) else _short_value(value)
    match value:
        case datetime():
            return f"{shown} has no offset from UTC", f"Write {shown}Z if it is in UTC, else its offset, as in +01:00"
        case date():
            return f"{shown} has neither time nor offset from UTC", f"Write {shown}T00:00:00Z if it is in UTC"
        case str() if _QUOTED_DATE.fullmatch(value):
            return f"{shown} is a text, not a date", f"Write {value} without quotes"
    return f"{shown} is not a date with an offset", f"Write one such as {_EXAMPLE_DATE}, without quotes"


def _range_text(error: ShapeError) -> tuple[Flaw, str, str]:
    number, end = error.value, error.expected
    if error.rule == "maximum":
        return Flaw.OUT_OF_RANGE, f"{number} is above the greatest permitted value, {end}", f"Write {end} or less"
    hint = "; it does not mean unlimited" if number <= 0 and "limits" in error.path else ""
    return Flaw.OUT_OF_RANGE, f"{number} is below the least permitted value, {end}{hint}", f"Write {end} or more"


def _const_text(error: ShapeError) -> tuple[Flaw, str, str]:
    """One value alone, be it that of the schema or the word beside numbers: never ask for the loosest value."""
    if error.expected != UNLIMITED.value:
        return Flaw.BAD_VALUE, f"{_short_value(error.value)} is not {error.expected}", f"Write {error.expected}"
    reason, text = f"{_kind_text(error.value)}, not a number", str(error.value)
    remedy = _text_remedy(text, "number") or f'Write a number without quotes, or the word "{UNLIMITED.value}"'
    if text.strip().casefold() == UNLIMITED.value:
        remedy = f'Write a number, or "{UNLIMITED.value}" in lower case'
    return Flaw.WRONG_TYPE, reason, remedy


def _choice_text(error: ShapeError) -> tuple[Flaw, str, str]:
    choices = [str(choice) for choice in error.expected]
    reason = f"{_short_value(error.value)} is not one of {', '.join(choices)}"
    meant = error.value[0] if isinstance(error.value, list) and len(error.value) == 1 else error.value
    alike = difflib.get_close_matches(str(meant)[:_LONGEST_SHOWN_VALUE].lower(), choices, n=1)
    return Flaw.BAD_VALUE, reason, f'You may have meant "{alike[0]}"' if alike else "Choose among them"


def _empty_text(error: ShapeError) -> tuple[Flaw, str, str]:
    last = error.path[-1] if error.path else ""
    if error.rule == "minItems":
        reason, remedy = "it names nothing", "Name at least one, or leave the key out"
    elif error.path[:1] == ("scope",) and "limits" not in error.path:
        reason = "it does not say whom it is for"
        remedy = "Write match or except, each with roles, groups, users, models, surface"
    elif last in ("limits", "expect"):
        reason, remedy = "it says nothing", "State a limit, such as networking_allowed = false"
    else:
        reason, remedy = "it says nothing", "State a lock, a ceiling or a default"
    return Flaw.SAYS_NOTHING, reason, remedy


def _repeated_text(error: ShapeError) -> tuple[Flaw, str, str]:
    return Flaw.REPEATED_ITEM, f"{_short_value(error.value)} stands in the list already", "Remove it"


def _lock_text(_error: ShapeError) -> tuple[Flaw, str, str]:
    return Flaw.LOCK_BESIDE_OTHERS, "nothing else may be stated beside a lock", "Remove one of them"


def _other_text(error: ShapeError) -> tuple[Flaw, str, str]:
    value, expected = _short_value(error.value), error.expected
    reason, remedy = f"{value} breaks the rule {error.rule} = {_short_value(expected)}", "Correct the value"
    match error.rule:
        case "pattern" if expected == PLAIN_TEXT:
            reason = f"{value} holds a line break, a control or a bidirectional character"
            remedy = "Write plain text in one line"
        case "pattern" if expected == f"^{DOCUMENT_ID}$":
            alike = re.sub(r"[^a-z0-9]+", "-", str(error.value).lower()).strip("-")[:_LONGEST_ID]
            reason = f"{value} is no id: 1 to {_LONGEST_ID} of a-z, 0-9 and -"
            remedy = f'Write one, such as "{alike}"' if alike else "Write one"
        case "minLength":
            reason, remedy = "it is an empty text", "Write something, or leave it out"
        case "maxLength":
            reason, remedy = f"it has {len(error.value)} characters, more than {expected}", "Shorten it"
        case "maxItems":
            reason, remedy = f"it has {len(error.value)} items, more than {expected}", "Shorten the list"
    return Flaw.BAD_VALUE, reason, remedy


def _short_value(value: object) -> str:
    text = repr(value) if isinstance(value, str | list) and not isinstance(value, TomlDate) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    return text if len(text) <= _LONGEST_SHOWN_VALUE else f"{text[:_LONGEST_SHOWN_VALUE]}…"


_BREACH_TEXTS: Mapping[str, Callable[[ShapeError], tuple[Flaw, str, str]]] = MappingProxyType(
    {
        "required": _missing_text,
        "type": _type_text,
        "format": _format_text,
        "minimum": _range_text,
        "maximum": _range_text,
        "const": _const_text,
        "enum": _choice_text,
        "anyOf": _empty_text,
        "minProperties": _empty_text,
        "minItems": _empty_text,
        "uniqueItems": _repeated_text,
        "false": _lock_text,
    }
)
