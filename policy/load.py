"""Loads the set of policy files that the environment names, all of it or nothing.

A set is refused for one stable reason code, with every problem listed. Several files make one set; their order never
matters. Time, the environment and how files are read are given, so every decision here can be repeated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

from policy.document import PolicyDocument, parse_document
from policy.effective import EffectiveLimits
from policy.environment import EnvironmentLayer
from policy.errors import ConfigurationError, DocumentError, KeyFileError, Problem, SetRefusedError, SignatureError
from policy.keys import PublicKey, parse_keys
from policy.requester import UNDETERMINED, Requester
from policy.resolve import Layers, resolve
from policy.settings import (
    INSTANCE,
    POLICY_IDS,
    POLICY_KEYS,
    POLICY_MIN_SERIAL,
    POLICY_PATH,
    POLICY_REQUIRED,
    POLICY_THRESHOLD,
    POLICY_UNSIGNED_ALLOWED,
    SettingValues,
)
from policy.signatures import policy_source
from policy.statements import Stated, Verb
from policy.trusted_files import SIGNED_POLICY_FILE, UNSIGNED_POLICY_FILE, read_files, read_public_key_files

POLICY_SUFFIXES = (".toml",)


class RefusalCode(Enum):
    """Why a set of policy files is refused, in the order in which one is named where several hold."""

    POLICY_MISSING = "policy-missing"
    """A policy is required, by itself or by its id, and `SANDBOX_POLICY_PATH` is not set."""
    KEYS_INVALID = "keys-invalid"
    """The keys, or their number beside the threshold, cannot be used."""
    UNREADABLE = "unreadable"
    """A file cannot be read, or others could have written it."""
    SIGNATURE_INVALID = "signature-invalid"
    """Signatures are missing, malformed, too few, or do not verify."""
    DOCUMENT_INVALID = "document-invalid"
    """A file is not a policy this version understands."""
    SET_INVALID = "set-invalid"
    """Two files contradict each other: the same id, or different locks of one limit."""
    WRONG_AUDIENCE = "wrong-audience"
    """A file is for other instances."""
    EXPIRED = "expired"
    """A file's time is over."""
    NOT_YET_VALID = "not-yet-valid"
    """A file's time has not come."""
    CLOCK_BEHIND = "clock-behind"
    """This clock is behind the moment a file was issued."""
    ID_MISSING = "id-missing"
    """An id named by `SANDBOX_POLICY_IDS` is not in the set."""
    SERIAL_TOO_LOW = "serial-too-low"
    """A file is older than `SANDBOX_POLICY_MIN_SERIAL` permits."""


