"""SBP902: a comment that takes nothing out any more."""

from collections.abc import Iterator

from policy.lint.findings import Edit, Fix, Found, Severity
from policy.lint.registry import rules_by_word
from policy.lint.rule import Example, Family, Suppressible, SuppressionRule
from policy.lint.subjects import Setup, Suppression


def _check(comment: Suppression, setup: Setup) -> Iterator[Found]:
    if comment.malformed or not comment.settled:
        return
    unused = [word for word in dict.fromkeys(comment.rules) if _is_unused(word, comment, setup)]
    if not unused:
        return
    alone = len(unused) == len(set(comment.rules))
    yield Found(
        message=f"nothing is found here that {' or '.join(unused)} would take out",
        remedy="Remove the comment" if alone else f"Remove {' and '.join(unused)} from it",
        location=comment.location,
        fix=_removal(comment) if alone else None,
    )


def _is_unused(word: str, comment: Suppression, setup: Setup) -> bool:
    rule = rules_by_word().get(word)
    if rule is None or word in comment.used or word in comment.refused:
        return False
    # One that can never be taken out is told of as such; one that could not look may find something in another run.
    return rule.suppressible is not Suppressible.NEVER and setup.meets(rule.needs)


def _removal(comment: Suppression) -> Fix:
    return Fix(description="Remove the comment", edits=(Edit(start=comment.fix_start, end=comment.fix_end, text=""),))


RULE = SuppressionRule(
    id="SBP902",
    name="unused-suppression",
    family=Family.SUPPRESSION,
    severity=Severity.WARNING,
    summary="A comment takes nothing out.",
    rationale=(
        "What it was about is mended or has moved, and the comment would hide the next one there. A rule that could "
        "not look in this run, for want of an option such as --base or of a valid file, never counts as unused."
    ),
    bad=Example(policy='[limits]\nmax_cpus = 1 # policy: ignore[unlimited-value] reason="tests" until=2027-01-31\n'),
    good=Example(policy="[limits]\nmax_cpus = 1\n"),
    fix="Removes the comment, where none of the rules that it names finds anything.",
    suppressible=Suppressible.NEVER,
    check=_check,
)
