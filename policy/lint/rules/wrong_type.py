"""SBP009: a value of another type than its key takes."""

import re
import tomllib
from dataclasses import replace
from typing import Any

from policy.errors import Flaw
from policy.limits import Limit, limit_named
from policy.lint.findings import Edit, Fix, Found, Severity
from policy.lint.rule import Example, Family, FlawRule, Suppressible
from policy.lint.spans import value_span
from policy.lint.subjects import PolicyFile
from policy.positions import KeyPath
from policy.statements import Verb

_PLAIN = re.compile(r"(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,3})?|true|false")
_VERBS = frozenset(verb.value for verb in Verb)
_LONGEST = 40


def _fixed(file: PolicyFile, found: Found) -> Found:
    limit, positions = _limit_at(found.path), file.located
    span = value_span(file.text, positions, found.path) if limit and positions else None
    if limit is None or span is None:
        return found
    text = _quoted_text(file.text[span.start : span.end])
    if not _is_value(limit, text):
        return found
    edit = Edit(start=span.start, end=span.end, text=text)
    return replace(found, fix=Fix(description=f"Remove the quotes around {text}", edits=(edit,)))


def _limit_at(path: KeyPath) -> Limit[Any] | None:
    """The limit whose value a path is for."""
    *table, last = path[:-1] if path[-1] in _VERBS else path
    return limit_named(str(last)) if table and table[-1] == "limits" else None


def _quoted_text(spelling: str) -> str:
    """What a value says that is a short text; empty for every other value."""
    if spelling[0] not in ("'", '"') or len(spelling) > _LONGEST:
        return ""
    try:
        value = tomllib.loads(f"value = {spelling}")["value"]
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


def _is_value(limit: Limit[Any], text: str) -> bool:
    """Whether a text that is a plain number or switch would be a value of the limit without its quotes."""
    if not _PLAIN.fullmatch(text):
        return False
    try:
        limit.kind.from_native(tomllib.loads(f"value = {text}")["value"])
    except ValueError:
        return False
    return True


RULE = FlawRule(
    id="SBP009",
    name=Flaw.WRONG_TYPE.value,
    flaw=Flaw.WRONG_TYPE,
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="A value has another type than its key takes.",
    rationale=(
        'TOML tells 30, 30.0, true and "30" apart, and so do we: no value is guessed from another type, since a '
        "guess can be looser than what was meant. A server refuses the file."
    ),
    bad=Example(policy='[limits]\nmax_runtime_seconds = "30"\n'),
    good=Example(policy="[limits]\nmax_runtime_seconds = 30\n"),
    fix="Removes the quotes of a number or of true and false, where that makes it a valid value of its limit.",
    suppressible=Suppressible.NEVER,
    fixed=_fixed,
)
