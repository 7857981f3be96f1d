"""Signs texts and lints them with keys: for tests of rules about signatures."""

import base64

from policy.keys import PrivateKey, PublicKey
from policy.lint.findings import Finding
from policy.lint.subjects import Setup
from policy.signatures import add_signature
from tests.policy.lint.linting import NOW, findings, of_rule, written

LOCKED = written("[limits]\nnetworking_allowed = false\n")
LAST_LINE = LOCKED.count("\n")
ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of a key. Source: RFC 8410, 4."""


def signed(text: str, *keys: PrivateKey) -> str:
    for key in keys:
        text = add_signature(text.encode(), key, origin="acme.toml").decode()
    return text


def found_with(rule: str, text: str, *keys: PublicKey, threshold: int = 1) -> list[Finding]:
    """What one rule finds in a text with these keys of `--key`."""
    return of_rule(rule, findings(text, setup=Setup(now=NOW, keys=keys, threshold=threshold)))


def pem(raw: bytes) -> str:
    """The PEM file of a public key, be it a good one or not."""
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(ED25519_SPKI + raw).decode()}\n-----END PUBLIC KEY-----\n"
