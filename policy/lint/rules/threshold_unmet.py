"""SBP304: too few trusted keys signed."""

from collections.abc import Iterator

from policy.lint.findings import Found, Location, Severity
from policy.lint.rule import DocumentRule, Example, Family, Suppressible
from policy.lint.subjects import Need, PolicyFile, Setup


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    if not file.signatures or setup.keys is None:
        return
    trusted = {key.key_id for key in setup.keys}
    named = [signature.key_id for signature in file.signatures]
    signed = len(trusted.intersection(named))
    if signed >= setup.threshold:
        return
    keys = f"{signed} of the trusted keys signed it, and {setup.threshold} must"
    unknown = [key_id for key_id in named if key_id not in trusted]
    others = f"; signatures of keys not trusted here: {', '.join(unknown)}" if unknown else ""
    never = setup.threshold > len(trusted)
    yield Found(
        message=f"{keys}{f'; trusted keys: {len(trusted)}' if never else ''}{others}",
        remedy=(
            "Name more keys by --key, or lower --threshold"
            if never
            else "Have it signed: policy sign --key NAME.key FILE"
        ),
        location=Location(file=file.name, line=file.first_signature_line, column=1, end_column=1),
    )


RULE = DocumentRule(
    id="SBP304",
    name="threshold-unmet",
    family=Family.TRUST,
    severity=Severity.ERROR,
    needs=Need.KEYS,
    summary="Fewer trusted keys signed a policy than must.",
    rationale=(
        "A server with these keys and this threshold refuses the whole set. Keys are counted, not lines: a key that "
        "is not trusted counts for nothing."
    ),
    bad=Example(
        shell="policy sign --key ops.key acme.toml\npolicy lint --key ops.pub --key sec.pub --threshold 2 acme.toml"
    ),
    good=Example(
        shell=(
            "policy sign --key ops.key acme.toml\npolicy sign --key sec.key acme.toml\n"
            "policy lint --key ops.pub --key sec.pub --threshold 2 acme.toml"
        )
    ),
    suppressible=Suppressible.NEVER,
    check=_check,
)
