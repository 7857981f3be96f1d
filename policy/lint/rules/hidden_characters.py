"""SBP018: characters that nobody sees, and that can make a text read differently from what it says."""

import re
import unicodedata
from collections.abc import Iterator

from policy.lint.findings import Found, Location, Severity
from policy.lint.rule import Example, Family, Suppressible, TextRule
from policy.lint.subjects import PolicyFile, Setup

_UNUSUAL = re.compile("[^\t\n\r -~]+")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp"})
# Letters and marks that are drawn as nothing: the fillers of Hangul, the selectors of variants, the Braille blank; and
# what Unicode keeps for more of them (Default_Ignorable_Code_Point).
_HIDDEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
# Signs of Arabic and its kin that stand around numbers: of this category, and seen.
_SEEN = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
# What `encoding` reports, once for a file that may hold it in every line.
_SAID_BY_ENCODING = frozenset("\0\ufeff")
_EMOJI_SELECTOR, _JOINER = "\ufe0f", "\u200d"
_MOST_FOUND = 100
_MOST_NAMED = 4


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    text = file.text
    if text.isascii() and file.reading is not None:  # TOML itself refuses every control character of ASCII
        return
    line, counted, found = 1, 0, 0
    for stretch in _UNUSUAL.finditer(text):
        for start, hidden in _hidden_runs(text, stretch.start(), stretch.end()):
            found += 1
            if found > _MOST_FOUND:
                return
            line += text.count("\n", counted, start)
            counted = start
            column = start - text.rfind("\n", 0, start)
            location = Location(file=file.name, line=line, column=column, end_column=column + len(hidden))
            yield Found(message=_message(hidden, is_last=found == _MOST_FOUND), remedy=_REMEDY, location=location)


_REMEDY = "Remove it; where a text needs it, write its code point in a basic string, as in \\u200B"


def _hidden_runs(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    """Hidden characters in a stretch of a text, those beside each other as one."""
    begun = start
    for at in range(start, end + 1):
        if at < end and _is_hidden(text, at):
            continue
        if begun < at:
            yield begun, text[begun:at]
        begun = at + 1


def _is_hidden(text: str, at: int) -> bool:
    character = text[at]
    if character in _SAID_BY_ENCODING or _SEEN.match(character):
        return False
    if character == _EMOJI_SELECTOR:
        return not _is_symbol(text, at - 1)
    if character == _JOINER and _is_symbol(text, at + 1):
        return not (_is_symbol(text, at - 1) or text[at - 1 : at] == _EMOJI_SELECTOR)
    return unicodedata.category(character) in _HIDDEN_CATEGORIES or bool(_HIDDEN.match(character))


def _is_symbol(text: str, at: int) -> bool:
    """Whether a symbol such as an emoji stands there, of which a selector or joiner only chooses the picture."""
    return 0 <= at < len(text) and unicodedata.category(text[at]) in {"So", "Sk"}


def _message(hidden: str, *, is_last: bool) -> str:
    from policy.toml_words import character_name  # noqa: PLC0415 -- only where something is found

    named = ", ".join(map(character_name, hidden[:_MOST_NAMED]))
    more = f" and {len(hidden) - _MOST_NAMED} more" if len(hidden) > _MOST_NAMED else ""
    rest = f"; after {_MOST_FOUND} such places, no more are listed" if is_last else ""
    return f"nobody sees {named}{more}, which may make the text read differently from what it says{rest}"


RULE = TextRule(
    id="SBP018",
    name="hidden-characters",
    family=Family.SHAPE,
    severity=Severity.ERROR,
    summary="The text holds characters that are not seen: bidirectional controls, zero-width or control characters.",
    rationale=(
        "They reorder or hide what stands beside them, in comments and strings too, so that a reviewer approves "
        "another policy than a server reads. This is the Trojan Source attack, CVE-2021-42574."
    ),
    bad=Example(shell=r"printf '# at most \u202e06\u202c seconds\n' >> acme.toml && policy lint acme.toml"),
    good=Example(shell=r"printf '# at most 60 seconds\n' >> acme.toml && policy lint acme.toml"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
