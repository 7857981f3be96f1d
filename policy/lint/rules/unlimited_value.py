"""SBP201: a limit that is opened without end."""

from collections.abc import Iterator

from policy.lint.findings import Found, Severity
from policy.lint.rule import DocumentRule, Example, Family, Suppressible
from policy.lint.subjects import PolicyFile, Setup
from policy.values import UNLIMITED


def _check(file: PolicyFile, _setup: Setup) -> Iterator[Found]:
    for placed in file.statements:
        if placed.value is UNLIMITED:
            yield Found(
                path=placed.path,
                message=f"the {placed.verb.value} of {placed.limit.name} is unlimited",
                remedy=f"State the most that anybody needs; {placed.limit.words(placed.limit.built_in)} is built in",
            )


RULE = DocumentRule(
    id="SBP201",
    name="unlimited-value",
    family=Family.INSECURE,
    severity=Severity.ERROR,
    summary="A limit is `unlimited`.",
    rationale=(
        "One run can then take all of it: memory until the host swaps, time until somebody notices, processes until "
        "no other can start. A large number is still an end."
    ),
    bad=Example(policy='[limits]\nmax_ram_megabytes = "unlimited"\n'),
    good=Example(policy="[limits.max_ram_megabytes]\nceiling = 4096\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
