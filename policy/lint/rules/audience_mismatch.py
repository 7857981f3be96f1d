"""SBP414: a policy that is not for the instance with these variables."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import EnvironmentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, FileFacts, Need, PolicySet, Setup
from policy.settings import INSTANCE, POLICY_PATH

_ANY = "*"


def _check(environment: EnvironmentSubject, sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    if environment.layer is None:
        return
    settings = environment.layer.settings
    instance = settings[INSTANCE]
    if instance is None and settings[POLICY_PATH] is None:
        return  # these are no server's variables, as far as policies go
    for policy_set in sets:
        for file in policy_set.files:
            if _ANY not in file.audience and instance not in file.audience:
                yield _found(file, instance, environment)


def _found(file: FileFacts, instance: str | None, environment: EnvironmentSubject) -> Found:
    here = f"{INSTANCE.variable} is {instance}" if instance else f"{INSTANCE.variable} is not set"
    return Found(
        message=f"it is for {', '.join(file.audience)}, and {here}, so a server with these variables refuses it",
        remedy=f"Add the instance to the audience, or correct {INSTANCE.variable}",
        location=file.audience_place.location,
        related=(environment.location(INSTANCE.variable),),
    )


RULE = EnvironmentRule(
    id="SBP414",
    name="audience-mismatch",
    family=Family.ENVIRONMENT,
    severity=Severity.WARNING,
    needs=Need.ENVIRONMENT,
    summary="A policy's audience lacks the instance that the variables name.",
    rationale=(
        "A server refuses a policy that is for others, and the whole folder with it, and no earlier set holds in its "
        "place. Lint each instance's variables with the files that it gets."
    ),
    bad=Example(policy='audience = ["prod-eu"]\n', environment="SANDBOX_INSTANCE=prod-us\n"),
    good=Example(policy='audience = ["prod-eu", "prod-us"]\n', environment="SANDBOX_INSTANCE=prod-us\n"),
    check=_check,
)