Refusal = tuple[RefusalCode, Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReader:
    """How files are read; the real one checks who could have written them."""

    policies: Callable[[Path, bool], Mapping[str, bytes]]
    """The files at a path, by name; the flag says whether they need no signature."""
    keys: Callable[[Path], Mapping[str, bytes]]
    """The PEM files at a path, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that holds on this instance, before anybody's valves."""

    environment: EnvironmentLayer
    """What the environment says."""
    documents: tuple[PolicyDocument, ...]
    """The policy files, accepted as one set."""

    def limits(
        self,
        *,
        requester: Requester = UNDETERMINED,
        untrusted_person_valves: Mapping[str, object] | None = None,
        untrusted_admin_valves: Mapping[str, object] | None = None,
    ) -> EffectiveLimits:
        """The effective limits for this requester, beside these valves."""
        return resolve(
            Layers(
                environment=self.environment.statements,
                documents=self.documents,
                requester=requester,
                untrusted_person_valves=untrusted_person_valves,
                untrusted_admin_valves=untrusted_admin_valves,
            )
        )


def trusted_reader() -> PolicyReader:
    """Read from this host's file system."""
    return PolicyReader(policies=_read_policies, keys=read_public_key_files)


def load_situation(environment: EnvironmentLayer, *, now: datetime, reader: PolicyReader) -> Situation:
    """Read the policy files and keys that the environment names.

    Raises:
        ConfigurationError: the environment contradicts itself.
        SetRefusedError: the policy set cannot be used.
    """
    settings = environment.settings
    _refuse_unsigned_beside_keys(settings)
    keys = read_keys(settings, reader)
    path = settings[POLICY_PATH]
    if path is None:
        refusals = list(_pathless_refusals(settings))
        if refusals:
            raise _refused(refusals)
        return Situation(environment=environment, documents=())
    documents = _accepted_documents(Path(path), settings, keys, reader)
    refusals = list(set_refusals(documents, settings, now))
    if refusals:
        raise _refused(refusals)
    return Situation(environment=environment, documents=documents)


def set_refusals(documents: Sequence[PolicyDocument], settings: SettingValues, now: datetime) -> Iterator[Refusal]:
    """Everything that keeps these files from holding as one set, here and now."""
    yield from _twice_used_ids(documents)
    yield from _different_locks(documents)
    for document in documents:
        yield from _audience_refusal(document, settings[INSTANCE])
        yield from _date_refusals(document, now)
        least = settings[POLICY_MIN_SERIAL].get(document.policy_id, 1)
        if document.serial < least:
            reason = f"serial {document.serial} is below {least}, the least that {POLICY_MIN_SERIAL.variable} permits"
            remedy = "Ship the newer policy; this may be a rollback"
            yield RefusalCode.SERIAL_TOO_LOW, _document_problem(document, "serial", reason, remedy)
    present = {document.policy_id for document in documents}
    for missing, variable in sorted(_named_ids(settings).items()):
        if missing not in present:
            reason = f"no policy file has the id {missing}"
            yield RefusalCode.ID_MISSING, _setting_problem(variable, reason, "Ship that file, or correct the id")


def _named_ids(settings: SettingValues) -> Mapping[str, str]:
    """The ids that must be present, each with the variable that names it."""
    with_serial, required = settings[POLICY_MIN_SERIAL], settings[POLICY_IDS]
    return {**dict.fromkeys(with_serial, POLICY_MIN_SERIAL.variable), **dict.fromkeys(required, POLICY_IDS.variable)}


def _pathless_refusals(settings: SettingValues) -> Iterator[Refusal]:
    """Every setting that wants a policy, where no path says from where: going on would be going on without it."""
    reasons = [f"{POLICY_REQUIRED.variable} is true"] if settings[POLICY_REQUIRED] else []
    reasons += [f"{variable} names {policy_id}" for policy_id, variable in sorted(_named_ids(settings).items())]
    for reason in reasons:
        problem = _setting_problem(POLICY_PATH.variable, f"{reason}, and this is not set", "Set it")
        yield RefusalCode.POLICY_MISSING, problem


def _read_policies(path: Path, unsigned: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's own shape
    return read_files(path, POLICY_SUFFIXES, UNSIGNED_POLICY_FILE if unsigned else SIGNED_POLICY_FILE)


def _refuse_unsigned_beside_keys(settings: SettingValues) -> None:
    if settings[POLICY_UNSIGNED_ALLOWED] and settings[POLICY_KEYS] is not None:
        reason = f"it is true, yet {POLICY_KEYS.variable} names keys"
        problem = _setting_problem(POLICY_UNSIGNED_ALLOWED.variable, reason, "Unset one of the two")
        raise ConfigurationError((problem,))


def read_keys(settings: SettingValues, reader: PolicyReader) -> tuple[PublicKey, ...]:
    """The keys that the environment trusts, at least as many as must sign; none where it names none.

    Raises:
        SetRefusedError: any of them cannot be used, or they are fewer than the threshold.
    """
    setting, threshold = settings[POLICY_KEYS], settings[POLICY_THRESHOLD]
    if setting is None and threshold == POLICY_THRESHOLD.default:
        return ()
    try:
        keys = parse_keys(setting, POLICY_KEYS.variable, reader.keys) if setting is not None else ()
    except KeyFileError as error:
        raise _refused([(RefusalCode.KEYS_INVALID, problem) for problem in error.problems]) from error
    if threshold > len(keys):
        reason = f"it asks for {threshold} keys, and {POLICY_KEYS.variable} holds {len(keys)} distinct ones"
        problem = _setting_problem(POLICY_THRESHOLD.variable, reason, "Lower it, or add keys")
        raise _refused([(RefusalCode.KEYS_INVALID, problem)])
    return keys


def _accepted_documents(
    path: Path, settings: SettingValues, keys: tuple[PublicKey, ...], reader: PolicyReader
) -> tuple[PolicyDocument, ...]:
    """Every file at the path, verified and read, or all that is wrong with any of them."""
    unsigned = settings[POLICY_UNSIGNED_ALLOWED]
    if not keys and not unsigned:
        reason = f"{POLICY_PATH.variable} is set, and no key is, so no signature can count"
        problem = _setting_problem(POLICY_KEYS.variable, reason, "Name the public keys that sign your policies")
        raise _refused([(RefusalCode.KEYS_INVALID, problem)])
    try:
        contents = reader.policies(path, unsigned)
    except DocumentError as error:
        raise _refused([(RefusalCode.UNREADABLE, problem) for problem in error.problems]) from error
    documents: list[PolicyDocument] = []
    refusals: list[Refusal] = []
    for name, data in contents.items():
        try:
            documents.append(parse_document(policy_source(name, data, keys, settings[POLICY_THRESHOLD])))
        except SignatureError as error:
            refusals.extend((RefusalCode.SIGNATURE_INVALID, problem) for problem in error.problems)
        except DocumentError as error:
            refusals.extend((RefusalCode.DOCUMENT_INVALID, problem) for problem in error.problems)
    if refusals:
        raise _refused(refusals)
    return tuple(documents)


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


def _audience_refusal(document: PolicyDocument, instance: str | None) -> Iterator[Refusal]:
    if "*" not in document.audience and instance not in document.audience:
        here = f"this instance is {instance}" if instance else f"{INSTANCE.variable} is not set"
        reason = f"it is for {', '.join(document.audience)}, and {here}"
        remedy = f"Ship the policy meant for this instance, or correct {INSTANCE.variable}"
        yield RefusalCode.WRONG_AUDIENCE, _document_problem(document, "audience", reason, remedy)


def _date_refusals(document: PolicyDocument, now: datetime) -> Iterator[Refusal]:
    if now >= document.expires_at:
        reason = f"it expired at {document.expires_at.isoformat()}; it is now {now.isoformat(timespec='seconds')}"
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


def _setting_problem(variable: str, reason: str, remedy: str) -> Problem:
    return Problem(key=variable, origin="environment", reason=reason, remedy=remedy)


def _refused(refusals: Sequence[Refusal]) -> SetRefusedError:
    """The error for everything that was found, under the first code in the enum's order."""
    order = list(RefusalCode)
    code = min((code for code, _ in refusals), key=order.index)
    return SetRefusedError(code.value, tuple(problem for _, problem in refusals))
