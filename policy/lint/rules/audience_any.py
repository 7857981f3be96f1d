"""SBP312: a policy for any instance."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    audience = file.document.audience
    if "*" in audience:
        named = "; the other names in it make no difference" if len(audience) > 1 else ""
        yield Found(
            path=("audience", audience.index("*")),
            message=f"it is for any instance{named}",
            remedy="Name the instances, each by its SANDBOX_INSTANCE",
        )


RULE = DocumentRule(
    id="SBP312",
    name="audience-any",
    family=Family.TRUST,
    severity=Severity.NOTE,
    in_production=Severity.ERROR,
    summary="A policy is for any instance.",
    rationale=(
        "What was signed for tests then holds in production too, wherever somebody puts the file. An instance "
        "without SANDBOX_INSTANCE accepts nothing else, so it needs a name first."
    ),
    bad=Example(policy='audience = ["*"]\n'),
    good=Example(policy='audience = ["prod-eu", "prod-us"]\n'),
    check=_check,
)
