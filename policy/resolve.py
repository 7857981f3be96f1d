"""Combines layers into effective limits: a pure function of values, one limit at a time.

An environment lock decides; else the strictest lock of the policy files and the scopes that are for this requester;
else whoever chooses first of the person's valve, the administrator's valve, the environment's default, the strictest
policy default and the built-in, brought within every ceiling. Each limit's values form a lattice, so ceilings only ever
tighten and their order never matters. Scopes only tighten: what a scope alone states is held to the same bounds as a
person's valve, so that nobody gains by hiding who they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from policy.document import PolicyDocument
from policy.effective import Candidate, Decision, EffectiveLimits, Fate, PolicyIdentity
from policy.limits import LIMITS, Chooser, Limit
from policy.requester import UNDETERMINED, Requester
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import from_untrusted_valve, spelt

BUILT_IN_PLACE = "built-in"
LOCKDOWN_PLACE = "lockdown values"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Everything that was said, above the built-ins."""

    environment: tuple[Stated, ...] = ()
    """What the environment says."""
    documents: tuple[PolicyDocument, ...] = ()
    """The policy files, as one set; their order does not matter."""
    untrusted_person_valves: Mapping[str, object] | None = None
    """What the person's valves hold, by valve name; `None` values count as not set."""
    untrusted_admin_valves: Mapping[str, object] | None = None
    """What the plugin's valves hold, by valve name; `None` values count as not set."""
    requester: Requester = UNDETERMINED
    """Who asks; decides which scopes hold."""
    lockdown: str | None = None
    """Why the lockdown values bound everything, the environment too; `None` where they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bid:
    """A statement with what has become of it so far."""

    stated: Stated
    fate: Fate = Fate.SHADOWED
    note: str = ""
    given: str | None = None
    """The text it was given as, where that could not be read."""

    def candidate(self) -> Candidate:
        kind = self.stated.limit.kind
        text = kind.text(self.stated.value) if self.given is None else self.given
        return Candidate(verb=self.stated.verb, text=text, origin=self.stated.origin, fate=self.fate, note=self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What was said of one limit, valves aside."""

    environment: list[Stated] = field(default_factory=list)
    policy: list[Stated] = field(default_factory=list)
    elsewhere: list[Stated] = field(default_factory=list)
    """Of scopes that are not for this requester."""


def resolve(layers: Layers) -> EffectiveLimits:
    """The effective limits for one request."""
    documents = sorted(layers.documents, key=lambda each: (each.policy_id, each.origin, each.payload_sha256))
    said = _grouped(layers, documents)
    decisions = {limit.name: _decide(limit, said[limit.name], layers) for limit in LIMITS}
    policies = tuple(
        PolicyIdentity(
            policy_id=document.policy_id,
            serial=document.serial,
            payload_sha256=document.payload_sha256,
            key_ids=document.key_ids,
        )
        for document in documents
    )
    return EffectiveLimits(decisions=decisions, policies=policies)


def _grouped(layers: Layers, documents: Iterable[PolicyDocument]) -> dict[str, _Said]:
    """Every statement under its limit."""
    said = {limit.name: _Said() for limit in LIMITS}
    for stated in layers.environment:
        said[stated.limit.name].environment.append(stated)
    for document in documents:
        for stated in document.statements:
            said[stated.limit.name].policy.append(stated)
        for scope in document.scopes:
            here = scope.conditions.hold_for(layers.requester)
            for stated in scope.statements:
                of_limit = said[stated.limit.name]
                (of_limit.policy if here else of_limit.elsewhere).append(stated)
    return said


def _decide(limit: Limit[Any], said: _Said, layers: Layers) -> Decision:
    person = _valve_bid(limit, Layer.PERSON_VALVE, layers.untrusted_person_valves)
    admin = _valve_bid(limit, Layer.ADMIN_VALVE, layers.untrusted_admin_valves)
    lockdown = _lockdown(limit, layers.lockdown)
    stated = map(_bid, (*lockdown, *said.environment, *said.policy))
    bids = [*stated, *person, *admin, _bid(_built_in(limit))]
    lock = next((stated for stated in said.environment if stated.verb is Verb.LOCK), None)
    if lock is not None:
        decision = _decide_by_environment_lock(limit, lock, (*lockdown, *said.policy), bids)
    else:
        chosen = _chosen(limit, bids)
        decision = _bring_in(limit, chosen, _bounds(limit, chosen, bids), bids)
    if not said.elsewhere:
        return decision
    return replace(decision, candidates=(*decision.candidates, *map(_of_others, said.elsewhere)))


