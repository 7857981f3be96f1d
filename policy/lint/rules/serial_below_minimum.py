"""SBP415: a policy that is older than the variables permit."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import EnvironmentRule, Example, Family, Suppressible
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.settings import POLICY_MIN_SERIAL


def _check(environment: EnvironmentSubject, sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    least = environment.layer.settings[POLICY_MIN_SERIAL] if environment.layer else {}
    for policy_set in sets if least else ():
        for file in policy_set.files:
            if file.serial < least.get(file.policy_id, 1):
                place = file.id_place.location
                yield Found(
                    message=(
                        f"{POLICY_MIN_SERIAL.variable} wants {file.policy_id} at serial {least[file.policy_id]} or "
                        f"above, and {file.name} has serial {file.serial}"
                    ),
                    remedy="Ship the newer policy, or lower the serial if that one never shipped",
                    location=environment.location(POLICY_MIN_SERIAL.variable),
                    related=(place,),
                )


RULE = EnvironmentRule(
    id="SBP415",
    name="serial-below-minimum",
    family=Family.ENVIRONMENT,
    severity=Severity.ERROR,
    needs=Need.ENVIRONMENT,
    summary="A policy's serial is below what SANDBOX_POLICY_MIN_SERIAL permits.",
    rationale="A server with these variables takes it for a rollback, and refuses the whole folder.",
    bad=Example(policy="serial = 7\n", environment="SANDBOX_POLICY_MIN_SERIAL=acme-prod=8\n"),
    good=Example(policy="serial = 8\n", environment="SANDBOX_POLICY_MIN_SERIAL=acme-prod=8\n"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
