"""SBP310: a policy whose time has not come."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    not_before = file.document.not_before
    if not_before and setup.now < not_before:
        yield Found(
            path=("not_before",),
            message=f"it holds from {not_before.isoformat()} on, and until then servers refuse the set with it",
            remedy="Ship it then",
        )


RULE = DocumentRule(
    id="SBP310",
    name="not-yet-valid",
    family=Family.TRUST,
    severity=Severity.NOTE,
    summary="A policy does not hold yet.",
    rationale=(
        "A server that finds it refuses the whole set until then, also the files beside it whose time has come."
    ),
    bad=Example(policy="not_before = 2026-12-01T00:00:00Z\n"),
    good=Example(policy="not_before = 2026-11-20T00:00:00Z\n"),
    check=_check,
)