def _of_others(stated: Stated) -> Candidate:
    """A statement of a scope that is not for this requester, which has no say."""
    bid = _Bid(stated=stated, fate=Fate.IGNORED, note="its scope is not for this request")
    return bid.candidate()


def _lockdown(limit: Limit[Any], why: str | None) -> tuple[Stated, ...]:
    """The lockdown value as a ceiling that nobody is above."""
    if why is None:
        return ()
    origin = Origin(layer=Layer.LOCKDOWN, place=LOCKDOWN_PLACE, reason=why)
    return (Stated(limit=limit, verb=Verb.CEILING, value=limit.lockdown, origin=origin, environment_may_loosen=False),)


def _bid(stated: Stated) -> _Bid:
    return _Bid(stated=stated)


def _built_in(limit: Limit[Any]) -> Stated:
    origin = Origin(layer=Layer.BUILT_IN, place=BUILT_IN_PLACE)
    return Stated(limit=limit, verb=Verb.DEFAULT, value=limit.built_in, origin=origin)


def _valve_bid(limit: Limit[Any], layer: Layer, untrusted_valves: Mapping[str, object] | None) -> Iterator[_Bid]:
    """What one set of valves says of a limit: nothing, something readable, or something that is not."""
    untrusted = (untrusted_valves or {}).get(limit.valve)
    if untrusted is None:
        return
    origin = Origin(layer=layer, place=limit.valve)
    stated = Stated(limit=limit, verb=Verb.CHOICE, value=limit.kind.strictest, origin=origin)
    given = spelt(untrusted)
    if layer is Layer.PERSON_VALVE and limit.chosen_by is not Chooser.PERSON:
        yield _Bid(stated=stated, fate=Fate.IGNORED, note="only an administrator chooses this limit", given=given)
        return
    try:
        yield _Bid(stated=replace(stated, value=from_untrusted_valve(limit.kind, untrusted)))
    except ValueError as error:
        note = f"{error}; expected {limit.kind.grammar}"
        yield _Bid(stated=stated, fate=Fate.INVALID, note=note, given=given)


def _decide_by_environment_lock(
    limit: Limit[Any], lock: Stated, policy: Sequence[Stated], bids: Sequence[_Bid]
) -> Decision:
    """An environment lock decides, within the bounds of policies that do not let it loosen them."""
    chosen = _Bid(stated=lock)
    said = [stated for stated in policy if stated.verb is not Verb.DEFAULT]
    firm = [stated for stated in said if not stated.environment_may_loosen]
    decision = _bring_in(limit, chosen, firm, bids)
    loosened = [stated for stated in said if not limit.kind.within(decision.value, stated.value)]
    notices = tuple(
        f"{lock.origin} loosens {limit.name} past {stated.origin}: {limit.words(decision.value)} instead of "
        f"{limit.words(stated.value)}."
        for stated in loosened
    )
    return replace(decision, notices=(*_environment_notice(lock, decision), *decision.notices, *notices))


def _environment_notice(lock: Stated, decision: Decision) -> Iterator[str]:
    """What people are told about an environment lock that a policy did not let through as it is."""
    if decision.value != lock.value:
        words = lock.limit.words
        yield (
            f"{lock.origin} asks for {words(lock.value)}; {decision.decided_by} does not let it loosen the policy, "
            f"and {words(decision.value)} holds."
        )


def _chosen(limit: Limit[Any], bids: Sequence[_Bid]) -> _Bid:
    """Whose value it is to begin with, before any ceiling."""
    locks = [bid for bid in bids if bid.stated.verb is Verb.LOCK]
    if locks:
        return _strictest(limit, locks)
    rank = list(Layer)
    person, admin = rank.index(Layer.PERSON_VALVE), rank.index(Layer.ADMIN_VALVE)
    order = {person: 0, admin: 1, rank.index(Layer.ENVIRONMENT): 2, rank.index(Layer.POLICY): 3}
    choices = [bid for bid in bids if bid.stated.verb in {Verb.CHOICE, Verb.DEFAULT} and _counts(bid)]
    first = min(order.get(rank.index(bid.stated.origin.layer), len(order)) for bid in choices)
    speaking = [bid for bid in choices if order.get(rank.index(bid.stated.origin.layer), len(order)) == first]
    return _strictest(limit, speaking)


def _counts(bid: _Bid) -> bool:
    """Whether a bid has a say: an unreadable administrator's valve does, as the strict end of its limit."""
    unreadable_admin = bid.fate is Fate.INVALID and bid.stated.origin.layer is Layer.ADMIN_VALVE
    return bid.fate is Fate.SHADOWED or unreadable_admin


