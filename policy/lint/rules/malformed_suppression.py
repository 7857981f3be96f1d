"""SBP901: a comment that was to take findings out, and cannot."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.registry import rules_by_word
from policy.lint.rule import Example, Family, Suppressible, SuppressionRule
from policy.lint.subjects import Setup, Suppression

_LISTED = "Name a rule by its id or name; policy lint --rules lists them"
_MOST_GUESSED = 2
"""Words of one comment for which a rule is guessed."""


def _check(comment: Suppression, _setup: Setup) -> Iterator[Found]:
    if comment.malformed:
        problem, _, remedy = comment.malformed.partition("; ")
        yield Found(
            message=f"the comment counts for nothing: {problem}",
            remedy=f"{remedy[:1].upper()}{remedy[1:]}",
            location=comment.location,
        )
    for number, word in enumerate(dict.fromkeys(comment.unknown)):
        yield Found(
            message=f"the comment names {word!r}, and there is no such rule",
            # Looking for what is close takes so long that a file of such words would hold everybody up.
            remedy=_meant(word) if number < _MOST_GUESSED else _LISTED,
            location=comment.location,
        )


def _meant(word: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 -- takes time to load, and is rarely needed

    close = get_close_matches(word, rules_by_word(), n=1) or get_close_matches(word.upper(), rules_by_word(), n=1)
    return f"Did you mean {close[0]}?" if close else _LISTED


RULE = SuppressionRule(
    id="SBP901",
    name="malformed-suppression",
    family=Family.SUPPRESSION,
    severity=Severity.ERROR,
    summary="A comment that was to take findings out cannot be read, or names no rule that exists.",
    rationale=(
        "It takes nothing out, though whoever wrote it believes so. It must name rules by id or name, say why, and "
        "give the last day on which it holds."
    ),
    bad=Example(policy='[limits]\nmax_cpus = "unlimited" # policy: ignore[unlimited-value] until=2027-01-31\n'),
    good=Example(
        policy='[limits]\nmax_cpus = "unlimited" # policy: ignore[unlimited-value] reason="tests" until=2027-01-31\n'
    ),
    suppressible=Suppressible.NEVER,
    check=_check,
)
