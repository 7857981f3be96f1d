"""What stands: the policy set that was found, the last good one in its place, or nothing. Pure decisions on values.

A set that was found and is good is remembered. One that is refused leaves the last good set in force, verified again
with today's keys and settings, for a time that is counted from its expiry or from the first refusal, and that nothing
restarts; after that the lockdown values bound the result until the set is mended.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from policy.errors import Problem, SetRefusedError
from policy.load import PolicySet
from policy.refusals import PASSING_CODES, RefusalCode, history_refusals, refused, set_refusals
from policy.remembered import FirstRefusal, Remembered, RememberedPolicy
from policy.settings import POLICY_MAX_STALE, SettingValues
from policy.situation import StandIn

RETRY_AFTER = timedelta(minutes=1)
"""How soon a refused set is judged again where nothing seems to have changed: a clock may have been set right."""

Verify = Callable[[], PolicySet]
"""Gives a policy set, or raises `SetRefusedError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What holds from one moment on."""

    in_force: PolicySet | SetRefusedError
    """The set that holds, or why none does and nothing runs."""
    stand_in: StandIn | None
    """What the last good set holds in place of, where it does."""
    until: datetime
    """When it must be judged again, though nothing else may have changed."""
    remembered: Remembered
    """What is to be remembered from here on."""

    @property
    def refusal(self) -> SetRefusedError | None:
        """Why the set that was found is refused; `None` where it is in force."""
        if isinstance(self.in_force, SetRefusedError):
            return self.in_force
        return None if self.stand_in is None else self.stand_in.refusal


def standing(
    found: Verify, last_good: Verify, remembered: Remembered, settings: SettingValues, now: datetime
) -> Standing:
    """What stands at this moment.

    Args:
        found: reads and verifies the set that the environment names.
        last_good: verifies the remembered set again, with today's keys and settings.
        remembered: what was accepted before.
        settings: the environment's.
        now: with an offset.
    """
    try:
        policy_set = found()
        refusals = [
            *set_refusals(policy_set.documents, settings, now),
            *history_refusals(policy_set.documents, remembered, now),
        ]
        if refusals:
            raise refused(refusals)
    except SetRefusedError as refusal:
        return _in_its_place(refusal, last_good, remembered, settings, now)
    return Standing(
        in_force=policy_set,
        stand_in=None,
        until=min(document.expires_at for document in policy_set.documents),
        remembered=accepted(policy_set, remembered),
    )


def accepted(policy_set: PolicySet, remembered: Remembered) -> Remembered:
    """What is remembered once this set holds."""
    policies = dict(remembered.policies)
    for document in policy_set.documents:
        policies[document.policy_id] = RememberedPolicy(serial=document.serial, payload_sha256=document.payload_sha256)
        for retired in set(document.retires) & set(policies):
            policies[retired] = replace(policies[retired], retired_by=document.policy_id)
    known = () if remembered.newest_issued_at is None else (remembered.newest_issued_at,)
    return Remembered(
        policies=policies,
        newest_issued_at=max((*(document.issued_at for document in policy_set.documents), *known)),
        last_good=policy_set.contents,
    )


def _in_its_place(
    refusal: SetRefusedError, last_good: Verify, remembered: Remembered, settings: SettingValues, now: datetime
) -> Standing:
    """The last good set for as long as it may hold, or nothing."""
    first = remembered.first_refusal or FirstRefusal(at=now, code=refusal.code)
    remembered = replace(remembered, first_refusal=first)
    try:
        policy_set = _still_good(last_good, remembered, settings, now)
    except SetRefusedError as unusable:
        problems = (*refusal.problems, *unusable.problems)
        both = SetRefusedError(refusal.code, tuple(dict.fromkeys(problems)))
        return Standing(in_force=both, stand_in=None, until=now + RETRY_AFTER, remembered=remembered)
    begun = min((first.at, *(document.expires_at for document in policy_set.documents)))
    until = begun if refusal.code == RefusalCode.WRONG_AUDIENCE.code else begun + settings[POLICY_MAX_STALE]
    # A clock that was set back before the refusal that time is counted from makes no time longer.
    stand_in = StandIn(refusal=refusal, until=until, locked_down=not begun <= now < until)
    return Standing(
        in_force=policy_set,
        stand_in=stand_in,
        until=min(moment for moment in (begun, until, now + RETRY_AFTER) if moment > now),
        remembered=remembered,
    )


def _still_good(last_good: Verify, remembered: Remembered, settings: SettingValues, now: datetime) -> PolicySet:
    """The last good set, if nothing but time speaks against it today."""
    if not remembered.last_good:
        reason = "no earlier set was accepted here that could hold in place of this one"
        problem = Problem(key="last good set", origin="policy set", reason=reason, remedy="Mend the set")
        raise refused([(RefusalCode.UNREADABLE, problem)])
    policy_set = last_good()
    refusals = set_refusals(policy_set.documents, settings, now)
    lasting = [(code, problem) for code, problem in refusals if code not in PASSING_CODES]
    if lasting:
        raise refused(lasting)
    return policy_set
