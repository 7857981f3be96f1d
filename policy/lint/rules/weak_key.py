"""SBP305: a key under which anybody can sign."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, KeyRule, Suppressible
from policy.lint.subjects import NamedKey, Need, Setup


def _check(keys: tuple[NamedKey, ...], _setup: Setup) -> Iterator[Found]:
    for key in keys:
        if key.weak:
            yield Found(
                message=f"{key.key_id} is no key to trust: {key.weak}",
                remedy="Make a new key: policy keygen NAME",
                location=key.location,
            )


RULE = KeyRule(
    id="SBP305",
    name="weak-key",
    family=Family.TRUST,
    severity=Severity.ERROR,
    needs=Need.KEYS,
    summary="A public key is weak or malformed.",
    rationale=(
        "Under a point of small order anybody can forge signatures, without any private key. A server refuses such "
        "keys, and with them the whole set."
    ),
    bad=Example(shell="policy lint --key weak.pub acme.toml"),
    good=Example(shell="policy keygen ops\npolicy lint --key ops.pub acme.toml"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
