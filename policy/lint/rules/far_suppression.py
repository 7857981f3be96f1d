"""SBP906: a comment that holds for years."""

from collections.abc import Iterator
from datetime import timedelta

from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, Suppressible, SuppressionRule
from policy.lint.subjects import Setup, Suppression

FURTHEST = timedelta(days=366)
"""A year, whichever it is."""


def _check(comment: Suppression, setup: Setup) -> Iterator[Found]:
    if comment.until is not None and not comment.malformed and comment.until - setup.now.date() > FURTHEST:
        yield Found(
            message=f"the comment holds until {comment.until.isoformat()}, more than a year from now",
            remedy="Give a day within a year, on which somebody looks at the reason again",
            location=comment.location,
        )


RULE = SuppressionRule(
    id="SBP906",
    name="far-suppression",
    family=Family.SUPPRESSION,
    severity=Severity.WARNING,
    summary="A comment takes findings out for more than a year.",
    rationale="A day that nobody will live to see is no day: the reason is never looked at again.",
    bad=Example(
        policy='[limits]\nmax_cpus = "unlimited" # policy: ignore[unlimited-value] reason="tests" until=2099-12-31\n'
    ),
    good=Example(
        policy='[limits]\nmax_cpus = "unlimited" # policy: ignore[unlimited-value] reason="tests" until=2027-01-31\n'
    ),
    suppressible=Suppressible.NEVER,
    check=_check,
)
