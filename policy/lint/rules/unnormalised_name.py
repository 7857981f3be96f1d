"""SBP020: a name that is not spelled as those it is held against."""

import unicodedata
from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.names import instance_names, scope_names
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    for path, name in instance_names(file):
        if name != name.strip():
            yield Found(
                path=path,
                message=f"{name!r} has space around it, which SANDBOX_INSTANCE never has, so it is no instance's name",
                remedy=f"Write {name.strip()!r}",
            )
        elif not unicodedata.is_normalized("NFC", name):
            # Unlike whom a scope is for, which is brought into that form on both sides.
            yield Found(
                path=path,
                message=f"{name!r} is not in Unicode's form NFC, and meets only an instance that is spelled so as well",
                remedy="Type the name anew, or spell SANDBOX_INSTANCE in the same way",
            )
    for path, name in scope_names(file):
        if name != name.strip():
            yield Found(
                path=path,
                message=f"{name!r} has space around it, and means only who is spelled with that space",
                remedy=f"Write {name.strip()!r}",
            )


RULE = DocumentRule(
    id="SBP020",
    name="unnormalised-name",
    family=Family.SHAPE,
    severity=Severity.WARNING,
    summary="A name has space around it, or an audience is not in Unicode's normal form.",
    rationale=(
        "Names are compared letter by letter. With a space that nobody sees, a scope that should tighten is for "
        "nobody, and a file is for no instance. Names in a scope are brought to Unicode's normal form (NFC) first, so "
        "that two systems may write one letter in two ways; an audience is compared as it is."
    ),
    bad=Example(policy='[[scope]]\nmatch.groups = ["students "]\nlimits.max_cpus.ceiling = 0.5\n'),
    good=Example(policy='[[scope]]\nmatch.groups = ["students"]\nlimits.max_cpus.ceiling = 0.5\n'),
    check=_check,
)
