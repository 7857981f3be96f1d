"""What an instance remembers of policy sets: a frozen value, and the JSON in which it is kept.

Absent is first contact. What is there must be exactly what was written: anything else is refused, since a policy set
judged against half a memory could be an old one.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from policy.settings import DOCUMENT_ID, MAX_SERIAL

STATE_VERSION = 1
"""The version of the JSON below."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberedPolicy:
    """One policy id that was accepted."""

    serial: int
    """Its newest accepted serial."""
    payload_sha256: str
    """SHA-256 of that serial's signed text."""
    retired_by: str | None = None
    """The policy that let it go; `None` while it must be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRefusal:
    """The refusal since which no set was accepted."""

    at: datetime
    """When, with an offset."""
    code: str
    """Its reason code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """Everything that one set of policy files leaves behind for the next."""

    policies: Mapping[str, RememberedPolicy] = field(default_factory=dict)
    """By id, retired ones included; read-only."""
    newest_issued_at: datetime | None = None
    """The newest `issued_at` that was accepted; no clock before it is right."""
    first_refusal: FirstRefusal | None = None
    """Since when sets have been refused; `None` while the current one is good."""
    last_good: Mapping[str, bytes] = field(default_factory=dict)
    """The files of the last good set by name, whole; read-only. It is verified again before each use."""

    def __post_init__(self) -> None:
        """Keep what was given from changing."""
        object.__setattr__(self, "policies", MappingProxyType(dict(self.policies)))
        object.__setattr__(self, "last_good", MappingProxyType(dict(self.last_good)))


FIRST_CONTACT = Remembered()
"""What an instance remembers before it has accepted anything."""


def state_text(remembered: Remembered) -> bytes:
    """The memory as it is kept: JSON, readable by people, files in base64.

    Its digest shows damage, where a digit of a serial would still be one; it is no proof of who wrote it.
    """
    newest, first = remembered.newest_issued_at, remembered.first_refusal
    told: dict[str, Any] = {
        "version": STATE_VERSION,
        "policies": {
            policy_id: {"serial": known.serial, "payload_sha256": known.payload_sha256, "retired_by": known.retired_by}
            for policy_id, known in sorted(remembered.policies.items())
        },
        "newest_issued_at": None if newest is None else newest.isoformat(),
        "first_refusal": None if first is None else {"at": first.at.isoformat(), "code": first.code},
        "last_good": {name: base64.b64encode(data).decode() for name, data in remembered.last_good.items()},
    }
    told["sha256"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return json.dumps(told, indent=1).encode() + b"\n"


def parse_state(untrusted: bytes) -> Remembered:
    """Read what `state_text` wrote.

    Raises:
        ValueError: it is anything else, in any part.
    """
    try:
        told = json.loads(untrusted, object_pairs_hook=_distinct)
        remembered = _remembered(told)
    except (KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise ValueError(f"it is not of the known form ({type(error).__name__})") from error
    if state_text(remembered) != untrusted:
        raise ValueError("it is not as it was written")
    return remembered


def _remembered(told: Any) -> Remembered:  # noqa: ANN401 -- parsed JSON
    if told["version"] != STATE_VERSION:
        raise ValueError(f"it is of version {told['version']}, and this version knows {STATE_VERSION}")
    newest, first = told["newest_issued_at"], told["first_refusal"]
    return Remembered(
        policies={_checked_id(name): _remembered_policy(known) for name, known in told["policies"].items()},
        newest_issued_at=None if newest is None else _moment(newest),
        first_refusal=None if first is None else FirstRefusal(at=_moment(first["at"]), code=str(first["code"])),
        last_good={str(name): base64.b64decode(data, validate=True) for name, data in told["last_good"].items()},
    )


def _remembered_policy(known: Any) -> RememberedPolicy:  # noqa: ANN401 -- parsed JSON
    serial, digest, retired_by = known["serial"], known["payload_sha256"], known["retired_by"]
    if type(serial) is not int or not 1 <= serial <= MAX_SERIAL or not _DIGEST.fullmatch(digest):
        raise ValueError("a serial or digest in it is none")
    retired_by = None if retired_by is None else _checked_id(retired_by)
    return RememberedPolicy(serial=serial, payload_sha256=digest, retired_by=retired_by)


def _checked_id(text: str) -> str:
    if not re.fullmatch(DOCUMENT_ID, text):
        raise ValueError("a policy id in it is none")
    return text


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in it")
    return found


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a date in it has no offset")
    return moment
