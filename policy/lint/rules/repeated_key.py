"""SBP306: one key under two names."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, KeyRule, Suppressible
from policy.lint.subjects import NamedKey, Need, Setup


def _check(keys: tuple[NamedKey, ...], _setup: Setup) -> Iterator[Found]:
    first: dict[bytes, NamedKey] = {}
    for key in keys:
        other = first.setdefault(key.raw, key)
        if other is not key:
            there = f"{other.location.file}:{other.location.line}"
            yield Found(
                message=f"it is the same key as in {there}, and counts once",
                remedy="Remove one of the two, or give whoever it is for a key of their own: policy keygen NAME",
                location=key.location,
                related=(other.location,),
            )


RULE = KeyRule(
    id="SBP306",
    name="repeated-key",
    family=Family.TRUST,
    severity=Severity.WARNING,
    needs=Need.KEYS,
    summary="One public key stands in two places.",
    rationale=(
        "A threshold of two then looks as if two keys were needed, and the holder of this one seems to be two. "
        "Distinct keys are counted, so such a policy can never be signed well enough."
    ),
    bad=Example(shell="cp ops.pub sec.pub\npolicy lint --key ops.pub --key sec.pub acme.toml"),
    good=Example(shell="policy keygen sec\npolicy lint --key ops.pub --key sec.pub acme.toml"),
    suppressible=Suppressible.NEVER,
    check=_check,
)
