"""SBP303: a line of a trusted key that does not verify."""

from collections.abc import Iterator

from policy.lint.findings import Found, Location, Severity
from policy.lint.rule import DocumentRule, Example, Family, Suppressible
from policy.lint.subjects import Need, PolicyFile, Setup


def _check(file: PolicyFile, setup: Setup) -> Iterator[Found]:
    if not file.signatures or not setup.keys:
        return
    from policy.signatures import PAYLOAD_TYPE, pre_authentication_encoding  # noqa: PLC0415 -- loads cryptography

    trusted = {key.key_id: key for key in setup.keys}
    text = file.text.encode()
    message = pre_authentication_encoding(PAYLOAD_TYPE, text)
    for line, signature in enumerate(file.signatures, file.first_signature_line):
        key = trusted.get(signature.key_id)
        if key and not key.verifies(signature.value, message):
            yield Found(
                message=f"the signature of {signature.key_id} does not verify: text or line were changed after signing",
                remedy="Restore the file from its source, or review the text and have this key sign it again",
                location=Location(file=file.name, line=line, column=1, end_column=1),
            )


RULE = DocumentRule(
    id="SBP303",
    name="signature-invalid",
    family=Family.TRUST,
    severity=Severity.ERROR,
    needs=Need.KEYS,
    summary="A signature of a trusted key does not verify.",
    rationale=(
        "Somebody changed the text or the line after it was signed. One such line refuses the whole set, however "
        "many others are good."
    ),
    bad=Example(
        shell="policy sign --key ops.key acme.toml\nsed -i s/false/true/ acme.toml\npolicy lint --key ops.pub acme.toml"
    ),
    good=Example(shell="policy sign --key ops.key acme.toml\npolicy lint --key ops.pub acme.toml"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
