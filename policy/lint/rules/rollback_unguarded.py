"""SBP411: an older policy that a server would take for the newest."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import EnvironmentRule, Example, Family
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.settings import POLICY_MIN_SERIAL, POLICY_PATH, POLICY_STATE, POLICY_UNSIGNED_ALLOWED


def _check(environment: EnvironmentSubject, sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    if environment.layer is None:
        return
    settings = environment.layer.settings
    if settings[POLICY_PATH] is None or settings[POLICY_STATE] or settings[POLICY_UNSIGNED_ALLOWED]:
        return
    known = settings[POLICY_MIN_SERIAL]
    open_ids = sorted({file.policy_id for each in sets for file in each.files} - set(known))
    if known and not open_ids:
        return
    whose = f" of {', '.join(open_ids)}" if open_ids else ""
    yield Found(
        message=(
            f"neither {POLICY_STATE.variable} nor {POLICY_MIN_SERIAL.variable} is set for it, so after a restart an "
            f"older signed policy{whose} is not told from the newest"
        ),
        remedy=(
            f"Set {POLICY_STATE.variable} to a folder that outlives restarts, or raise {POLICY_MIN_SERIAL.variable} "
            "with every policy"
        ),
        location=environment.location((POLICY_MIN_SERIAL if known else POLICY_PATH).variable),
    )


RULE = EnvironmentRule(
    id="SBP411",
    name="rollback-unguarded",
    family=Family.ENVIRONMENT,
    severity=Severity.NOTE,
    in_production=Severity.WARNING,
    needs=Need.ENVIRONMENT,
    summary="Nothing keeps a server from taking back an older policy after a restart.",
    rationale=(
        "A policy that was signed stays signed, also one that was replaced since it permitted too much. A server knows "
        "that it saw a newer one only from its state folder, or from the serials in SANDBOX_POLICY_MIN_SERIAL."
    ),
    bad=Example(environment="SANDBOX_POLICY_PATH=/etc/sandbox/policies\nSANDBOX_POLICY_KEYS=/etc/sandbox/keys\n"),
    good=Example(
        environment=(
            "SANDBOX_POLICY_PATH=/etc/sandbox/policies\nSANDBOX_POLICY_KEYS=/etc/sandbox/keys\n"
            "SANDBOX_POLICY_STATE=/var/lib/sandbox-policy\n"
        )
    ),
    check=_check,
)