def _strictest(limit: Limit[Any], bids: Sequence[_Bid]) -> _Bid:
    """The bid whose value is the meet of all, or the first one carrying that meet where none alone is."""
    value = reduce(limit.kind.meet, (bid.stated.value for bid in bids))
    exact = next((bid for bid in bids if bid.stated.value == value), None)
    return exact or replace(bids[0], stated=replace(bids[0].stated, value=value))


def _bounds(limit: Limit[Any], chosen: _Bid, bids: Sequence[_Bid]) -> list[Stated]:
    """Every statement that the chosen value may not be looser than."""
    ceilings = [bid.stated for bid in bids if bid.stated.verb is Verb.CEILING]
    if not _held_like_a_valve(chosen, bids):
        return ceilings
    admin = [bid.stated for bid in bids if bid.stated.origin.layer is Layer.ADMIN_VALVE and _counts(bid)]
    opened = [ceiling for ceiling in ceilings if not ceiling.scoped] + admin
    return [*ceilings, *admin] if opened else [*ceilings, _built_in(limit)]


def _held_like_a_valve(chosen: _Bid, bids: Sequence[_Bid]) -> bool:
    """Whether the choice is a person's, or that of scopes alone."""
    verb, layer = chosen.stated.verb, chosen.stated.origin.layer
    if layer is not Layer.POLICY:
        return layer is Layer.PERSON_VALVE
    alike = [bid.stated for bid in bids if bid.stated.verb is verb and bid.stated.origin.layer is layer]
    return all(stated.scoped for stated in alike)


def _bring_in(limit: Limit[Any], chosen: _Bid, bounds: Sequence[Stated], bids: Sequence[_Bid]) -> Decision:
    """The chosen value, no looser than any bound, with every bid's fate."""
    value = reduce(limit.kind.meet, (bound.value for bound in bounds), chosen.stated.value)
    biting = _biting(limit, chosen.stated.value, value, bounds)
    decider = biting[0] if biting else chosen.stated
    settled = [_settled(limit, bid, chosen, biting) for bid in bids]
    locked = chosen.stated.verb is Verb.LOCK
    notices = [_notice(bid, value, decider, locked=locked) for bid in settled if bid.stated.verb is Verb.CHOICE]
    return Decision(
        limit=limit,
        value=value,
        verb=decider.verb,
        decided_by=decider.origin,
        candidates=tuple(bid.candidate() for bid in settled),
        notices=tuple(notice for notice in notices if notice),
    )


def _biting(limit: Limit[Any], chosen: Any, value: Any, bounds: Sequence[Stated]) -> list[Stated]:  # noqa: ANN401
    """The bounds that brought the value in: one that does it alone, else all that had a part in it."""
    if value == chosen:
        return []
    alone = [bound for bound in bounds if limit.kind.meet(chosen, bound.value) == value]
    return alone[:1] or [bound for bound in bounds if not limit.kind.within(chosen, bound.value)]


def _settled(limit: Limit[Any], bid: _Bid, chosen: _Bid, biting: Sequence[Stated]) -> _Bid:
    if bid.fate is not Fate.SHADOWED:
        return bid
    if bid.stated in biting:
        return replace(bid, fate=Fate.WON)
    if bid.stated.origin == chosen.stated.origin and bid.stated.verb is chosen.stated.verb:
        if not biting:
            return replace(bid, fate=Fate.WON)
        return replace(bid, fate=Fate.CLAMPED, note=f"brought within {limit.words(biting[0].value)}")
    return bid


def _notice(bid: _Bid, value: Any, decider: Stated, *, locked: bool) -> str:  # noqa: ANN401
    """What people are told about a valve that did not get its way, if the limit is locked or not."""
    limit = bid.stated.limit
    name = f"{bid.stated.origin.layer.value} {limit.valve}"
    now = limit.words(value)
    if bid.fate is Fate.INVALID and bid.stated.origin.layer is Layer.ADMIN_VALVE:
        return f"The {name} cannot be read ({bid.note}); its strict end counts, and {now} holds."
    if bid.fate in {Fate.INVALID, Fate.IGNORED}:
        return f"The {name} is ignored ({bid.note}); {now} holds."
    overruled = bid.fate is Fate.SHADOWED and locked and bid.stated.value != value
    if bid.fate is not Fate.CLAMPED and not overruled:
        return ""
    why = f" ({decider.origin.reason})" if decider.origin.reason else ""
    says = "locks" if decider.verb is Verb.LOCK else "permits"
    return f"The {name} asks for {limit.words(bid.stated.value)}; {decider.origin} {says} {now}{why}."
