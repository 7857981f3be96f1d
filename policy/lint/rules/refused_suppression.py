"""SBP904: a comment about what no comment takes out."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.registry import rules_by_word
from policy.lint.rule import Example, Family, Suppressible, SuppressionRule
from policy.lint.subjects import Setup, Suppression


def _check(comment: Suppression, _setup: Setup) -> Iterator[Found]:
    if comment.malformed:
        return
    for word in dict.fromkeys(comment.rules):
        rule = rules_by_word().get(word)
        if rule is None:
            continue
        if rule.suppressible is Suppressible.NEVER:
            yield _found(comment, f"no comment takes out what {word} finds")
        elif word in comment.refused:
            yield _found(comment, f"under --profile production no comment takes out what {word} finds")


def _found(comment: Suppression, message: str) -> Found:
    return Found(message=message, remedy="Mend what it is about, and remove the comment", location=comment.location)


RULE = SuppressionRule(
    id="SBP904",
    name="refused-suppression",
    family=Family.SUPPRESSION,
    severity=Severity.ERROR,
    summary="A comment names a rule whose findings no comment takes out, or none in production.",
    rationale=(
        "What a server refuses it refuses all the same, and what opens a production service wide is not for a "
        "comment to decide. Whoever wrote the comment believes that it counts."
    ),
    bad=Example(
        policy='[limits]\nmax_cpus = "unlimited" # policy: ignore[unlimited-value] reason="tests" until=2027-01-31\n',
        production=True,
    ),
    good=Example(policy="[limits]\nmax_cpus = 4\n", production=True),
    suppressible=Suppressible.NEVER,
    check=_check,
)
