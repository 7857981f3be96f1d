"""SBP110: a scope that excepts everybody whom it matches."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.idle import excluded_attribute
from policy.lint.rule import DocumentRule, Example, Family
from policy.lint.subjects import PolicyFile, Setup


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    for number, scope in enumerate(file.document.scopes):
        attribute = excluded_attribute(scope.conditions)
        if attribute is not None:
            yield Found(
                path=("scope", number, "except", attribute),
                message=(
                    f"it excepts by {attribute} everybody whom the scope matches by {attribute}, so the scope is for "
                    f"nobody but those whose {attribute} cannot be determined"
                ),
                remedy="Take out of except what match is to reach, or remove the scope",
                related=(file.location(("scope", number, "match", attribute)),),
            )


RULE = DocumentRule(
    id="SBP110",
    name="scope-never-matches",
    family=Family.CONTRADICTION,
    severity=Severity.WARNING,
    summary="A scope excepts every value of an attribute that it matches.",
    rationale=(
        "Where the attribute is known, everybody who is matched is excepted too. Only somebody of whom it cannot be "
        "determined meets every `match` and no `except`; those whom the scope was written for stay outside of it."
    ),
    bad=Example(
        policy="""[[scope]]
match.groups = ["students"]
except.groups = ["students", "staff"]
limits.max_runtime_seconds.ceiling = 10
"""
    ),
    good=Example(
        policy="""[[scope]]
match.groups = ["students"]
except.groups = ["staff"]
limits.max_runtime_seconds.ceiling = 10
"""
    ),
    check=_check,
)
