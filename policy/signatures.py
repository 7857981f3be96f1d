"""Signs policy files and verifies their signatures.

Pure functions on bytes, lines split at LF alone. Signed is DSSE's pre-authentication encoding of the exact bytes
before the block; nothing is re-serialised, and whoever verified must parse the `text` returned here, not the file
again. Every block has one spelling, so no byte of the text, nor of a trusted key's line, can change unseen; lines of
unknown keys prove nothing and can be added or removed. Counted are keys, never people.
Source: DSSE protocol v1 (secure-systems-lab/dsse, protocol.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from policy.document import DocumentSource
from policy.errors import DocumentError, Problem, SignatureError
from policy.keys import PrivateKey, PublicKey
from policy.signature_block import (
    MAX_SIGNATURES,
    PolicySignature,
    SplitDocument,
    check_document_bytes,
    first_signature_line,
    format_signature_block,
    signed_file_problem,
    split_signatures,
    text_digest,
    unsigned_source,
)

PAYLOAD_TYPE = "application/vnd.sandbox-policy.v1+toml"
"""What is signed: purpose, version and encoding, so that no signature serves for anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDocument:
    """A policy file that enough trusted keys signed."""

    text: bytes
    """The signed bytes: parse these, and do not read the file again."""
    trusted: tuple[str, ...]
    """Ids of the trusted keys that signed."""
    unknown: tuple[str, ...]
    """Ids named in lines of keys that are not trusted here: not checked and not counted."""
    payload_sha256: str
    """SHA-256 of the text in lower-case hex: equal text is the same policy, whoever signed it."""


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Encode what is signed: type and payload, each with its length in bytes.

    Source: DSSE protocol v1, PAE.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def add_signature(document: bytes, key: PrivateKey, *, origin: str) -> bytes:
    """Sign a policy file: the text stays as it is, and an earlier signature of the same key is replaced.

    Raises:
        DocumentError: if the text cannot be signed: its bytes, its end, or its size with the signature.
        SignatureError: if a block is there but broken, or is full.
    """
    split = split_signatures(document, origin=origin)
    if not split.text.endswith(b"\n"):
        reason = "it does not end in a line feed" if split.text else "it is empty"
        raise DocumentError((signed_file_problem(origin, reason, "End its last line with a line feed"),))
    key_id = key.public.key_id
    value = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, split.text))
    others = [signature for signature in split.signatures if signature.key_id != key_id]
    if len(others) >= MAX_SIGNATURES:
        reason = f"it already has {MAX_SIGNATURES} signatures, the most a file may have"
        remedy = "Remove the line of a key that signs no more"
        raise SignatureError((Problem(key="signatures", origin=origin, reason=reason, remedy=remedy),))
    signed = split.text + format_signature_block([*others, PolicySignature(key_id=key_id, value=value)])
    check_document_bytes(signed, origin)
    return signed


def verify_signatures(document: bytes, keys: Sequence[PublicKey], *, threshold: int, origin: str) -> VerifiedDocument:
    """Verify that enough trusted keys signed a policy file, and give the bytes that they signed.

    Args:
        document: the whole file.
        keys: the trusted keys; one given twice counts once.
        threshold: how many of them must have signed, 1 … the number of distinct keys.
        origin: the file's name, for messages.

    Raises:
        DocumentError: if the file holds bytes that no policy file may hold.
        SignatureError: if there is no trusted key or no such threshold, if the block is broken, if the line of a
            trusted key does not verify, or if too few trusted keys signed.
    """
    trusted = {key.key_id: key for key in keys}
    _check_threshold(threshold, len(trusted), origin)
    split = split_signatures(document, origin=origin)
    _check_trusted_lines(split, trusted, origin)
    named = tuple(signature.key_id for signature in split.signatures)
    signed = {trusted[key_id].raw: key_id for key_id in named if key_id in trusted}
    unknown = tuple(key_id for key_id in named if key_id not in trusted)
    if len(signed) < threshold:
        raise SignatureError((_too_few_signed(len(signed), threshold, unknown, origin),))
    return VerifiedDocument(
        text=split.text,
        trusted=tuple(signed.values()),
        unknown=unknown,
        payload_sha256=text_digest(split.text),
    )


def policy_source(name: str, data: bytes, keys: Sequence[PublicKey], threshold: int) -> DocumentSource:
    """A policy file's text, signed by enough of the keys; where there are no keys, the text as it is.

    Raises:
        DocumentError: it holds bytes that no policy file may hold.
        SignatureError: its signatures are broken, or too few.
    """
    if keys:
        verified = verify_signatures(data, keys, threshold=threshold, origin=name)
        return DocumentSource(
            origin=name,
            text=verified.text,
            payload_sha256=verified.payload_sha256,
            key_ids=verified.trusted,
            unknown_key_ids=verified.unknown,
        )
    return unsigned_source(name, data)


def _check_threshold(threshold: int, distinct_keys: int, origin: str) -> None:
    if not distinct_keys:
        reason, remedy = "there is no trusted key to verify with", "Name at least one public key"
    elif not 1 <= threshold <= distinct_keys:
        reason = f"{threshold} signatures are required; distinct trusted keys: {distinct_keys}"
        remedy = f"Require 1 to {distinct_keys}, or name more keys"
    else:
        return
    raise SignatureError((Problem(key="threshold", origin=origin, reason=reason, remedy=remedy),))


def _check_trusted_lines(split: SplitDocument, trusted: dict[str, PublicKey], origin: str) -> None:
    """Refuse the file for any line of a trusted key that does not verify, however many others do."""
    message = pre_authentication_encoding(PAYLOAD_TYPE, split.text)
    problems = tuple(
        Problem(
            key=signature.key_id,
            origin=f"{origin}:{number}",
            reason="the signature does not verify: text or line were changed after signing",
            remedy="Restore the file from its source, or review the text and have this key sign it again",
        )
        for number, signature in enumerate(split.signatures, start=first_signature_line(split.text))
        if signature.key_id in trusted and not trusted[signature.key_id].verifies(signature.value, message)
    )
    if problems:
        raise SignatureError(problems)


def _too_few_signed(signed: int, threshold: int, unknown: tuple[str, ...], origin: str) -> Problem:
    reason = f"{signed} of the trusted keys signed it, and {threshold} must"
    if unknown:
        reason += f"; signatures of keys not trusted here: {', '.join(unknown)}"
    elif not signed:
        reason += "; it has no signature"
    remedy = "Have it signed with a trusted key: policy sign --key NAME.key FILE"
    return Problem(key="signatures", origin=origin, reason=reason, remedy=remedy)
