"""What differs between two sets of policy files beside the limits: files, serials, dates, audience, relations.

None of this makes a set looser or tighter; a reviewer wants to see it all the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from policy.document import PolicyDocument

_NAMED_KEYS = ("audience", "not_before", "expires_at", "requires", "retires", "rollback_of")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetChange:
    """One thing that differs."""

    policy_id: str
    """The policy file's own id."""
    key: str
    """Its key in the file; `id` for the file itself."""
    old: str
    """What it was; empty where it was not there."""
    new: str
    """What it is; empty where it is not there."""
    note: str = ""
    """What there is to say about it."""

    def __str__(self) -> str:
        """Say it in one line."""
        change = f"{self.old or 'none'} → {self.new or 'none'}"
        return f"{self.policy_id}: {self.key} {change}{self.note and f': {self.note}'}"


def set_changes(old: Sequence[PolicyDocument], new: Sequence[PolicyDocument]) -> tuple[SetChange, ...]:
    """Everything that differs beside the limits, by id; in each set an id stands once."""
    before = {document.policy_id: document for document in old}
    after = {document.policy_id: document for document in new}
    return tuple(
        change
        for policy_id in sorted({*before, *after})
        for change in _file_changes(policy_id, before.get(policy_id), after.get(policy_id))
    )


def _file_changes(policy_id: str, old: PolicyDocument | None, new: PolicyDocument | None) -> Iterator[SetChange]:
    if old is None or new is None:
        note = "the file is new" if old is None else "the file is gone"
        origins = {"old": old.origin if old else "", "new": new.origin if new else ""}
        yield SetChange(policy_id=policy_id, key="id", **origins, note=note)
        return
    if old.payload_sha256 != new.payload_sha256 and new.serial <= old.serial:
        note = "it is not raised, though the text changed"
        yield SetChange(policy_id=policy_id, key="serial", old=str(old.serial), new=str(new.serial), note=note)
    if new.issued_at < old.issued_at:
        note = "it goes back"
        dates = {"old": _key_text(old.issued_at), "new": _key_text(new.issued_at)}
        yield SetChange(policy_id=policy_id, key="issued_at", **dates, note=note)
    for key in _NAMED_KEYS:
        texts = _key_text(getattr(old, key)), _key_text(getattr(new, key))
        if texts[0] != texts[1]:
            yield SetChange(policy_id=policy_id, key=key, old=texts[0], new=texts[1])


def _key_text(value: object) -> str:
    """The value of one key; empty where it is not there."""
    match value:
        case None:
            return ""
        case tuple():
            return ", ".join(sorted(map(str, value)))
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
