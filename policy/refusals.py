"""Why a set of policy files is refused: one stable code each, and the checks on files that were already read.

Pure functions of documents, settings, what is remembered, and a moment. Reading and verifying is left to `load`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum

from policy.document import PolicyDocument
from policy.errors import Problem, SetRefusedError
from policy.remembered import Remembered
from policy.settings import INSTANCE, POLICY_IDS, POLICY_MIN_SERIAL, SettingValues
from policy.statements import Stated, Verb


class RefusalCode(Enum):
    """Why a set of policy files is refused, in the order in which one is named where several hold."""

    POLICY_MISSING = (
        "policy-missing",
        "A policy is required, by itself or by its id, and `SANDBOX_POLICY_PATH` is not set.",
    )
    KEYS_INVALID = "keys-invalid", "The keys, or their number beside the threshold, cannot be used."
    STATE_INVALID = "state-invalid", "What this instance remembers cannot be read, written or trusted."
    WRONG_AUDIENCE = "wrong-audience", "A file is for other instances."
    UNREADABLE = "unreadable", "A file cannot be read, there is none, or others could have written it."
    SIGNATURE_INVALID = "signature-invalid", "Signatures are missing, malformed, too few, or do not verify."
    DOCUMENT_INVALID = "document-invalid", "A file is not a policy that this version understands."
    SET_INVALID = "set-invalid", "Two files contradict each other: one id, different locks, or one retires the other."
    ROLLBACK = "rollback", "A file's serial is lower than one this instance accepted before."
    SERIAL_CONFLICT = "serial-conflict", "A file has the serial of one accepted before, and another text."
    SERIAL_TOO_LOW = "serial-too-low", "A file is older than `SANDBOX_POLICY_MIN_SERIAL` permits."
    ID_MISSING = "id-missing", "An id that `SANDBOX_POLICY_IDS` or another file requires is not in the set."
    ID_GONE = "id-gone", "An id accepted before is not in the set, and no file retires it."
    EXPIRED = "expired", "A file's time is over."
    NOT_YET_VALID = "not-yet-valid", "A file's time has not come."
    CLOCK_BEHIND = "clock-behind", "This clock is behind the moment a file was issued, one accepted before included."

    def __init__(self, code: str, meaning: str) -> None:
        self.code = code
        """What messages, records and programs call it."""
        self.meaning = meaning
        """One sentence for people."""


PASSING_CODES = frozenset({RefusalCode.EXPIRED, RefusalCode.NOT_YET_VALID, RefusalCode.CLOCK_BEHIND})
"""What time alone brings about: a last good set may hold for a while all the same."""

CLOCK_REMEDY = (
    "Set this host's clock right; if that policy was dated wrongly, wait until then, or move the state away, which "
    "forgets all serials"
)
"""The newest date that was accepted stays, even where its policy is forgotten."""

Refusal = tuple[RefusalCode, Problem]


def refused(refusals: Sequence[Refusal]) -> SetRefusedError:
    """The error for everything that was found, under the first code in the enum's order."""
    order = list(RefusalCode)
    code = min((code for code, _ in refusals), key=order.index)
    return SetRefusedError(code.code, tuple(problem for _, problem in refusals))


def set_refusals(documents: Sequence[PolicyDocument], settings: SettingValues, now: datetime) -> Iterator[Refusal]:
    """Everything that keeps these files from holding as one set, here and now."""
    yield from _twice_used_ids(documents)
    yield from _different_locks(documents)
    yield from _relation_refusals(documents, settings)
    for document in documents:
        yield from audience_refusal(document, settings[INSTANCE])
        yield from _date_refusals(document, now)
        least = settings[POLICY_MIN_SERIAL].get(document.policy_id, 1)
        if document.serial < least:
            reason = f"serial {document.serial} is below {least}, the least that {POLICY_MIN_SERIAL.variable} permits"
            remedy = "Ship the newer policy; this may be a rollback"
            yield RefusalCode.SERIAL_TOO_LOW, _document_problem(document, "serial", reason, remedy)


def history_refusals(documents: Sequence[PolicyDocument], remembered: Remembered, now: datetime) -> Iterator[Refusal]:
    """Everything about these files that what was accepted before forbids."""
    for document in documents:
        yield from _serial_refusal(document, remembered)
    accounted = {document.policy_id for document in documents}.union(*(document.retires for document in documents))
    for policy_id, known in sorted(remembered.policies.items()):
        if policy_id not in accounted and known.retired_by is None:
            reason = f"no file has this id, whose serial {known.serial} was accepted before, and none retires it"
            remedy = f"Ship it again, retire it in another policy, or run policy status --forget {policy_id}"
            yield RefusalCode.ID_GONE, Problem(key=policy_id, origin="policy set", reason=reason, remedy=remedy)
    if remembered.newest_issued_at is not None and now < remembered.newest_issued_at:
        newest = remembered.newest_issued_at.isoformat()
        reason = f"it is {now.isoformat(timespec='seconds')}, and a policy issued at {newest} was accepted before"
        problem = Problem(key="clock", origin="this host", reason=reason, remedy=CLOCK_REMEDY)
        yield RefusalCode.CLOCK_BEHIND, problem


