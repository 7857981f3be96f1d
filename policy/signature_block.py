"""A policy file's signatures as text: the block of comment lines at its end, written and split off.

Pure functions on bytes, lines split at LF alone. Every block has one spelling. Nothing is verified here, and no key is
needed: that is left to `signatures`.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from policy.document import DocumentSource
from policy.errors import DocumentError, Flaw, Problem, SignatureError
from policy.positions import Position
from policy.settings import MAX_DOCUMENT_BYTES

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


def split_signatures(document: bytes, *, origin: str) -> SplitDocument:
    """Take a policy file apart into its text and its signatures.

    Raises:
        DocumentError: if it is too large, or holds a carriage return, NUL byte or byte order mark.
        SignatureError: if it holds a marker, but not one whole block exactly as we would write it.
    """
    check_document_bytes(document, origin)
    if BEGIN_MARKER not in document and END_MARKER not in document:
        return SplitDocument(text=document, signatures=())
    _check_markers(document, origin)
    text_bytes = document.index(BEGIN_LINE)
    lines = document[text_bytes + len(BEGIN_LINE) : -len(END_LINE)].splitlines()
    signatures = _block_signatures(lines, first_signature_line(document[:text_bytes]), origin)
    if format_signature_block(signatures) != document[text_bytes:]:
        where = Position(line=first_signature_line(document[:text_bytes]), column=1)
        raise SignatureError((signature_block_problem(origin, "it is not spelled as we would write it", where=where),))
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


def unsigned_source(name: str, data: bytes) -> DocumentSource:
    """A policy file's text whose signatures, if it has any, are left unread and count for nothing.

    Raises:
        DocumentError: it holds bytes that no policy file may hold.
        SignatureError: it holds half a signature block.
    """
    return text_source(name, split_signatures(data, origin=name))


def text_source(name: str, split: SplitDocument) -> DocumentSource:
    """The text of a policy file that was taken apart; its signatures count for nothing."""
    return DocumentSource(origin=name, text=split.text, payload_sha256=text_digest(split.text), key_ids=())


def check_document_bytes(document: bytes, origin: str) -> None:
    """Refuse what no policy file may hold.

    Raises:
        DocumentError: it is too large, or holds a carriage return, NUL byte or byte order mark.
    """
    problems = [
        signed_file_problem(
            f"{origin}:{_position_of_byte(document, document.index(forbidden)).line}",
            f"it holds {name}",
            "Save it as UTF-8 without byte order mark, with lines that end in LF alone",
            Flaw.ENCODING,
            _position_of_byte(document, document.index(forbidden)),
        )
        for forbidden, name in FORBIDDEN_BYTES
        if forbidden in document
    ]
    if len(document) > MAX_DOCUMENT_BYTES:
        reason = f"it has {len(document)} bytes, more than {MAX_DOCUMENT_BYTES}"
        problems.append(signed_file_problem(origin, reason, "Split it into several policy files", Flaw.TOO_LARGE))
    if problems:
        raise DocumentError(tuple(problems))


def _check_markers(document: bytes, origin: str) -> None:
    """Require one whole block after the text: BEGIN and END once each, each alone in its line, END the last."""
    reasons = [
        f"the marker {marker.decode()} stands {document.count(marker)} times, not once"
        for marker in (BEGIN_MARKER, END_MARKER)
        if document.count(marker) != 1
    ]
    if not reasons and b"\n" + BEGIN_LINE not in document:
        reasons.append("BEGIN does not stand alone in a line after the text")
    if not reasons and not document.endswith(b"\n" + END_LINE):
        reasons.append("the file does not end with END and its line feed")
    if reasons:
        where = _position_of_byte(document, max(document.rfind(BEGIN_MARKER), document.rfind(END_MARKER)))
        raise SignatureError(tuple(signature_block_problem(origin, reason, where=where) for reason in reasons))


def _block_signatures(lines: list[bytes], first_line: int, origin: str) -> tuple[PolicySignature, ...]:
    """Read a block's lines, reporting all that are wrong."""
    if not 1 <= len(lines) <= MAX_SIGNATURES:
        reason = f"it has {len(lines)} signature lines, not 1 to {MAX_SIGNATURES}"
        raise SignatureError((_line_problem(origin, first_line, reason),))
    matches = [SIGNATURE_LINE.fullmatch(line) for line in lines]
    problems = [
        _line_problem(origin, number, "the line is not: # ed25519 sha256:HEX BASE64")
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
            yield _line_problem(origin, number, f"{after.key_id} signed twice")
        elif before.key_id > after.key_id:
            yield _line_problem(origin, number, "the lines are not sorted by key id")


def first_signature_line(text: bytes) -> int:
    """Number the line after BEGIN, counting from 1."""
    return text.count(b"\n") + 2


def _position_of_byte(document: bytes, offset: int) -> Position:
    line_start = document.rfind(b"\n", 0, offset) + 1
    before = document[line_start:offset].decode("utf-8", errors="replace")
    return Position(line=document.count(b"\n", 0, offset) + 1, column=len(before) + 1)


def _line_problem(origin: str, line: int, reason: str) -> Problem:
    return signature_block_problem(f"{origin}:{line}", reason, where=Position(line=line, column=1))


def signature_block_problem(
    origin: str, reason: str, remedy: str = REPAIR_BLOCK, where: Position | None = None
) -> Problem:
    """A problem of the block, or of the lack of one."""
    return Problem(
        key="signatures", origin=origin, reason=reason, remedy=remedy, flaw=Flaw.BROKEN_SIGNATURES, position=where
    )


def signed_file_problem(
    origin: str, reason: str, remedy: str, flaw: Flaw | None = None, position: Position | None = None
) -> Problem:
    """A problem of the file as a whole."""
    return Problem(key="policy file", origin=origin, reason=reason, remedy=remedy, flaw=flaw, position=position)
