"""All that holds on an instance before anybody's valves, and the limits that come out of it for each request.

A situation never changes; a new policy set is a new situation. Limits once resolved are kept with it, so that a
request seen before costs no second resolving, and nothing kept outlives the policy it came from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from policy.document import PolicyDocument
from policy.effective import EffectiveLimits
from policy.environment import EnvironmentLayer
from policy.errors import SetRefusedError
from policy.limits import LIMITS
from policy.requester import UNDETERMINED, Requester
from policy.resolve import Layers, resolve
from policy.values import valve_characters

MOST_KEPT_REQUESTS = 512
"""Requests whose limits are kept; past that, all are resolved anew."""
LONGEST_KEPT_VALVE = 1_024
"""Characters, items or bits of a valve's value; a request with a longer one is resolved each time."""

_ValvesKey = tuple[tuple[str, str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """The last good policy set, holding in place of one that is refused."""

    refusal: SetRefusedError
    """Why the current set is refused."""
    until: datetime
    """When the lockdown values bound it."""
    locked_down: bool
    """Whether that is so already."""

    @property
    def sentence(self) -> str:
        """What administrators should know."""
        why = f"The policy set is refused [{self.refusal.code}]: {self.refusal.problems[0]}"
        if self.locked_down:
            return f"{why} The last good set holds, bounded by the lockdown values."
        return f"{why} The last good set holds until {self.until.isoformat(timespec='seconds')}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that holds on this instance, before anybody's valves."""

    environment: EnvironmentLayer
    """What the environment says."""
    documents: tuple[PolicyDocument, ...]
    """The policy files, accepted as one set."""
    stand_in: StandIn | None = None
    """Why these are not the files that lie there now; `None` where they are."""
    _resolved: dict[tuple[Requester, _ValvesKey, _ValvesKey], EffectiveLimits] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def limits(
        self,
        *,
        requester: Requester = UNDETERMINED,
        untrusted_person_valves: Mapping[str, object] | None = None,
        untrusted_admin_valves: Mapping[str, object] | None = None,
    ) -> EffectiveLimits:
        """The effective limits for this requester, beside these valves."""
        layers = Layers(
            environment=self.environment.statements,
            documents=self.documents,
            requester=requester,
            untrusted_person_valves=untrusted_person_valves,
            untrusted_admin_valves=untrusted_admin_valves,
            lockdown=self._lockdown(),
        )
        try:
            key = (requester, _valves_key(untrusted_person_valves), _valves_key(untrusted_admin_valves))
        except ValueError:
            return resolve(layers)
        kept = self._resolved.get(key)
        if kept is None:
            if len(self._resolved) >= MOST_KEPT_REQUESTS:
                self._resolved.clear()
            kept = self._resolved[key] = resolve(layers)
        return kept

    def _lockdown(self) -> str | None:
        if self.stand_in is None or not self.stand_in.locked_down:
            return None
        return f"the policy set is refused: {self.stand_in.refusal.code}"


def _valves_key(untrusted_valves: Mapping[str, object] | None) -> _ValvesKey:
    """Valves as a key in which equal values of different types stay different, as `1` and `true`.

    Raises:
        ValueError: a value is too long, or of a kind that makes no key.
    """
    if not untrusted_valves:
        return ()
    of_ours = ((limit.valve, untrusted_valves.get(limit.valve)) for limit in LIMITS)
    return tuple((name, type(value).__name__, _value_key(value)) for name, value in of_ours if value is not None)


def _value_key(untrusted: object) -> object:
    match untrusted:
        case str() | list() if valve_characters(untrusted) > LONGEST_KEPT_VALVE:
            raise ValueError("no key")
        case str():
            return untrusted
        case bool() | float():
            return untrusted
        case int() if untrusted.bit_length() <= LONGEST_KEPT_VALVE:
            return untrusted
        case list() if all(isinstance(item, str) for item in untrusted):
            return tuple(untrusted)
        case _:
            raise ValueError("no key")
