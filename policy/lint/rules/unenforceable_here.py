"""SBP601: a bound that this host cannot enforce."""

from collections.abc import Iterator

from policy.limits import REQUIRE_RESOURCE_LIMITING, limit_named
from policy.lint.findings import Found, Severity
from policy.lint.rule import Example, Family, SetRule
from policy.lint.subjects import FactStatement, Need, PolicySet, Setup
from policy.statements import Stated, Verb
from policy.values import UNLIMITED


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    why_not = setup.unenforceable
    if not why_not:
        return
    said = [each for file in policy_set.files for each in file.statements]
    variables = setup.environment.layer.statements if setup.environment and setup.environment.layer else ()
    refused = _refuses(said, variables)
    for each in said:
        if each.limit in why_not and each.verb is not Verb.DEFAULT and each.value is not UNLIMITED:
            limit = limit_named(each.limit)
            fatal = refused or not (limit and limit.may_go_unenforced)
            yield Found(
                message=(
                    f"this host cannot enforce {each.limit} ({why_not[each.limit].removesuffix('.')}), so "
                    f"{'it refuses every run' if fatal else 'runs go on without it'}"
                ),
                remedy="Mend the host, as sandbox doctor says, or lint with the facts of the host that is meant",
                location=each.place.location,
                severity=None if fatal else Severity.WARNING,
            )


def _refuses(said: list[FactStatement], variables: tuple[Stated, ...]) -> bool:
    """Whether runs are refused whose RAM, CPU, process or disk limit cannot be enforced, unless a valve says no."""
    name = REQUIRE_RESOURCE_LIMITING.name
    ours = [each for each in said if each.limit == name]
    theirs = {stated.verb: stated.value for stated in variables if stated.limit is REQUIRE_RESOURCE_LIMITING}
    if Verb.LOCK in theirs:
        firm = [each.value for each in ours if each.verb is not Verb.DEFAULT and not each.environment_may_loosen]
        return any((theirs[Verb.LOCK], *firm))
    if theirs.get(Verb.CEILING) or any(each.value for each in ours if each.verb is Verb.CEILING):
        return True
    by_verb = {verb: [each.value for each in ours if each.verb is verb] for verb in (Verb.LOCK, Verb.DEFAULT)}
    environment = [theirs[Verb.DEFAULT]] if Verb.DEFAULT in theirs else []
    # True is the strict one: where several say it of one layer, any is enough.
    return any(by_verb[Verb.LOCK] or environment or by_verb[Verb.DEFAULT] or [REQUIRE_RESOURCE_LIMITING.built_in])


RULE = SetRule(
    id="SBP601",
    name="unenforceable-here",
    family=Family.HOST,
    severity=Severity.ERROR,
    needs=Need.HOST,
    summary="A policy bounds what the host cannot enforce.",
    rationale=(
        "Where a RAM, CPU, process or disk limit cannot be enforced, require_resource_limiting decides: while it is "
        "true, as it is built in, every run is refused; where it is false, runs go on without the limit, and this is"
        " a warning. Where any other limit cannot be enforced, nothing runs."
    ),
    bad=Example(shell="policy lint --host acme.toml"),
    good=Example(shell="sandbox doctor    # says what to mend, and how\npolicy lint --host acme.toml"),
    check=_check,
)
