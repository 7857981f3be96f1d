"""Ed25519 keys: what counts as one, and how they are read from settings and PEM, made and written.

Pure functions on text and bytes; files are read elsewhere and passed in. Only Ed25519 exists, and a public key is
its raw 32 bytes: the key id is derived from them, so no key has two. No problem told here holds bytes of a key.
Source: RFC 8032 (Ed25519), RFC 8410 (SPKI and PKCS#8 of Ed25519), RFC 7468 (PEM).
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from policy.errors import KeyFileError, Problem

RAW_KEY_BYTES = 32
"""Length of a raw Ed25519 public key. Source: RFC 8032, 5.1.5."""

FIELD_PRIME = 2**255 - 19
"""The field of edwards25519. Source: RFC 8032, 5.1."""

CURVE_D = -121665 * pow(121666, -1, FIELD_PRIME) % FIELD_PRIME
"""The constant d of edwards25519, -x² + y² = 1 + d·x²·y². Source: RFC 8032, 5.1."""

ORDER_EIGHT_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""Height of four of the points of order eight; the other four stand at its negative."""

SMALL_ORDER_Y = frozenset({0, 1, FIELD_PRIME - 1, ORDER_EIGHT_Y, FIELD_PRIME - ORDER_EIGHT_Y})
"""Heights, reduced, of the eight points of small order; with either sign bit and unreduced these are all 14 encodings.

Signatures under such a key can be forged by anybody. Source: C2SP CCTV, `ed25519` (eight points and six alternative
encodings); libsodium, `ge25519_has_small_order`.
"""

PEM_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(?:(?!-----).)*-----END \1-----", re.DOTALL)
"""One PEM block; dashes inside would be a block cut off."""

INLINE_KEY = re.compile(r"ed25519:([A-Za-z0-9+/]{43}=)")
"""One key written into the setting itself."""

