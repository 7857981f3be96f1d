"""The keys of `--key`, as they stand in their files: weak and repeated ones are findings, all else is an error.

The reader of `policy.keys` stays the judge of what is a key; here it is only told where each one stands.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from policy.errors import KeyFileError
from policy.keys import PEM_BLOCK, PublicKey, parse_public_pem, weak_key_reason
from policy.lint.findings import Location
from policy.lint.subjects import NamedKey
from policy.trusted_files import read_public_key_files


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedKeys:
    """What `--key` names."""

    keys: tuple[PublicKey, ...]
    """Those that can be trusted, each once; possibly none."""
    named: tuple[NamedKey, ...]
    """All of them, as they stand in the files."""


def reviewed_keys(paths: Sequence[Path]) -> ReviewedKeys:
    """Read the public keys of these files, or folders of them.

    Raises:
        KeyFileError: a file cannot be read or trusted, or holds anything else than public Ed25519 keys.
    """
    files = {name: data for path in paths for name, data in read_public_key_files(path).items()}
    named = tuple(_named_keys(files))
    weak_places = {f"{key.location.file}:{key.location.line}" for key in named if key.weak}
    try:
        return ReviewedKeys(keys=parse_public_pem(files), named=named)
    except KeyFileError as error:
        others = tuple(problem for problem in error.problems if problem.origin not in weak_places)
        if others:
            raise KeyFileError(others) from error
    good = dict.fromkeys(key.raw for key in named if not key.weak)
    return ReviewedKeys(keys=tuple(PublicKey(raw=raw) for raw in good), named=named)


def _named_keys(files: Mapping[str, bytes]) -> Iterator[NamedKey]:
    for name, data in files.items():
        text = data.decode("ascii", "replace")
        for block in PEM_BLOCK.finditer(text):
            raw = _raw_key(block[0])
            if raw is not None:
                line = text.count("\n", 0, block.start()) + 1
                begin = len(block[0].partition("\n")[0].rstrip("\r"))
                yield NamedKey(
                    location=Location(file=name, line=line, column=1, end_column=begin + 1),
                    raw=raw,
                    key_id=f"sha256:{sha256(raw).hexdigest()}",
                    weak=weak_key_reason(raw),
                )


def _raw_key(block: str) -> bytes | None:
    """The bytes of a public Ed25519 key; nothing for any other block, of which the reader tells."""
    try:
        key = load_pem_public_key(block.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None
