"""SBP406: a variable with our prefix that is not ours."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import EnvironmentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.settings import FOREIGN_OK


def _check(environment: EnvironmentSubject, _sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    for warning in environment.layer.warnings if environment.layer else ():
        yield Found(
            message=warning.removesuffix("."),
            remedy=f"Remove it, or if it belongs to other software, name it in {FOREIGN_OK.variable}",
            location=environment.location(warning.partition(" ")[0]),
        )


RULE = EnvironmentRule(
    id="SBP406",
    name="foreign-variable",
    family=Family.ENVIRONMENT,
    severity=Severity.NOTE,
    needs=Need.ENVIRONMENT,
    summary="A SANDBOX_* variable is not one of ours, and has no effect.",
    rationale=(
        "It belongs to other software, or somebody expects something of it that will not come. What is within two "
        "edits of one of ours is refused; names that Dify's sandbox and OpenHands publish are known and passed over."
    ),
    bad=Example(environment="SANDBOX_WALLPAPER=blue\n"),
    good=Example(environment="SANDBOX_WALLPAPER=blue\nSANDBOX_FOREIGN_OK=SANDBOX_WALLPAPER\n"),
    check=_check,
)
