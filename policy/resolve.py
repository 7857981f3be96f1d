"""Combines layers into effective limits: a pure function of values, one limit at a time.

An environment lock decides; else the strictest lock of the policy files and the scopes that are for this requester;
else whoever chooses first of the person's valve, the administrator's valve, the environment's default, the strictest
policy default and the built-in, brought within every ceiling. Each limit's values form a lattice, so ceilings only ever
tighten and their order never matters. Scopes only tighten: what a scope alone locks or presets is held to what the
person could reach without it, so that nobody gains by hiding who they are.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType
from typing import Any

from policy.document import PolicyDocument
from policy.effective import Candidate, Decision, EffectiveLimits, Fate, PolicyIdentity
from policy.limits import LIMITS, Chooser, Limit
from policy.requester import UNDETERMINED, Requester
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import from_untrusted_valve, spelt

BUILT_IN_PLACE = "built-in"
LOCKDOWN_PLACE = "lockdown"
_ELSEWHERE = "its scope is not for this request"


def _built_in(limit: Limit[Any]) -> Stated:
    origin = Origin(layer=Layer.BUILT_IN, place=BUILT_IN_PLACE)
    return Stated(limit=limit, verb=Verb.DEFAULT, value=limit.built_in, origin=origin)


def _candidate(stated: Stated, fate: Fate, note: str = "") -> Candidate:
    return Candidate(stated=stated, fate=fate, note=note)


def _unspoken(built_in: Stated) -> Decision:
    """The decision about a limit of which nobody says anything."""
    return Decision(
        limit=built_in.limit,
        value=built_in.value,
        verb=built_in.verb,
        decided_by=built_in.origin,
        candidates=(_candidate(built_in, Fate.WON),),
    )


_BUILT_INS: Mapping[str, Stated] = MappingProxyType({limit.name: _built_in(limit) for limit in LIMITS})
_UNSPOKEN: Mapping[str, Decision] = MappingProxyType({name: _unspoken(said) for name, said in _BUILT_INS.items()})


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
class _Valve:
    """What one set of valves says of a limit."""

    stated: Stated
    """The choice; the strict end where it could not be read."""
    fate: Fate = Fate.SHADOWED
    """`IGNORED` or `INVALID`, or that nothing was decided about it yet."""
    note: str = ""
    """Why it is ignored or invalid."""
    given: str = ""
    """The text it was given as, where it is ignored or invalid."""

    @property
    def counts(self) -> bool:
        """Whether it has a say: an unreadable administrator's valve does, as the strict end of its limit."""
        unreadable_admin = self.fate is Fate.INVALID and self.stated.origin.layer is Layer.ADMIN_VALVE
        return self.fate is Fate.SHADOWED or unreadable_admin


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """Everything that was said of one limit, above its built-in."""

    lockdown: list[Stated] = field(default_factory=list)
    environment: list[Stated] = field(default_factory=list)
    policy: list[Stated] = field(default_factory=list)
    """By files, and by their scopes that are for this requester."""
    elsewhere: list[Stated] = field(default_factory=list)
    """By scopes that are not for this requester, which have no say."""
    valves: list[_Valve] = field(default_factory=list)
    """The person's, then the administrator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ruling:
    """How the value of one limit came about."""

    value: Any
    """The value that holds."""
    chosen: Stated
    """Whose value it was to begin with."""
    biting: Sequence[Stated]
    """The bounds that brought it in, the first of which decided; empty where none had to."""

    @property
    def decider(self) -> Stated:
        """Who decided."""
        return self.biting[0] if self.biting else self.chosen

    def fate(self, stated: Stated) -> Fate:
        """What became of a statement that had a say."""
        if self.biting and any(stated is bound for bound in self.biting):
            return Fate.WON
        if stated is self.chosen:
            return Fate.CLAMPED if self.biting else Fate.WON
        return Fate.SHADOWED


def resolve(layers: Layers) -> EffectiveLimits:
    """The effective limits for one request."""
    documents = sorted(layers.documents, key=lambda each: (each.policy_id, each.origin, each.payload_sha256))
    said = _grouped(layers, documents)
    policies = tuple(
        PolicyIdentity(
            policy_id=document.policy_id,
            serial=document.serial,
            payload_sha256=document.payload_sha256,
            key_ids=document.key_ids,
        )
        for document in documents
    )
    decisions = {
        limit.name: _decide(limit, said[limit.name]) if limit.name in said else _UNSPOKEN[limit.name]
        for limit in LIMITS
    }
    return EffectiveLimits(decisions=decisions, policies=policies)


def _grouped(layers: Layers, documents: Iterable[PolicyDocument]) -> Mapping[str, _Said]:
    """Everything that was said, under its limit; limits of which nothing was said are left out."""
    said: dict[str, _Said] = defaultdict(_Said)
    for stated in _lockdown(layers.lockdown):
        said[stated.limit.name].lockdown.append(stated)
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
    for valve in _valves(layers):
        said[valve.stated.limit.name].valves.append(valve)
    return said


def _lockdown(why: str | None) -> Iterator[Stated]:
    """The lockdown values as ceilings that nobody is above."""
    if why is not None:
        origin = Origin(layer=Layer.LOCKDOWN, place=LOCKDOWN_PLACE, reason=why)
        for limit in LIMITS:
            yield Stated(
                limit=limit, verb=Verb.CEILING, value=limit.lockdown, origin=origin, environment_may_loosen=False
            )


def _valves(layers: Layers) -> Iterator[_Valve]:
    """Every valve that is set: the person's, then the administrator's."""
    for layer, untrusted_valves in (
        (Layer.PERSON_VALVE, layers.untrusted_person_valves or {}),
        (Layer.ADMIN_VALVE, layers.untrusted_admin_valves or {}),
    ):
        for limit in LIMITS:
            untrusted = untrusted_valves.get(limit.valve)
            if untrusted is not None:
                yield _valve(limit, layer, untrusted)


def _valve(limit: Limit[Any], layer: Layer, untrusted: object) -> _Valve:
    """What one valve says: something readable, or something that is not."""
    value, fate, note = limit.kind.strictest, Fate.SHADOWED, ""
    if layer is Layer.PERSON_VALVE and limit.chosen_by is not Chooser.PERSON:
        fate, note = Fate.IGNORED, "only an administrator chooses this limit"
    else:
        try:
            value = from_untrusted_valve(limit.kind, untrusted)
        except ValueError as error:
            fate, note = Fate.INVALID, f"{error}; expected {limit.kind.grammar}"
    origin = Origin(layer=layer, place=limit.valve)
    stated = Stated(limit=limit, verb=Verb.CHOICE, value=value, origin=origin)
    return _Valve(stated=stated, fate=fate, note=note, given=spelt(untrusted) if note else "")


def _decide(limit: Limit[Any], said: _Said) -> Decision:
    lock = next((stated for stated in said.environment if stated.verb is Verb.LOCK), None)
    if lock is not None:
        return _decide_by_environment_lock(limit, lock, said)
    statements = [*said.lockdown, *said.environment, *said.policy]
    valves = [valve.stated for valve in said.valves if valve.counts]
    choosing = _choosing(limit, statements, valves)
    ruling = _ruling(limit, choosing, _bounds(limit, choosing, statements, valves))
    return _decision(limit, said, ruling, _valve_notices(said, ruling))


def _decide_by_environment_lock(limit: Limit[Any], lock: Stated, said: _Said) -> Decision:
    """An environment lock decides, within the bounds of policies that do not let it loosen them."""
    bounds = [stated for stated in (*said.lockdown, *said.policy) if stated.verb is not Verb.DEFAULT]
    ruling = _ruling(limit, [lock], [bound for bound in bounds if not bound.environment_may_loosen])
    loosened = [bound for bound in bounds if not limit.kind.within(ruling.value, bound.value)]
    notices = (
        f"{lock.origin} loosens {limit.name} past {bound.origin}: {limit.words(ruling.value)} instead of "
        f"{limit.words(bound.value)}."
        for bound in loosened
    )
    valve_notices = _valve_notices(said, ruling)
    return _decision(limit, said, ruling, (*_environment_notice(lock, ruling), *valve_notices, *notices))


def _environment_notice(lock: Stated, ruling: _Ruling) -> Iterator[str]:
    """What people are told about an environment lock that did not get through as it is."""
    words, decider = lock.limit.words, ruling.decider
    asked, now = f"{lock.origin} asks for {words(lock.value)}", words(ruling.value)
    if decider.origin.layer is Layer.LOCKDOWN:
        yield f"{asked}; {decider.origin} permits {now} ({decider.origin.reason})."
    elif decider is not lock:
        yield f"{asked}; {decider.origin} does not let it loosen the policy, and {now} holds."


def _choosing(limit: Limit[Any], statements: Sequence[Stated], valves: Sequence[Stated]) -> Sequence[Stated]:
    """The statements, all of one layer, whose meet is the value to begin with, before any bound."""
    locks = [stated for stated in statements if stated.verb is Verb.LOCK]
    if locks:
        return locks
    if valves:
        return valves[:1]
    for layer in (Layer.ENVIRONMENT, Layer.POLICY):
        defaults = [each for each in statements if each.verb is Verb.DEFAULT and each.origin.layer is layer]
        if defaults:
            return defaults
    return [_BUILT_INS[limit.name]]


def _bounds(
    limit: Limit[Any], choosing: Sequence[Stated], statements: Sequence[Stated], valves: Sequence[Stated]
) -> list[Stated]:
    """Every statement that the value to begin with may not be looser than."""
    ceilings = [stated for stated in statements if stated.verb is Verb.CEILING]
    scopes_alone = all(stated.scoped for stated in choosing)
    if not scopes_alone and choosing[0].origin.layer is not Layer.PERSON_VALVE:
        return ceilings
    if limit.chosen_by is not Chooser.PERSON:  # then what they could reach is what would hold without those scopes
        others = [stated for stated in statements if not any(stated is each for each in choosing)]
        instead = _choosing(limit, others, valves)
        return [*_bounds(limit, instead, others, valves), *instead]
    admin = [valve for valve in valves if valve.origin.layer is Layer.ADMIN_VALVE]
    opened = admin or any(not ceiling.scoped for ceiling in ceilings)
    return [*ceilings, *admin] if opened else [*ceilings, _BUILT_INS[limit.name]]


def _ruling(limit: Limit[Any], choosing: Sequence[Stated], bounds: Sequence[Stated]) -> _Ruling:
    """The meet of what was chosen, no looser than any bound."""
    meet = limit.kind.meet
    begun = reduce(meet, (stated.value for stated in choosing))
    value = reduce(meet, (bound.value for bound in bounds), begun)
    chosen = next((stated for stated in choosing if stated.value == begun), choosing[0])
    return _Ruling(value=value, chosen=chosen, biting=_biting(limit, begun, value, bounds))


def _biting(limit: Limit[Any], begun: Any, value: Any, bounds: Sequence[Stated]) -> Sequence[Stated]:  # noqa: ANN401
    """The bounds that brought the value in: one that does it alone, else all that had a part in it."""
    if value == begun:
        return ()
    if len(bounds) == 1:
        return bounds
    exact = next((bound for bound in bounds if bound.value == value), None)
    alone = exact or next((bound for bound in bounds if limit.kind.meet(begun, bound.value) == value), None)
    return [alone] if alone else [bound for bound in bounds if not limit.kind.within(begun, bound.value)]


def _decision(limit: Limit[Any], said: _Said, ruling: _Ruling, notices: tuple[str, ...]) -> Decision:
    """The ruling, with what became of everybody who said something, in the order of the layers."""
    holding = [*said.lockdown, *said.environment, *said.policy]
    candidates = [_weighed(stated, ruling) for stated in holding]
    candidates += [_weighed_valve(valve, ruling) for valve in said.valves]
    candidates.append(_weighed(_BUILT_INS[limit.name], ruling))
    candidates += [_candidate(stated, Fate.IGNORED, _ELSEWHERE) for stated in said.elsewhere]
    decider = ruling.decider
    return Decision(
        limit=limit,
        value=ruling.value,
        verb=decider.verb,
        decided_by=decider.origin,
        candidates=tuple(candidates),
        notices=notices,
    )


def _weighed(stated: Stated, ruling: _Ruling) -> Candidate:
    fate = ruling.fate(stated)
    clamped = fate is Fate.CLAMPED
    return _candidate(stated, fate, f"brought within {stated.limit.words(ruling.decider.value)}" if clamped else "")


def _weighed_valve(valve: _Valve, ruling: _Ruling) -> Candidate:
    stated = valve.stated
    if valve.fate is Fate.SHADOWED:
        return _weighed(stated, ruling)
    return Candidate(stated=stated, fate=valve.fate, note=valve.note, given=valve.given)


def _valve_notices(said: _Said, ruling: _Ruling) -> tuple[str, ...]:
    """What people are told about the valves, the person's first."""
    return tuple(notice for notice in (_notice(valve, ruling) for valve in said.valves) if notice)


def _notice(valve: _Valve, ruling: _Ruling) -> str:
    """What people are told about a valve that did not get its way, if the limit is locked or not."""
    stated, decider = valve.stated, ruling.decider
    fate = ruling.fate(stated) if valve.fate is Fate.SHADOWED else valve.fate
    overruled = fate is Fate.SHADOWED and ruling.chosen.verb is Verb.LOCK and stated.value != ruling.value
    if fate in (Fate.WON, Fate.SHADOWED) and not overruled:
        return ""
    limit = stated.limit
    name, now = f"{stated.origin.layer.value} {limit.valve}", limit.words(ruling.value)
    if fate is Fate.INVALID and valve.counts:
        return f"The {name} cannot be read ({valve.note}); its strict end counts, and {now} holds."
    if fate in (Fate.INVALID, Fate.IGNORED):
        return f"The {name} is ignored ({valve.note}); {now} holds."
    why = f" ({decider.origin.reason})" if decider.origin.reason else ""
    says = "locks" if decider.verb is Verb.LOCK else "permits"
    return f"The {name} asks for {limit.words(stated.value)}; {decider.origin} {says} {now}{why}."