def required_ids(settings: SettingValues) -> Mapping[str, str]:
    """The ids that the environment wants present, each with the variable that names it."""
    with_serial, required = settings[POLICY_MIN_SERIAL], settings[POLICY_IDS]
    return {**dict.fromkeys(with_serial, POLICY_MIN_SERIAL.variable), **dict.fromkeys(required, POLICY_IDS.variable)}


def setting_problem(variable: str, reason: str, remedy: str) -> Problem:
    """A problem that a variable has, or is the remedy for."""
    return Problem(key=variable, origin="environment", reason=reason, remedy=remedy)


def _serial_refusal(document: PolicyDocument, remembered: Remembered) -> Iterator[Refusal]:
    known = remembered.policies.get(document.policy_id)
    if known is None:
        return
    if known.retired_by is not None and document.serial <= known.serial:
        reason = f"serial {document.serial} is not above {known.serial}, at which {known.retired_by} retired it"
        remedy = "Remove the file; to bring the policy back, sign it with a higher serial"
        yield RefusalCode.ROLLBACK, _document_problem(document, "serial", reason, remedy)
    elif document.serial < known.serial:
        reason = f"serial {document.serial} is lower than {known.serial}, which this instance accepted before"
        remedy = "Ship the newer policy; to go back, sign the older text with a higher serial and rollback_of"
        yield RefusalCode.ROLLBACK, _document_problem(document, "serial", reason, remedy)
    elif document.serial == known.serial and document.payload_sha256 != known.payload_sha256:
        reason = f"serial {document.serial} was accepted before with another text"
        yield RefusalCode.SERIAL_CONFLICT, _document_problem(document, "serial", reason, "Raise the serial")


def _twice_used_ids(documents: Sequence[PolicyDocument]) -> Iterator[Refusal]:
    first: dict[str, PolicyDocument] = {}
    for document in documents:
        other = first.setdefault(document.policy_id, document)
        if other is not document:
            reason = f"{other.origin} has the id {document.policy_id} too"
            yield RefusalCode.SET_INVALID, _document_problem(document, "id", reason, "Give each file an id of its own")


def _different_locks(documents: Sequence[PolicyDocument]) -> Iterator[Refusal]:
    first: dict[str, Stated] = {}
    for document in documents:
        for stated in document.statements:
            other = first.setdefault(stated.limit.name, stated) if stated.verb is Verb.LOCK else stated
            if other.value != stated.value:
                reason = f"it locks {stated.limit.words(stated.value)}, and {other.origin.place} locks another value"
                key, place = f"limits.{stated.limit.name}", stated.origin.place
                problem = Problem(key=key, origin=place, reason=reason, remedy="Keep one of the two locks")
                yield RefusalCode.SET_INVALID, problem


def _relation_refusals(documents: Sequence[PolicyDocument], settings: SettingValues) -> Iterator[Refusal]:
    """What files say of each other, and the environment of them."""
    present = {document.policy_id for document in documents}
    for document in documents:
        for missing in sorted(set(document.requires) - present):
            reason = f"it requires {missing}, and no policy file has that id"
            problem = _document_problem(document, "requires", reason, "Ship that file too")
            yield RefusalCode.ID_MISSING, problem
        for retired in sorted(set(document.retires) & present):
            reason = f"it retires {retired}, which is still here"
            problem = _document_problem(document, "retires", reason, "Remove the retired file")
            yield RefusalCode.SET_INVALID, problem
    for missing, variable in sorted(required_ids(settings).items()):
        if missing not in present:
            reason = f"no policy file has the id {missing}"
            yield RefusalCode.ID_MISSING, setting_problem(variable, reason, "Ship that file, or correct the id")


def audience_refusal(document: PolicyDocument, instance: str | None) -> Iterator[Refusal]:
    """Whether a file is for other instances: that ends every grace, whatever else is wrong with the set."""
    if "*" not in document.audience and instance not in document.audience:
        here = f"this instance is {instance}" if instance else f"{INSTANCE.variable} is not set"
        reason = f"it is for {', '.join(document.audience)}, and {here}"
        remedy = f"Ship the policy meant for this instance, or correct {INSTANCE.variable}"
        yield RefusalCode.WRONG_AUDIENCE, _document_problem(document, "audience", reason, remedy)


def _date_refusals(document: PolicyDocument, now: datetime) -> Iterator[Refusal]:
    if now >= document.expires_at:
        reason = f"it expired at {document.expires_at.isoformat()}"
        remedy = "Issue it anew with a higher serial and a later date"
        yield RefusalCode.EXPIRED, _document_problem(document, "expires_at", reason, remedy)
    if document.not_before is not None and now < document.not_before:
        reason = f"it holds from {document.not_before.isoformat()} on"
        yield RefusalCode.NOT_YET_VALID, _document_problem(document, "not_before", reason, "Ship it later")
    if now < document.issued_at:
        reason = f"it was issued at {document.issued_at.isoformat()}, which this clock has not reached"
        yield RefusalCode.CLOCK_BEHIND, _document_problem(document, "issued_at", reason, "Set this host's clock right")


def _document_problem(document: PolicyDocument, key: str, reason: str, remedy: str) -> Problem:
    return Problem(key=key, origin=document.origin, reason=reason, remedy=remedy)
