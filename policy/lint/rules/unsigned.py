"""SBP302: a policy that nobody signed."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family, Suppressible
from policy.lint.subjects import Need, PolicyFile, Setup


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    if file.signatures or (setup.keys is None and _unsigned_will_do(setup)):
        return
    yield Found(
        message="it has no signature",
        remedy="Have it signed: policy sign --key NAME.key FILE",
        # Without keys it may be a draft that is signed once this run has passed.
        severity=Severity.WARNING if setup.keys is None else None,
    )


def _unsigned_will_do(setup: Setup) -> bool:
    if setup.environment is None or setup.environment.layer is None:
        return False
    from policy.settings import POLICY_UNSIGNED_ALLOWED  # noqa: PLC0415 -- only where there are variables

    return setup.environment.layer.settings[POLICY_UNSIGNED_ALLOWED]


RULE = DocumentRule(
    id="SBP302",
    name="unsigned",
    family=Family.TRUST,
    severity=Severity.ERROR,
    needs=Need.SIGNATURES,
    summary="A policy file has no signature.",
    rationale=(
        "Without one, whoever can write the file decides what holds. A server that has keys refuses the whole set. "
        "With --key this is an error; without, under --profile production, a warning, since files are often signed "
        "only after they were reviewed."
    ),
    bad=Example(policy="[limits]\nnetworking_allowed = false\n", production=True),
    good=Example(shell="policy sign --key ops.key acme.toml\npolicy lint --key ops.pub acme.toml"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
