"""Writes the text of a new policy file: TOML with the comments that teach it, out of a profile or of given locks.

Comments matter here, so the text is put together line by line and never serialised; `checked_starter` then reads it
back as any policy file is read, which proves it. Pure functions on values: time and names are passed in.
Source: TOML 1.0.0; the `#:schema` directive of Taplo and Even Better TOML, whose relative path begins at the file.
"""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from policy.document import PolicyDocument, parse_document
from policy.limits import Limit
from policy.profiles import AcceptedFinding, LimitChoice, Profile, ProfileScope
from policy.schema import SCHEMA_VERSION
from policy.signature_block import unsigned_source
from policy.statements import Verb
from policy.values import Native

SCHEMA_FILE = "policy.schema.json"
"""Where the starter's first line expects `policy schema` to have been written: beside the policy file."""

ANY_INSTANCE = "*"
"""The audience that is any instance."""

LONGEST_ACCEPTED = timedelta(days=365)
"""For how long a finding is accepted at most: `policy lint` finds a comment that holds for longer."""

_COMMENT_COLUMN = 38
_LINE_WIDTH = 114

_LESSON = """\
#
# Of each limit it says one of these, or nothing:
#
#     name = value      a lock: exactly this; nobody's valve changes it
#     ceiling = value   the loosest that anybody gets; people may choose less
#     default = value   what holds where nobody chooses
#
# `reason` is shown to people who meet the bound. `env_may_loosen = false`: not even a SANDBOX_* variable on the
# server goes past it. Of a limit that is left out, valves and built-in values decide. `policy explain --policy FILE`
# shows what comes of it all, `policy schema` has every limit with its range.
"""

_SCOPE_LESSON = """\
# Scopes: stricter limits for some. A scope is for whom every key of `match` is met and no key of `except` is. Keys
# are roles, groups (ids or names), users (ids), models, and surface ("tool": the model runs code, "function": a
# person does). Scopes only ever tighten: to give some people more, state the loose ceiling above, and the tight one
# in a scope that excepts them. Whoever cannot be told apart meets every `match` and no `except`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterHead:
    """What stands above the limits."""

    policy_id: str
    """The policy's own id."""
    issued_at: datetime
    """Now, in UTC, to the second."""
    expires_at: datetime
    """The first moment at which it no longer holds, in UTC, to the second."""
    audience: Sequence[str]
    """Instances it is for."""
    description: str
    """What it is for."""
    owner: str | None
    """Whom to ask; `None` leaves a place for it."""


def profile_starter(profile: Profile, head: StarterHead) -> str:
    """The text of a policy file that begins from a profile."""
    intro = f'A policy for sandbox-lockdown, begun from the profile "{profile.name}": {profile.summary}.'
    return "".join(
        (
            _head_text(intro, head),
            *(f"\n{block}" for block in _limit_blocks(profile.choices, head)),
            f"\n{_SCOPE_LESSON}" if profile.scopes else "",
            *(f"\n{_scope_text(scope, head)}" for scope in profile.scopes),
        )
    )


def locks_starter(intro: str, head: StarterHead, locks: Sequence[tuple[Limit[Any], Native, str]]) -> str:
    """The text of a policy file that locks some limits, each given with its value and a comment."""
    lines = "".join(_commented(f"{limit.name} = {toml_text(native)}", comment) for limit, native, comment in locks)
    return f"{_head_text(intro, head)}\n[limits]\n{lines}"


def checked_starter(text: str) -> PolicyDocument:
    """Read a new policy file's text, which proves that it can be signed and loaded.

    Raises:
        DocumentError, SignatureError: it cannot; a name that was put into it is at fault.
    """
    return parse_document(unsigned_source("the new policy", text.encode()))


def toml_text(native: Native) -> str:
    """A value as TOML writes it."""
    match native:
        case bool():
            return str(native).lower()
        case str():
            # JSON's escapes are TOML's, but TOML forbids DEL where JSON does not.
            return json.dumps(native, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml_text, native))}]"
        case _:
            return str(native)


