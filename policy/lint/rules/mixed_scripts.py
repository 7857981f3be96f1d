"""SBP019: a name with letters of another alphabet that look like those beside them."""

import re
import unicodedata
from collections.abc import Iterator
from itertools import chain

from policy.lint.findings import Found, Severity
from policy.lint.names import instance_names, scope_names
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup
from policy.positions import KeyPath

_WORD = re.compile(r"[^\W\d_]+")
_ALPHABETS = ("LATIN", "CYRILLIC", "GREEK")
# Letters that look like one of ASCII in most typefaces. Source: confusables.txt of Unicode Technical Standard 39.
_LOOKS_LIKE = str.maketrans(
    "\u0430\u0441\u0501\u0435\u04bb\u0456\u0458\u043e\u0440\u0455\u051d\u0445\u0443"
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425"
    "\u03b1\u03b9\u03bd\u03bf\u03c1\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a7\u03a5\u0396",
    "acdehijopswxyABCEHIJKMOPSTXaivopABEHIKMNOPTXYZ",
)


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    if file.text.isascii() and "\\" not in file.text:
        return
    alike: dict[tuple[str | int, str], tuple[KeyPath, str]] = {}
    for path, name in chain(instance_names(file), scope_names(file)):
        composed = unicodedata.normalize("NFC", name)
        of_its_kind = (path[-2], composed.translate(_LOOKS_LIKE))
        first_path, first = alike.setdefault(of_its_kind, (path, composed))
        if first != composed:
            there = file.location(first_path)
            yield Found(
                path=path,
                message=f"{_told_apart(composed)} looks like {_told_apart(first)} in line {there.line}, yet is another",
                remedy="Type both with one alphabet, or take one out",
                related=(there,),
            )
        elif not name.isascii():
            yield from _mixed_words(path, composed)


def _mixed_words(path: KeyPath, name: str) -> Iterator[Found]:
    for word in _WORD.findall(name):
        foreign = [letter for letter in word if _alphabet(letter) in _ALPHABETS[1:]]
        if foreign and any(_alphabet(letter) == _ALPHABETS[0] for letter in word):
            yield Found(
                path=path,
                message=f"{name!r} mixes Latin letters with {_named(foreign)} in one word",
                remedy="Type the word with one alphabet",
            )
            return


def _alphabet(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _told_apart(name: str) -> str:
    foreign = [letter for letter in name if not letter.isascii()]
    return f"{name!r} (with {_named(foreign)})" if foreign else repr(name)


def _named(letters: list[str]) -> str:
    from policy.toml_words import character_name  # noqa: PLC0415 -- only where something is found

    most = 3
    distinct = list(dict.fromkeys(letters))
    more = f" and {len(distinct) - most} more" if len(distinct) > most else ""
    return f"{', '.join(map(character_name, distinct[:most]))}{more}"


RULE = DocumentRule(
    id="SBP019",
    name="mixed-scripts",
    family=Family.SHAPE,
    severity=Severity.WARNING,
    summary="A name mixes alphabets in one word, or looks like another name of the file.",
    rationale=(
        "A group spelled with a Cyrillic letter looks like the real one and is another one, so a scope that should "
        "tighten is for nobody, or an exception lets somebody out whom no reviewer sees."
    ),
    bad=Example(
        policy='[[scope]]\nmatch.groups = ["\u0455tudents"] # this s is Cyrillic\nlimits.max_cpus.ceiling = 0.5\n'
    ),
    good=Example(policy='[[scope]]\nmatch.groups = ["students"]\nlimits.max_cpus.ceiling = 0.5\n'),
    check=_check,
)
