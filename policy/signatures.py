"""A policy file's signatures: the block of comment lines at its end, written, split off and verified.

Pure functions on bytes, lines split at LF alone. Signed is DSSE's pre-authentication encoding of the exact bytes
before the block; nothing is re-serialised, and whoever verified must parse the `text` returned here, not the file
again. Every block has one spelling, so no byte of the text, nor of a trusted key's line, can change unseen; lines of
unknown keys prove nothing and can be added or removed. Counted are keys, never people.
Source: DSSE protocol v1 (secure-systems-lab/dsse, protocol.md).
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policy.document import DocumentSource
from policy.errors import DocumentError, Problem, SignatureError
from policy.keys import PrivateKey, PublicKey
from policy.settings import MAX_DOCUMENT_BYTES

PAYLOAD_TYPE = "application/vnd.sandbox-policy.v1+toml"
"""What is signed: purpose, version and encoding, so that no signature serves for anything else."""

MAX_SIGNATURES = 16
"""Signature lines of one file."""

BEGIN_MARKER = b"-----BEGIN POLICY SIGNATURES-----"
"""Stands once in a signed file, in a comment line of its own after the text."""

END_MARKER = b"-----END POLICY SIGNATURES-----"
"""Stands once in a signed file, in its last line."""

BEGIN_LINE = b"# " + BEGIN_MARKER + b"\n"
END_LINE = b"# " + END_MARKER + b"\n"

SIGNATURE_LINE = re.compile(rb"# ed25519 (sha256:[0-9a-f]{64}) ([A-Za-z0-9+/]{86}==)")
"""One signature line; that its spare base64 bits are zero shows when the block is written again."""

FORBIDDEN_BYTES = ((b"\r", "a carriage return"), (b"\0", "a NUL byte"), (b"\xef\xbb\xbf", "a byte order mark"))
"""Bytes that editors and parsers read differently, each with its name."""

REPAIR_BLOCK = (
    "Restore the file from its source, or remove everything from the BEGIN line on and sign again: "
    "policy sign --key NAME.key FILE"
)
"""Remedy for a block that is not one we would write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySignature:
    """One signature line."""

    key_id: str
    """Id of the key said to have made it: a hint until verified."""
    value: bytes
    """The signature, 64 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDocument:
    """A policy file taken apart; nothing in it is verified."""

    text: bytes
    """The TOML text: all bytes before the block."""
    signatures: tuple[PolicySignature, ...]
    """Sorted by key id; empty if the file is unsigned."""


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


def split_signatures(document: bytes, *, origin: str) -> SplitDocument:
    """Take a policy file apart into its text and its signatures.

    Raises:
        DocumentError: if it is too large, or holds a carriage return, NUL byte or byte order mark.
        SignatureError: if it holds a marker, but not one whole block exactly as we would write it.
    """
    _check_document_bytes(document, origin)
    if BEGIN_MARKER not in document and END_MARKER not in document:
        return SplitDocument(text=document, signatures=())
    _check_markers(document, origin)
    text_bytes = document.index(BEGIN_LINE)
    lines = document[text_bytes + len(BEGIN_LINE) : -len(END_LINE)].splitlines()
    signatures = _block_signatures(lines, _first_signature_line(document[:text_bytes]), origin)
    if format_signature_block(signatures) != document[text_bytes:]:
        raise SignatureError((_block_problem(origin, "it is not spelled as we would write it"),))
    return SplitDocument(text=document[:text_bytes], signatures=signatures)


def text_digest(text: bytes) -> str:
    """SHA-256 of a policy's text in lower-case hex, by which two payloads are told to be the same."""
    return hashlib.sha256(text).hexdigest()


def format_signature_block(signatures: Iterable[PolicySignature]) -> bytes:
    """Write signatures as the block that ends a signed file."""
    lines = (
        b"# ed25519 %b %b\n" % (signature.key_id.encode(), base64.b64encode(signature.value))
        for signature in sorted(signatures, key=lambda signature: signature.key_id)
    )
    return BEGIN_LINE + b"".join(lines) + END_LINE


def add_signature(document: bytes, key: PrivateKey, *, origin: str) -> bytes:
    """Sign a policy file: the text stays as it is, and an earlier signature of the same key is replaced.

    Raises:
        DocumentError: if the text cannot be signed: its bytes, its end, or its size with the signature.
        SignatureError: if a block is there but broken, or is full.
    """
    split = split_signatures(document, origin=origin)
    if not split.text.endswith(b"\n"):
        reason = "it does not end in a line feed" if split.text else "it is empty"
        raise DocumentError((_signed_file_problem(origin, reason, "End its last line with a line feed"),))
    key_id = key.public.key_id
    value = key.sign(pre_authentication_encoding(PAYLOAD_TYPE, split.text))
    others = [signature for signature in split.signatures if signature.key_id != key_id]
    if len(others) >= MAX_SIGNATURES:
        reason = f"it already has {MAX_SIGNATURES} signatures, the most a file may have"
        raise SignatureError((_block_problem(origin, reason, "Remove the line of a key that signs no more"),))
    signed = split.text + format_signature_block([*others, PolicySignature(key_id=key_id, value=value)])
    _check_document_bytes(signed, origin)
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