def _head_text(intro: str, head: StarterHead) -> str:
    anybody = "any instance; better: what SANDBOX_INSTANCE is there" if ANY_INSTANCE in head.audience else ""
    owner = f"owner = {toml_text(head.owner)}" if head.owner else '# owner = "who answers for this file"'
    return "".join(
        (
            f"#:schema ./{SCHEMA_FILE}\n",
            _comment(intro),
            _LESSON,
            f"\nschema = {SCHEMA_VERSION}\n",
            f"id = {toml_text(head.policy_id)}\n",
            _commented("serial = 1", "raise it with every change"),
            f"issued_at = {_date_text(head.issued_at)}\n",
            _commented(f"expires_at = {_date_text(head.expires_at)}", "refused from then on: issue the next in time"),
            _commented(f"audience = {toml_text(list(head.audience))}", anybody or "what SANDBOX_INSTANCE is there"),
            f"description = {toml_text(head.description)}\n",
            f"{owner}\n",
        )
    )


def _limit_blocks(choices: Sequence[LimitChoice], head: StarterHead) -> Iterator[str]:
    """Plain locks first, since TOML has a table's own keys before its sub-tables; then the rest, in order."""
    locks = [choice for choice in choices if choice.is_plain_lock]
    if locks:
        lines = (f"{_why(choice)}{choice.limit.name} = {toml_text(choice.stated[Verb.LOCK])}\n" for choice in locks)
        yield f"[limits]\n{''.join(lines)}"
    for choice in choices:
        if choice.left_open:
            yield _comment(f"{choice.limit.name} is left open: {choice.why}.")
        elif not choice.is_plain_lock:
            yield f"{_why(choice)}{_table_text(choice, head)}"


def _table_text(choice: LimitChoice, head: StarterHead) -> str:
    lines = [f"{verb.value} = {toml_text(native)}\n" for verb, native in choice.stated.items()]
    lines[0] = _with_accepted(lines[0], choice.accepted, head)
    if choice.reason:
        lines.append(f"reason = {toml_text(choice.reason)}\n")
    if not choice.env_may_loosen:
        lines.append("env_may_loosen = false\n")
    return f"[limits.{choice.limit.name}]\n{''.join(lines)}"


def _scope_text(scope: ProfileScope, head: StarterHead) -> str:
    conditions = {"match": scope.conditions.match, "except": scope.conditions.excepted}
    lines = [
        f"{key}.{attribute} = {_condition_text(attribute, values)}\n"
        for key, attributes in conditions.items()
        for attribute, values in attributes.items()
    ]
    lines[0] = _with_accepted(lines[0], scope.accepted, head)
    lines += [f"limits.{limit.name}.ceiling = {toml_text(native)}\n" for limit, native in scope.ceilings]
    return f"{_comment(f'{scope.why}.')}[[scope]]\n{''.join(lines)}"


def _condition_text(attribute: str, values: frozenset[str]) -> str:
    """A condition's values: a list, but of surfaces there is one."""
    return toml_text(min(values)) if attribute == "surface" else toml_text(sorted(values))


def _with_accepted(line: str, accepted: AcceptedFinding | None, head: StarterHead) -> str:
    """The line, ended by the comment that has `policy lint` accept what it finds there while the policy holds."""
    if accepted is None:
        return line
    last = min(head.expires_at - timedelta(seconds=1), head.issued_at + LONGEST_ACCEPTED)
    comment = f'policy: ignore[{accepted.rule}] reason="{accepted.reason}" until={last:%Y-%m-%d}'
    return f"{line.rstrip()}  # {comment}\n"


def _why(choice: LimitChoice) -> str:
    return _comment(f"{choice.why[0].upper()}{choice.why[1:]}.")


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _LINE_WIDTH, break_on_hyphens=False))


def _commented(statement: str, comment: str) -> str:
    return f"{statement:<{_COMMENT_COLUMN}}# {comment}\n"


def _date_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
