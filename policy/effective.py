"""The effective limits: the one frozen value that policy hands to the sandbox, and how each part of it came about.

The sandbox takes this type and nothing else. The digest covers the values alone, so equal limits have equal digests
whoever decided them.

Source: RFC 8785's ordering and spacing for the canonical JSON (ours holds no number that needs its number rules).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeVar

from policy.limits import LIMITS, Limit
from policy.statements import Layer, Origin, Stated, Verb
from policy.values import Native

V = TypeVar("V")


class Fate(Enum):
    """What became of one candidate."""

    WON = "won"
    """It decided the value, or brought it in."""
    SHADOWED = "shadowed"
    """Another statement decided, or this ceiling did not bite."""
    CLAMPED = "clamped"
    """It was chosen, then brought within a ceiling."""
    IGNORED = "ignored"
    """It is of nobody who may speak of this limit, or of no use."""
    INVALID = "invalid"
    """It could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One statement that was weighed for a limit."""

    stated: Stated
    """What was said, and where."""
    fate: Fate
    """What became of it."""
    note: str = ""
    """Why, where its fate alone does not say it."""
    given: str = ""
    """The text it was given as, where that could not be read or did not count."""

    @property
    def verb(self) -> Verb:
        """What was said."""
        return self.stated.verb

    @property
    def origin(self) -> Origin:
        """Where it stands."""
        return self.stated.origin

    @property
    def text(self) -> str:
        """The value as it is spelt; where it could not be read or did not count, as it was given."""
        return self.given or self.stated.limit.kind.text(self.stated.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One limit's effective value, and everybody who had a say."""

    limit: Limit[Any]
    """Which limit."""
    value: Any
    """A value of the limit's kind."""
    verb: Verb
    """The kind of statement that decided it."""
    decided_by: Origin
    """Where that statement stands."""
    candidates: tuple[Candidate, ...]
    """All that was weighed, in the order of the layers."""
    notices: tuple[str, ...] = ()
    """What people should know: a valve brought in, ignored or unreadable, a policy loosened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyIdentity:
    """Which policy file took part."""

    policy_id: str
    """The file's own id."""
    serial: int
    """The file's serial."""
    payload_sha256: str
    """SHA-256 of its signed text."""
    key_ids: tuple[str, ...]
    """Trusted keys that signed it; empty for an unsigned one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveLimits:
    """What holds for one run: a value for every limit of the table."""

    decisions: Mapping[str, Decision]
    """By limit name, every limit, in the table's order; read-only."""
    policies: tuple[PolicyIdentity, ...] = ()
    """The policy files that took part."""

    def __post_init__(self) -> None:
        """Refuse a value that leaves a limit out or holds one outside its kind."""
        missing = [limit.name for limit in LIMITS if limit.name not in self.decisions]
        if missing:
            raise ValueError(f"effective limits lack {', '.join(missing)}")
        for limit in LIMITS:
            value = self.decisions[limit.name].value
            read_again = limit.kind.from_native(limit.kind.native(value))
            if read_again != value or type(read_again) is not type(value):
                raise ValueError(f"{value!r} is no value of {limit.name}")
        object.__setattr__(self, "decisions", MappingProxyType(dict(self.decisions)))

    def __getitem__(self, limit: Limit[V]) -> V:
        """The effective value of one limit."""
        value: V = self.decisions[limit.name].value
        return value

    def origin_of(self, limit: Limit[Any]) -> str:
        """Who decided it, for messages."""
        return str(self.decisions[limit.name].decided_by)

    @property
    def values(self) -> dict[str, Native]:
        """All values in their native form, by limit name."""
        return {name: decision.limit.kind.native(decision.value) for name, decision in self.decisions.items()}

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of the values, in hexadecimal."""
        canonical = json.dumps(self.values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def notices(self) -> tuple[str, ...]:
        """What people should know, in the table's order."""
        return tuple(notice for decision in self.decisions.values() for notice in decision.notices)

    def as_json(self) -> dict[str, Any]:
        """The values with their provenance, as `policy explain --json` prints them."""
        return {
            "limits": {name: _decision_json(decision) for name, decision in self.decisions.items()},
            "digest": self.digest,
            "notices": list(self.notices),
            "policies": [
                {
                    "id": policy.policy_id,
                    "serial": policy.serial,
                    "payload_sha256": policy.payload_sha256,
                    "signed_by": list(policy.key_ids),
                }
                for policy in self.policies
            ],
        }


def fixed_limits(values: Mapping[str, Any], place: str) -> EffectiveLimits:
    """Effective limits that nobody chose: the built-ins, with some values in place of theirs.

    For runs of our own code, such as the probes of `sandbox doctor`.

    Args:
        values: by limit name, values of the limits' kinds.
        place: what they are for, as provenance.
    """
    origin = Origin(layer=Layer.BUILT_IN, place=place)
    return EffectiveLimits(
        decisions={
            limit.name: Decision(
                limit=limit,
                value=values.get(limit.name, limit.built_in),
                verb=Verb.DEFAULT,
                decided_by=origin,
                candidates=(),
            )
            for limit in LIMITS
        }
    )


def _origin_json(origin: Origin) -> dict[str, Any]:
    return {
        "place": origin.place,
        "policy": origin.policy_id,
        "serial": origin.serial,
        "scope": origin.scope or None,
        "signed_by": list(origin.key_ids),
    }


def _decision_json(decision: Decision) -> dict[str, Any]:
    return {
        "value": decision.limit.kind.native(decision.value),
        "decided_by": decision.decided_by.layer.value,
        "statement": decision.verb.value,
        "origin": str(decision.decided_by),
        "source": _origin_json(decision.decided_by),
        "reason": decision.decided_by.reason,
        "candidates": [
            {
                "layer": candidate.origin.layer.value,
                "statement": candidate.verb.value,
                "value": candidate.text,
                "origin": str(candidate.origin),
                "source": _origin_json(candidate.origin),
                "fate": candidate.fate.value,
                "note": candidate.note,
            }
            for candidate in decision.candidates
        ],
    }
