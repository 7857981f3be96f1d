"""SBP409: policies that need no signature."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import EnvironmentRule, Example, Family, Suppressible
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.settings import POLICY_UNSIGNED_ALLOWED


def _check(environment: EnvironmentSubject, _sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    if environment.layer and environment.layer.settings[POLICY_UNSIGNED_ALLOWED]:
        yield Found(
            message=(
                f"{POLICY_UNSIGNED_ALLOWED.variable} is true, so whoever can write a policy file there decides what "
                "code may do"
            ),
            remedy="Sign the policies with `policy sign`, name the public keys in SANDBOX_POLICY_KEYS, and remove it",
            location=environment.location(POLICY_UNSIGNED_ALLOWED.variable),
        )


RULE = EnvironmentRule(
    id="SBP409",
    name="unsigned-allowed",
    family=Family.ENVIRONMENT,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    needs=Need.ENVIRONMENT,
    summary="Policy files count without a signature.",
    rationale=(
        "Then the owner and mode of a file are all that tells a policy from a forgery, and nothing shows whether it is "
        "what was reviewed. It is meant for trying things out."
    ),
    bad=Example(environment="SANDBOX_POLICY_PATH=/etc/sandbox/policies\nSANDBOX_POLICY_UNSIGNED_ALLOWED=true\n"),
    good=Example(environment="SANDBOX_POLICY_PATH=/etc/sandbox/policies\nSANDBOX_POLICY_KEYS=/etc/sandbox/keys\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
