"""SBP410: variables that are meant for policies, and load none."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import EnvironmentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.settings import (
    POLICY_IDS,
    POLICY_KEYS,
    POLICY_MAX_STALE,
    POLICY_MIN_SERIAL,
    POLICY_PATH,
    POLICY_REQUIRED,
    POLICY_STATE,
    POLICY_THRESHOLD,
    POLICY_UNSIGNED_ALLOWED,
)

_MEANT = (POLICY_KEYS, POLICY_THRESHOLD, POLICY_STATE, POLICY_MAX_STALE, POLICY_UNSIGNED_ALLOWED)


def _check(environment: EnvironmentSubject, sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    if environment.layer is None:
        return
    settings = environment.layer.settings
    if settings[POLICY_PATH] or settings[POLICY_REQUIRED] or settings[POLICY_IDS] or settings[POLICY_MIN_SERIAL]:
        return
    meant = [setting.variable for setting in _MEANT if setting.name in settings.values]
    if meant or sets:
        yield Found(
            message=(
                f"{POLICY_PATH.variable} is not set and nothing requires a policy, so a server with these variables "
                "runs code without any"
            ),
            remedy=f"Set {POLICY_PATH.variable}, and {POLICY_REQUIRED.variable}=true in case it gets lost",
            location=environment.location(meant[0] if meant else POLICY_PATH.variable),
            related=tuple(policy_set.files[0].id_place.location for policy_set in sets),
        )


RULE = EnvironmentRule(
    id="SBP410",
    name="policy-not-required",
    family=Family.ENVIRONMENT,
    severity=Severity.NOTE,
    in_production=Severity.WARNING,
    needs=Need.ENVIRONMENT,
    summary="No variable names the policies, though there are some, and none says that there must be one.",
    rationale=(
        "Keys, a threshold or a policy file beside the variables show that a policy is meant to hold. Without "
        "SANDBOX_POLICY_PATH the server never looks for one, and says nothing, unless SANDBOX_POLICY_REQUIRED, "
        "SANDBOX_POLICY_IDS or SANDBOX_POLICY_MIN_SERIAL makes that a refusal. Who locks everything down by variables "
        "alone needs no policy, and is told nothing."
    ),
    bad=Example(environment="SANDBOX_POLICY_KEYS=/etc/sandbox/keys\n"),
    good=Example(
        environment=(
            "SANDBOX_POLICY_KEYS=/etc/sandbox/keys\nSANDBOX_POLICY_PATH=/etc/sandbox/policies\n"
            "SANDBOX_POLICY_REQUIRED=true\n"
        )
    ),
    check=_check,
)
