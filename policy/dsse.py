"""Signed policy files as DSSE envelopes, and back: the same bytes and signatures in the JSON that other tools read.

Pure functions on bytes. Nothing is verified here: an envelope is turned into the signed policy file it stands for,
and that is verified, so that one piece of code decides what counts. Stricter than DSSE in two things. It lets
readers ignore fields they do not know; here they are refused, since another reader may obey them (`alg`, a second
payload). It lets a signature name no key; here each names its key by our id, by which signature lines are sorted.
Source: DSSE v1 (secure-systems-lab/dsse, envelope.md and protocol.md); RFC 8259 (JSON); RFC 4648 (base64).
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from policy.errors import DocumentError, Problem, SignatureError
from policy.signature_block import MAX_SIGNATURES, PolicySignature, format_signature_block, split_signatures
from policy.signatures import PAYLOAD_TYPE
from policy.trusted_files import SIGNED_POLICY_FILE

MAX_ENVELOPE_BYTES = 128 * 1024
"""Size of an envelope: base64 of a 64 KiB file takes 86 KiB and 16 signatures 4 KiB; the rest is room for layout."""

POLICY_OR_ENVELOPE_FILE = replace(SIGNED_POLICY_FILE, kind="policy file or envelope", max_bytes=MAX_ENVELOPE_BYTES)
"""How a file is read that may be either; a policy file's own, smaller size is checked when it is taken apart."""

SIGNATURE_BYTES = 64
"""Length of an Ed25519 signature. Source: RFC 8032, 5.1.6."""

JSON_SPACE = b" \t\n\r"
"""What may stand before a JSON text. Source: RFC 8259, 2."""

ENVELOPE_FIELDS = frozenset({"payloadType", "payload", "signatures"})
"""What an envelope holds, and all it holds."""

ENTRY_FIELDS = frozenset({"keyid", "sig"})
"""What an entry of `signatures` holds, and all it holds."""

ENVELOPE_KEY_ID = re.compile(r"sha256:[0-9a-f]{64}")
"""The one form of a key id, as `policy keygen` prints it."""

SHOWN_FIELDS, SHOWN_CHARACTERS = 3, 80
"""How many unknown fields a message names, and how much of each text from outside."""

REPAIR_ENVELOPE = "Make it anew from the signed policy file: policy export --dsse FILE"
"""Remedy for an envelope that we would not write."""

KEY_ID_REMEDY = (
    "Set keyid to sha256: and the lower-case hex SHA-256 of the raw public key, as policy keygen prints it; "
    "it is a hint beside the signature, which stays as it is"
)
"""Remedy for a signature that names no key, or names it in another way."""


def looks_like_envelope(untrusted: bytes) -> bool:
    """Tell an envelope from a policy file: no TOML document begins, after white space, with a brace."""
    return untrusted.lstrip(JSON_SPACE).startswith(b"{")


def as_policy_file(untrusted: bytes, *, origin: str) -> bytes:
    """Give the signed policy file that these bytes are, or that the envelope in them stands for; it is not verified.

    Raises:
        DocumentError, SignatureError: as `document_of_envelope` says, where it is an envelope.
    """
    return document_of_envelope(untrusted, origin=origin) if looks_like_envelope(untrusted) else untrusted


def dsse_envelope(document: bytes, *, origin: str) -> bytes:
    """Write a signed policy file, which is not verified, as a DSSE envelope.

    Raises:
        DocumentError: if it is too large, or holds bytes that no policy file may hold.
        SignatureError: if it is not signed, its block is broken, or it is an envelope already.
    """
    split = split_signatures(document, origin=origin)
    if not split.signatures:
        raise SignatureError((_unsigned_problem(document, origin),))
    entries = [{"keyid": each.key_id, "sig": _base64_text(each.value)} for each in split.signatures]
    envelope = {"payloadType": PAYLOAD_TYPE, "payload": _base64_text(split.text), "signatures": entries}
    return json.dumps(envelope, indent=2).encode("ascii") + b"\n"


def document_of_envelope(untrusted: bytes, *, origin: str) -> bytes:
    """Give the signed policy file that an envelope stands for; it is not verified.

    Signatures may stand in any order, and base64 may be standard or URL-safe, as DSSE has it, but padded.

    Raises:
        DocumentError: if it is too large, no JSON, not an envelope, or its payload is no text of a policy file.
        SignatureError: if it is of another payload type, has no signatures or too many, if one of them is malformed
            or does not name its key by our id, or if two name the same key.
    """
    envelope = _envelope_object(untrusted, origin)
    if envelope["payloadType"] != PAYLOAD_TYPE:
        reason = f"it is {_outside_text(envelope['payloadType'])}, so its signatures are for another purpose"
        raise SignatureError((_envelope_problem("payloadType", origin, reason, f"Only {PAYLOAD_TYPE} is a policy"),))
    text = _payload_text(envelope["payload"], origin)
    document = text + format_signature_block(_envelope_signatures(envelope["signatures"], origin))
    try:
        # What is given back must come apart into these very bytes: the payload may hold a marker, for one.
        split_signatures(document, origin=origin)
    except SignatureError as error:
        raise SignatureError(tuple(replace(each, remedy=REPAIR_ENVELOPE) for each in error.problems)) from error
    return document