PRIVATE_KEY_WARNING = (
    "Name the public key (NAME.pub) here, keep the private key where policies are signed, "
    "and replace it if others could read this"
)
"""Remedy where a private key was given and a public one is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public key that is safe to trust: canonical, on the curve and not of small order."""

    raw: bytes
    """Its 32 bytes as RFC 8032 encodes them."""

    def __post_init__(self) -> None:
        reason = weak_key_reason(self.raw)
        if reason:
            raise KeyFileError((_key_problem("public key", reason, "Make a new one: policy keygen NAME"),))

    @property
    def key_id(self) -> str:
        """Name the key: `sha256:` and the lower-case hex SHA-256 of its raw bytes."""
        return f"sha256:{hashlib.sha256(self.raw).hexdigest()}"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether this key made this signature (64 bytes) of this message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKey:
    """A private key, which never shows its bytes by accident."""

    secret: Ed25519PrivateKey = field(repr=False)
    """The key as the cryptography library holds it."""

    @property
    def public(self) -> PublicKey:
        """Give the public half."""
        return PublicKey(raw=self.secret.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """Sign a message: 64 bytes, the same ones each time."""
        return self.secret.sign(message)


def weak_key_reason(raw: bytes) -> str:
    """Say why these bytes are no public key to trust; empty if they are one."""
    if len(raw) != RAW_KEY_BYTES:
        return f"it has {len(raw)} bytes, not {RAW_KEY_BYTES}"
    height = int.from_bytes(raw, "little") & (2**255 - 1)
    if height % FIELD_PRIME in SMALL_ORDER_Y:
        return "it is a point of small order, under which anybody can forge signatures"
    if height >= FIELD_PRIME:
        return "it is not encoded canonically"
    numerator, denominator = height**2 - 1, CURVE_D * height**2 + 1
    if pow(numerator * denominator, (FIELD_PRIME - 1) // 2, FIELD_PRIME) != 1:
        return "it is not a point of Ed25519's curve"
    return ""


def parse_keys(setting: str, origin: str, read: Callable[[Path], Mapping[str, bytes]]) -> tuple[PublicKey, ...]:
    """Read the setting `SANDBOX_POLICY_KEYS` into its distinct keys.

    Args:
        setting: a path that begins with `/`, or `ed25519:<base64 of 32 bytes>`, comma-separated.
        origin: where the setting stands, for messages.
        read: gives the PEM files of a path, as `policy.trusted_files.read_public_key_files` does.

    Raises:
        KeyFileError: if the setting is empty, or any part of it is not a key we accept; it names each part.
    """
    if setting.startswith("/"):
        return parse_public_pem(read(Path(setting)))
    return _distinct_keys(_inline_keys(setting, origin), origin)


def parse_public_pem(files: Mapping[str, bytes]) -> tuple[PublicKey, ...]:
    """Read the distinct public keys of PEM files, named by their paths.

    Raises:
        KeyFileError: if there is no key, or anything in the files is not one we accept; it names each.
    """
    found = (item for path, data in files.items() for item in _pem_keys(data, path))
    return _distinct_keys(found, ", ".join(files))


def load_private_key(data: bytes, origin: str) -> PrivateKey:
    """Read the one private key of a PKCS#8 PEM file.

    Raises:
        KeyFileError: if it is not exactly one unencrypted Ed25519 private key.
    """
    blocks = list(PEM_BLOCK.finditer(data.decode("ascii", "replace")))
    if len(blocks) != 1:
        reason = f"it holds {len(blocks)} PEM blocks, and one private key is wanted"
        raise KeyFileError((_key_problem(origin, reason, "Name a file that policy keygen made"),))
    label = blocks[0][1]
    if label != "PRIVATE KEY":
        raise KeyFileError((_wrong_private_block(label, origin),))
    try:
        key = load_pem_private_key(blocks[0][0].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "its PEM block is damaged, or of a kind that is not known"
        raise KeyFileError((_key_problem(origin, reason, "Restore the file from its backup"),)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError((_wrong_algorithm(type(key).__name__, origin),))
    return PrivateKey(secret=key)


def generate_key() -> PrivateKey:
    """Make a new private key."""
    return PrivateKey(secret=Ed25519PrivateKey.generate())


def private_pem(key: PrivateKey) -> bytes:
    """Write a private key as unencrypted PKCS#8 PEM."""
    return key.secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: PublicKey) -> bytes:
    """Write a public key as SPKI PEM."""
    public = Ed25519PublicKey.from_public_bytes(key.raw)
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _distinct_keys(found: Iterable[PublicKey | Problem], origin: str) -> tuple[PublicKey, ...]:
    keys: list[PublicKey] = []
    problems: list[Problem] = []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
        elif item not in keys:
            keys.append(item)
    if not keys and not problems:
        problems.append(_key_problem(origin, "no key is named", "Name at least one public key"))
    if problems:
        raise KeyFileError(tuple(problems))
    return tuple(keys)


def _inline_keys(setting: str, origin: str) -> Iterator[PublicKey | Problem]:
    if not setting.strip():
        yield _key_problem(origin, "it is empty", "Name public keys, or unset it")
        return
    for number, item in enumerate(setting.split(","), start=1):
        yield _inline_key(item.strip(" "), f"{origin}, item {number}")


def _inline_key(item: str, origin: str) -> PublicKey | Problem:
    """Read one key; the item is never repeated in the answer, since people paste private keys too."""
    if "PRIVATE KEY" in item:
        return _key_problem(origin, "it is a private key", PRIVATE_KEY_WARNING)
    written = INLINE_KEY.fullmatch(item)
    if not written:
        reason = "it is not ed25519: followed by the base64 of 32 bytes"
        remedy = "Write ed25519:BASE64, or the absolute path of a PEM file or a folder of them"
        return _key_problem(origin, "it is empty" if not item else reason, remedy)
    raw = base64.b64decode(written[1])
    # The last digit has spare bits, and a key has one spelling.
    if base64.b64encode(raw).decode() != written[1]:
        return _key_problem(origin, "its base64 is not canonical", "Copy the key anew, whole")
    return _checked_key(raw, origin)


def _checked_key(raw: bytes, origin: str) -> PublicKey | Problem:
    reason = weak_key_reason(raw)
    return _key_problem(origin, reason, "Make a new key: policy keygen NAME") if reason else PublicKey(raw=raw)


def _pem_keys(data: bytes, path: str) -> Iterator[PublicKey | Problem]:
    text = data.decode("ascii", "replace")
    blocks = list(PEM_BLOCK.finditer(text))
    if not blocks:
        reason = "it holds no whole PEM block"
        yield _key_problem(path, reason, "Name a public key file (NAME.pub) that policy keygen made")
        return
    yield from _stray_lines(PEM_BLOCK.sub("", text), path)
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        yield _pem_key(block[0], block[1], f"{path}:{line}")


def _stray_lines(outside: str, path: str) -> Iterator[Problem]:
    """Refuse text around the blocks, except comments: it may be a key cut off."""
    if any(line.strip() and not line.startswith("#") for line in outside.splitlines()):
        yield _key_problem(path, "there is text outside its PEM blocks", "Remove it, or begin its lines with #")


def _pem_key(block: str, label: str, origin: str) -> PublicKey | Problem:
    if label.endswith("PRIVATE KEY"):
        return _key_problem(origin, "it is a private key", PRIVATE_KEY_WARNING)
    if label != "PUBLIC KEY":
        remedy = "Give the public key as SPKI PEM (openssl pkey -pubout writes it)"
        return _key_problem(origin, f"it is a PEM block of type {label}, not PUBLIC KEY", remedy)
    try:
        key = load_pem_public_key(block.encode())
    except (ValueError, UnsupportedAlgorithm):
        reason = "its PEM block is damaged, or of a kind that is not known"
        return _key_problem(origin, reason, "Copy the key anew, whole")
    if not isinstance(key, Ed25519PublicKey):
        return _wrong_algorithm(type(key).__name__, origin)
    return _checked_key(key.public_bytes_raw(), origin)


def _wrong_private_block(label: str, origin: str) -> Problem:
    if label == "ENCRYPTED PRIVATE KEY":
        remedy = "Decrypt it to a file of its own, mode 0600: openssl pkey -in FILE -out NAME.key"
        return _key_problem(origin, "the private key is encrypted, which is not supported", remedy)
    if label == "PUBLIC KEY":
        return _key_problem(origin, "it is a public key, and a private key is wanted", "Name NAME.key instead")
    remedy = "Name a file that policy keygen made"
    return _key_problem(origin, f"it is a PEM block of type {label}, not PRIVATE KEY (PKCS#8)", remedy)


def _wrong_algorithm(kind: str, origin: str) -> Problem:
    algorithm = kind.removesuffix("PublicKey").removesuffix("PrivateKey")
    return _key_problem(origin, f"it is a key of type {algorithm}", "Use Ed25519: policy keygen NAME")


def _key_problem(origin: str, reason: str, remedy: str) -> Problem:
    return Problem(key="key", origin=origin, reason=reason, remedy=remedy)
