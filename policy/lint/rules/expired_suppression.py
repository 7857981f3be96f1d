"""SBP903: a comment whose day is over."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, Suppressible, SuppressionRule
from policy.lint.subjects import Setup, Suppression


def _check(comment: Suppression, setup: Setup) -> Iterator[Found]:
    if comment.until is not None and not comment.malformed and setup.now.date() > comment.until:
        yield Found(
            message=f"the comment held until {comment.until.isoformat()}, and takes nothing out any more",
            remedy="Mend what it is about and remove it, or have the reason agreed to anew",
            location=comment.location,
        )


RULE = SuppressionRule(
    id="SBP903",
    name="expired-suppression",
    family=Family.SUPPRESSION,
    severity=Severity.WARNING,
    summary="A comment that took findings out has run out.",
    rationale="What it is about is found again. It held through the day that it gives, in UTC.",
    bad=Example(
        policy='[limits]\nmax_cpus = "unlimited" # policy: ignore[unlimited-value] reason="tests" until=2026-10-31\n'
    ),
    good=Example(
        policy='[limits]\nmax_cpus = "unlimited" # policy: ignore[unlimited-value] reason="tests" until=2027-01-31\n'
    ),
    suppressible=Suppressible.NEVER,
    check=_check,
)