def _envelope_object(untrusted: bytes, origin: str) -> Mapping[str, Any]:
    """Read JSON as strictly as it can be, into an object of just the fields of an envelope."""
    if len(untrusted) > MAX_ENVELOPE_BYTES:
        reason = f"it has {len(untrusted)} bytes, more than {MAX_ENVELOPE_BYTES}"
        raise _not_an_envelope(origin, reason)
    try:
        found = json.loads(
            untrusted.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_int=_refuse_number,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except UnicodeDecodeError as error:
        raise _not_an_envelope(origin, "it is not UTF-8") from error
    except RecursionError as error:
        raise _not_an_envelope(origin, "it is nested too deeply") from error
    except ValueError as error:
        raise _not_an_envelope(origin, f"it is not JSON that we accept: {error}") from error
    fields = _exact_fields(found, required=ENVELOPE_FIELDS, known=ENVELOPE_FIELDS)
    if isinstance(fields, str):
        raise _not_an_envelope(origin, fields)
    return fields


def _object_without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a field that stands twice: readers differ in which one they take."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the field {_outside_text(name)} stands twice in one object")
        fields[name] = value
    return fields


def _refuse_number(_: str) -> NoReturn:
    """Refuse numbers, NaN among them, before they are read: no field of an envelope is one."""
    raise ValueError("there is a number in it, and no field of an envelope is one")


def _exact_fields(found: object, *, required: frozenset[str], known: frozenset[str]) -> Mapping[str, Any] | str:
    """Give an object's fields, or say why it is no object of these fields alone."""
    if not isinstance(found, dict):
        return "it is not a JSON object"
    missing, unknown = sorted(required - found.keys()), sorted(found.keys() - known)
    if missing:
        return f"it lacks {', '.join(missing)}"
    if unknown:
        more = ", …" if len(unknown) > SHOWN_FIELDS else ""
        return f"it has fields that are not known: {', '.join(map(_outside_text, unknown[:SHOWN_FIELDS]))}{more}"
    return found


def _payload_text(untrusted: object, origin: str) -> bytes:
    text = _base64_bytes(untrusted)
    if text is None:
        reason = "it is not base64, standard or URL-safe, with its padding and no spare bits"
    elif not text.endswith(b"\n"):
        reason = "its text does not end in a line feed" if text else "it is empty"
    else:
        return text
    raise DocumentError((_envelope_problem("payload", origin, reason, REPAIR_ENVELOPE),))


def _envelope_signatures(untrusted: object, origin: str) -> tuple[PolicySignature, ...]:
    """Read the signatures, reporting all that are wrong."""
    if not isinstance(untrusted, list) or not 1 <= len(untrusted) <= MAX_SIGNATURES:
        reason = f"it is not a list of 1 to {MAX_SIGNATURES} signatures"
        raise SignatureError((_envelope_problem("signatures", origin, reason, REPAIR_ENVELOPE),))
    signatures: dict[str, PolicySignature] = {}
    problems: list[Problem] = []
    for number, entry in enumerate(untrusted):
        place = f"signatures[{number}]"
        read = _entry_signature(entry, place, origin)
        if isinstance(read, Problem):
            problems.append(read)
        elif signatures.setdefault(read.key_id, read) is not read:
            problems.append(_envelope_problem(place, origin, f"{read.key_id} signed twice", REPAIR_ENVELOPE))
    if problems:
        raise SignatureError(tuple(problems))
    return tuple(signatures.values())


def _entry_signature(untrusted: object, place: str, origin: str) -> PolicySignature | Problem:
    entry = _exact_fields(untrusted, required=frozenset({"sig"}), known=ENTRY_FIELDS)
    if isinstance(entry, str):
        return _envelope_problem(place, origin, entry, REPAIR_ENVELOPE)
    key_id = entry.get("keyid", "")  # DSSE: an unset keyid is an empty one
    if not isinstance(key_id, str) or not ENVELOPE_KEY_ID.fullmatch(key_id):
        reason = f"{_outside_text(key_id)} is not a key id of ours" if key_id else "it does not say whose it is"
        return _envelope_problem(f"{place}.keyid", origin, reason, KEY_ID_REMEDY)
    value = _base64_bytes(entry["sig"])
    if value is None or len(value) != SIGNATURE_BYTES:
        reason = f"it is not the base64 of the {SIGNATURE_BYTES} bytes of an Ed25519 signature"
        return _envelope_problem(f"{place}.sig", origin, reason, REPAIR_ENVELOPE)
    return PolicySignature(key_id=key_id, value=value)


def _base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _base64_bytes(untrusted: object) -> bytes | None:
    """Read base64 of either alphabet, never of both; nothing if it is not the one way to write these bytes so."""
    if not isinstance(untrusted, str):
        return None
    is_standard = "+" in untrusted or "/" in untrusted
    standard = untrusted if is_standard else untrusted.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(standard, validate=True)
    except ValueError:
        return None
    return data if _base64_text(data) == standard else None


def _outside_text(untrusted: object) -> str:
    """Text from outside as Python writes it, so without control characters, and not much of it."""
    if not isinstance(untrusted, str):
        return "a value that is no text"
    return f"{untrusted[:SHOWN_CHARACTERS]!a}{'…' if len(untrusted) > SHOWN_CHARACTERS else ''}"


def _unsigned_problem(document: bytes, origin: str) -> Problem:
    if looks_like_envelope(document):
        return _envelope_problem("envelope", origin, "it is one already", "Name a signed policy file")
    remedy = "Sign it first: policy sign --key NAME.key FILE"
    return _envelope_problem("signatures", origin, "it has no signature", remedy)


def _not_an_envelope(origin: str, reason: str) -> DocumentError:
    return DocumentError((_envelope_problem("envelope", origin, reason, REPAIR_ENVELOPE),))


def _envelope_problem(key: str, origin: str, reason: str, remedy: str) -> Problem:
    return Problem(key=key, origin=origin, reason=reason, remedy=remedy)