def unsigned_source(name: str, data: bytes) -> DocumentSource:
    """A policy file's text whose signatures, if it has any, are left unread and count for nothing.

    Raises:
        DocumentError: it holds bytes that no policy file may hold.
        SignatureError: it holds half a signature block.
    """
    text = split_signatures(data, origin=name).text
    return DocumentSource(origin=name, text=text, payload_sha256=text_digest(text), key_ids=())


def _check_document_bytes(document: bytes, origin: str) -> None:
    problems = [
        _signed_file_problem(
            f"{origin}:{_line_of_byte(document, document.index(forbidden))}",
            f"it holds {name}",
            "Save it as UTF-8 without byte order mark, with lines that end in LF alone",
        )
        for forbidden, name in FORBIDDEN_BYTES
        if forbidden in document
    ]
    if len(document) > MAX_DOCUMENT_BYTES:
        reason = f"it has {len(document)} bytes, more than {MAX_DOCUMENT_BYTES}"
        problems.append(_signed_file_problem(origin, reason, "Split it into several policy files"))
    if problems:
        raise DocumentError(tuple(problems))


def _check_markers(document: bytes, origin: str) -> None:
    """Require one whole block after the text: BEGIN and END once each, each alone in its line, END the last."""
    problems = [
        _block_problem(origin, f"the marker {marker.decode()} stands {document.count(marker)} times, not once")
        for marker in (BEGIN_MARKER, END_MARKER)
        if document.count(marker) != 1
    ]
    if not problems and b"\n" + BEGIN_LINE not in document:
        problems.append(_block_problem(origin, "BEGIN does not stand alone in a line after the text"))
    if not problems and not document.endswith(b"\n" + END_LINE):
        problems.append(_block_problem(origin, "the file does not end with END and its line feed"))
    if problems:
        raise SignatureError(tuple(problems))


def _block_signatures(lines: list[bytes], first_line: int, origin: str) -> tuple[PolicySignature, ...]:
    """Read a block's lines, reporting all that are wrong."""
    if not 1 <= len(lines) <= MAX_SIGNATURES:
        reason = f"it has {len(lines)} signature lines, not 1 to {MAX_SIGNATURES}"
        raise SignatureError((_block_problem(f"{origin}:{first_line}", reason),))
    matches = [SIGNATURE_LINE.fullmatch(line) for line in lines]
    problems = [
        _block_problem(f"{origin}:{number}", "the line is not: # ed25519 sha256:HEX BASE64")
        for number, match in enumerate(matches, start=first_line)
        if not match
    ]
    signatures = tuple(
        PolicySignature(key_id=match[1].decode(), value=base64.b64decode(match[2])) for match in matches if match
    )
    if not problems:
        problems.extend(_order_problems(signatures, first_line, origin))
    if problems:
        raise SignatureError(tuple(problems))
    return signatures


def _order_problems(signatures: tuple[PolicySignature, ...], first_line: int, origin: str) -> Iterable[Problem]:
    """Find lines that stand out of order, or a second time."""
    for number, (before, after) in enumerate(itertools.pairwise(signatures), start=first_line + 1):
        if before.key_id == after.key_id:
            yield _block_problem(f"{origin}:{number}", f"{after.key_id} signed twice")
        elif before.key_id > after.key_id:
            yield _block_problem(f"{origin}:{number}", "the lines are not sorted by key id")


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
        for number, signature in enumerate(split.signatures, start=_first_signature_line(split.text))
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
    return _block_problem(origin, reason, remedy)


def _first_signature_line(text: bytes) -> int:
    """Number the line after BEGIN, counting from 1."""
    return text.count(b"\n") + 2


def _line_of_byte(document: bytes, position: int) -> int:
    return document.count(b"\n", 0, position) + 1


def _block_problem(origin: str, reason: str, remedy: str = REPAIR_BLOCK) -> Problem:
    return Problem(key="signatures", origin=origin, reason=reason, remedy=remedy)


def _signed_file_problem(origin: str, reason: str, remedy: str) -> Problem:
    return Problem(key="policy file", origin=origin, reason=reason, remedy=remedy)
