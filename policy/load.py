"""Reads the set of policy files that the environment names: all of it, verified, or nothing.

What is read is handed on as bytes with the documents in them, so that a last good set can be kept and verified again.
Whether the set holds here and now is decided elsewhere, from values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from policy.document import PolicyDocument, parse_document
from policy.errors import ConfigurationError, DocumentError, KeyFileError, SignatureError
from policy.keys import PublicKey, parse_keys
from policy.refusals import Refusal, RefusalCode, audience_refusal, refused, required_ids, setting_problem
from policy.settings import (
    AUDIT_LOG,
    AUDIT_REQUIRED,
    INSTANCE,
    POLICY_KEYS,
    POLICY_PATH,
    POLICY_REQUIRED,
    POLICY_THRESHOLD,
    POLICY_UNSIGNED_ALLOWED,
    SettingValues,
)
from policy.signatures import policy_source
from policy.trusted_files import (
    POLICY_SUFFIXES,
    SIGNED_POLICY_FILE,
    UNSIGNED_POLICY_FILE,
    read_files,
    read_public_key_files,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReader:
    """How files are read; the real one checks who could have written them."""

    policies: Callable[[Path, bool], Mapping[str, bytes]]
    """The files at a path, by name; the flag says whether they need no signature."""
    keys: Callable[[Path], Mapping[str, bytes]]
    """The PEM files at a path, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Policy files whose signatures and shape are good."""

    contents: Mapping[str, bytes]
    """Each file whole, by name."""
    documents: tuple[PolicyDocument, ...]
    """What stands in them, in the same order."""


def trusted_reader() -> PolicyReader:
    """Read from this host's file system."""
    return PolicyReader(policies=_read_policies, keys=read_public_key_files)


def refuse_contradictions(settings: SettingValues) -> None:
    """Refuse settings that exclude each other.

    Raises:
        ConfigurationError: two settings contradict each other.
    """
    problems = []
    if settings[POLICY_UNSIGNED_ALLOWED] and settings[POLICY_KEYS] is not None:
        reason = f"it is true, yet {POLICY_KEYS.variable} names keys"
        problems.append(setting_problem(POLICY_UNSIGNED_ALLOWED.variable, reason, "Unset one of the two"))
    if settings[AUDIT_REQUIRED] and settings[AUDIT_LOG] is None:
        reason = f"it is true, yet {AUDIT_LOG.variable} is not set"
        problems.append(setting_problem(AUDIT_REQUIRED.variable, reason, "Name the log, or unset it"))
    if problems:
        raise ConfigurationError(tuple(problems))


def refuse_missing_path(settings: SettingValues) -> None:
    """Refuse settings that want a policy where no path says from where: going on would be going on without it.

    Raises:
        SetRefusedError: some setting wants one.
    """
    reasons = [f"{POLICY_REQUIRED.variable} is true"] if settings[POLICY_REQUIRED] else []
    reasons += [f"{variable} names {policy_id}" for policy_id, variable in sorted(required_ids(settings).items())]
    refusals = [
        (RefusalCode.POLICY_MISSING, setting_problem(POLICY_PATH.variable, f"{reason}, and this is not set", "Set it"))
        for reason in reasons
    ]
    if refusals:
        raise refused(refusals)


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
        raise refused([(RefusalCode.KEYS_INVALID, problem) for problem in error.problems]) from error
    if threshold > len(keys):
        reason = f"it asks for {threshold} keys, and {POLICY_KEYS.variable} holds {len(keys)} distinct ones"
        problem = setting_problem(POLICY_THRESHOLD.variable, reason, "Lower it, or add keys")
        raise refused([(RefusalCode.KEYS_INVALID, problem)])
    return keys


def read_set(path: Path, settings: SettingValues, reader: PolicyReader) -> PolicySet:
    """Every file at the path, verified with the keys that the environment trusts, and parsed.

    Raises:
        SetRefusedError: the keys cannot be used, or any file cannot; all that is wrong is listed.
    """
    keys = _signing_keys(settings, reader)
    try:
        contents = reader.policies(path, settings[POLICY_UNSIGNED_ALLOWED])
    except DocumentError as error:
        raise refused([(RefusalCode.UNREADABLE, problem) for problem in error.problems]) from error
    return _verified(contents, settings, keys)


def verified_again(contents: Mapping[str, bytes], settings: SettingValues, reader: PolicyReader) -> PolicySet:
    """Files that were accepted once, verified with the keys that the environment trusts today.

    Raises:
        SetRefusedError: the keys cannot be used, or any file cannot; all that is wrong is listed.
    """
    return _verified(contents, settings, _signing_keys(settings, reader))


def _signing_keys(settings: SettingValues, reader: PolicyReader) -> tuple[PublicKey, ...]:
    """The keys that must have signed: none only where policies need no signature."""
    keys = read_keys(settings, reader)
    if not keys and not settings[POLICY_UNSIGNED_ALLOWED]:
        reason = f"{POLICY_PATH.variable} is set, and no key is, so no signature can count"
        problem = setting_problem(POLICY_KEYS.variable, reason, "Name the public keys that sign your policies")
        raise refused([(RefusalCode.KEYS_INVALID, problem)])
    return keys


def _verified(contents: Mapping[str, bytes], settings: SettingValues, keys: tuple[PublicKey, ...]) -> PolicySet:
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
        refusals.extend(refusal for each in documents for refusal in audience_refusal(each, settings[INSTANCE]))
        raise refused(refusals)
    return PolicySet(contents=contents, documents=tuple(documents))


def _read_policies(path: Path, unsigned: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's own shape
    return read_files(path, POLICY_SUFFIXES, UNSIGNED_POLICY_FILE if unsigned else SIGNED_POLICY_FILE)
