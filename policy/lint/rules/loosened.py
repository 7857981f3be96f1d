"""SBP322: a change that lets somebody have more."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from policy.document import PolicyDocument
from policy.errors import PolicyError
from policy.limits import Limit
from policy.lint.findings import Found, Location, Severity
from policy.lint.rule import ChangeRule, Example, Family, Suppressible
from policy.lint.subjects import Need, PolicyFile, SetChange, Setup
from policy.statements import Layer, Stated, Verb

if TYPE_CHECKING:
    from policy.compare import LimitComparison, Witness
    from policy.effective import Decision


def _check(change: SetChange, setup: Setup) -> Iterator[Found]:
    if change.doubtful and change.new:
        unknown = f"whether it is looser than in {change.base} cannot be told"
        yield Found(
            message=f"{unknown}: {change.doubtful[0]} is no valid policy there",
            remedy="Compare with a revision whose policies are valid, or have somebody read all of it",
            location=_first_changed(change),
            severity=Severity.WARNING,  # whoever mends the base could not do it otherwise
        )
    # A set that no instance would load permits nothing that could be compared.
    if not change.comparable or not change.old or not change.new or not _loadable(change, setup):
        return
    from policy.compare import compared_limits  # noqa: PLC0415 -- only where something changed

    environment = setup.environment.layer.statements if setup.environment and setup.environment.layer else None
    old, new = _documents(change.old), _documents(change.new)
    try:
        comparisons = [each for each in compared_limits(old, new, environment) if each.verdict.loosens]
    except PolicyError as error:
        yield Found(
            message=f"whether it is looser than in {change.base} cannot be told: {error.problems[0].reason}",
            remedy=error.problems[0].remedy,
            location=_first_changed(change),
        )
        return
    for comparison in comparisons:
        yield _found(change, comparison)


def _documents(files: tuple[PolicyFile, ...]) -> tuple[PolicyDocument, ...]:
    return tuple(file.document for file in files)


def _loadable(change: SetChange, setup: Setup) -> bool:
    """Whether neither side contradicts itself."""
    from policy.refusals import RefusalCode, set_refusals  # noqa: PLC0415 -- only where something changed
    from policy.settings import SettingValues  # noqa: PLC0415

    sides = (_documents(change.old), _documents(change.new))
    refusals = [code for side in sides for code, _ in set_refusals(side, SettingValues({}), setup.now)]
    return RefusalCode.SET_INVALID not in refusals


def _found(change: SetChange, comparison: "LimitComparison") -> Found:
    witness = _shown(comparison)
    looser = f"{comparison.limit.name} is looser than in {change.base}"
    return Found(
        message=f"{looser}: {_request(witness)}{_rollback(change)}",
        remedy="Tighten it, or have whoever answers for the policy agree to it",
        location=_responsible(change, comparison.limit, witness),
    )


def _shown(comparison: "LimitComparison") -> "Witness":
    """The plainest request that shows it."""
    for difference in (comparison.plain, comparison.under_lock, comparison.under_default):
        if difference.looser:
            return difference.looser
    raise ValueError(f"{comparison.limit.name} is not looser")


def _request(witness: "Witness") -> str:
    """Who gets what they did not get before, by which valves and in which environment."""
    words = witness.new.limit.words
    now, before = words(witness.new.value), words(witness.old.value)
    if witness.old.verb is Verb.CHOICE:  # they asked for less, and that is not kept to any more
        return f"{witness.who} who asks for {before} gets {now}{_asked(witness)}"
    return f"{witness.who} can have {now} instead of {before}{_asked(witness)}"


def _asked(witness: "Witness") -> str:
    valve = witness.new.limit.valve
    asked = [
        words
        for words, value in (
            (f"the valve {valve}", witness.person),
            (f"the administrator's valve {valve}", witness.admin),
        )
        if value is not None
    ]
    variables = [f"{said.origin.place}={said.limit.kind.text(said.value)}" for said in witness.environment]
    by = f", by {' and '.join(asked)}" if asked else ""
    return f"{by}{f', where {variables[0]}' if variables else ''}"


def _rollback(change: SetChange) -> str:
    """That some file says itself that it goes back."""
    back = [
        f"{pair.new.document.policy_id} takes back serial {pair.new.document.rollback_of}"
        for pair in change.changes
        if pair.new
        and pair.new.document.rollback_of is not None
        and (not pair.old or pair.old.document.rollback_of != pair.new.document.rollback_of)
    ]
    return f"; {', '.join(back)}" if back else ""


def _responsible(change: SetChange, limit: Limit[Any], witness: "Witness") -> Location:
    """The new or changed statement that decides now; else where the one stood that decided before."""
    pairs = {pair.new.document.policy_id: pair for pair in change.changes if pair.new}
    said_before = {_said(placed.stated) for file in change.old for placed in file.statements}
    for stated in _decisive(witness.new):
        pair = pairs.get(stated.origin.policy_id or "")
        if pair and pair.new and _said(stated) not in said_before:
            path = next(placed.path for placed in pair.new.statements if placed.stated is stated)
            return pair.new.location(path)
    for stated in _decisive(witness.old):
        pair = pairs.get(stated.origin.policy_id or "")
        if pair and pair.new:
            return pair.new.location(("limits", limit.name))
    return _first_changed(change)


def _decisive(decision: "Decision") -> Iterator[Stated]:
    """Statements of policy files that decided a value, or brought it in."""
    from policy.effective import Fate  # noqa: PLC0415

    for candidate in decision.candidates:
        if candidate.fate is Fate.WON and candidate.origin.layer is Layer.POLICY:
            yield candidate.stated


def _said(stated: Stated) -> tuple[str, str | None, str, Verb, str, bool]:
    """What is said, of whom and by which policy, wherever in the file it stands."""
    value = stated.limit.kind.text(stated.value)
    origin = stated.origin
    return stated.limit.name, origin.policy_id, origin.scope, stated.verb, value, stated.environment_may_loosen


def _first_changed(change: SetChange) -> Location:
    changed = [pair.new for pair in change.changes if pair.new]
    return Location(file=(changed or change.new)[0].name)


RULE = ChangeRule(
    id="SBP322",
    name="loosened",
    family=Family.TRUST,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    needs=Need.BASE,
    summary="A change lets somebody have more of a limit than before.",
    rationale=(
        "It is exact over values, scopes, people and valves, as `policy diff` is: some request gets what it did not "
        "get before, and the message shows one. Without --env or --env-file it holds for any environment. That may "
        "be meant; then somebody should say so. Comments do not take it out under --profile production."
    ),
    bad=Example(
        policy="serial = 8\n\n[limits.max_runtime_seconds]\nceiling = 90\n",
        base="serial = 7\n\n[limits.max_runtime_seconds]\nceiling = 60\n",
    ),
    good=Example(
        policy="serial = 8\n\n[limits.max_runtime_seconds]\nceiling = 40\n",
        base="serial = 7\n\n[limits.max_runtime_seconds]\nceiling = 60\n",
    ),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
