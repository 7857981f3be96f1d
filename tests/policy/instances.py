"""Instances as tests set them up: keys, signed policy files, a clock, and files that a reader holds in memory.

Keys and signatures are real. Each question is put to a new process of the instance; what it remembers is shared.
"""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policy.environment import EnvironmentLayer, read_environment
from policy.errors import DocumentError, Problem, SetRefusedError
from policy.keys import PrivateKey
from policy.live import LivePolicy
from policy.load import PolicyReader
from policy.signatures import add_signature
from policy.situation import Situation
from policy.standing import Standing
from policy.state_folder import Memory, ProcessMemory
from tests.policy.factories import text_of

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
PATH = "/etc/sandbox/policies"
NO_NETWORK = {"networking_allowed": False}


def seeded_key(seed: int) -> PrivateKey:
    return PrivateKey(secret=Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")))


ADA, GRACE, MALLORY = map(seeded_key, (1, 2, 3))


def inline(*keys: PrivateKey) -> str:
    """Public keys as `SANDBOX_POLICY_KEYS` holds them."""
    return ",".join(f"ed25519:{b64encode(key.public.raw).decode()}" for key in keys)


def policy(limits: dict[str, Any] | None = None, *keys: PrivateKey, **changes: Any) -> bytes:  # noqa: ANN401 -- TOML
    """Write a policy file for this instance, signed by these keys, by Ada where none is given."""
    document = unsigned(limits, **changes)
    for key in keys or (ADA,):
        document = add_signature(document, key, origin="a.toml")
    return document


def unsigned(limits: dict[str, Any] | None = None, **changes: Any) -> bytes:  # noqa: ANN401 -- TOML
    return text_of(limits or NO_NETWORK, **changes).encode()


def reader_of(files: Mapping[str, bytes], keys: Mapping[str, bytes] | None = None) -> PolicyReader:
    return PolicyReader(policies=lambda _path, _unsigned: files, keys=lambda _path: keys or {})


@lru_cache(maxsize=64)
def layer_of(variables: frozenset[tuple[str, str]]) -> EnvironmentLayer:
    """Read these variables, once: that takes far longer than to judge a set."""
    return read_environment(dict(variables))


class Instance:
    """One instance: its variables, clock, files and memory, each of which a test may change between two questions."""

    def __init__(
        self, *files: bytes, memory: Memory | None = None, reader: PolicyReader | None = None, **variables: str
    ) -> None:
        usual = {"SANDBOX_POLICY_PATH": PATH, "SANDBOX_POLICY_KEYS": inline(ADA), "SANDBOX_INSTANCE": "prod-eu"}
        self.variables = usual | variables
        self.now = NOW
        self.memory = memory or ProcessMemory()
        self.files: Mapping[str, bytes] = {}
        self.reader = reader or PolicyReader(policies=self._read, keys=lambda _path: {})
        self.ship(*files)

    def _read(self, path: Path, _unsigned: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's shape
        if not self.files:
            reason = "the folder holds 0 files *.toml, not 1 to 256"
            problem = Problem(key="policy file", origin=str(path), reason=reason, remedy="Put the files there")
            raise DocumentError((problem,))
        return self.files

    def ship(self, *files: bytes) -> None:
        """Put these files in the place of those that are there."""
        self.files = {f"{PATH}/{number}.toml": data for number, data in enumerate(files, 1)}

    def process(self) -> LivePolicy:
        """Start a process; a variable that is empty is left out of its environment."""
        environment = layer_of(frozenset((name, text) for name, text in self.variables.items() if text))
        return LivePolicy(environment, reader=self.reader, now=lambda: self.now, memory=self.memory)

    def situation(self) -> Situation:
        """What holds for a new process."""
        return self.process().situation()

    def standing(self) -> Standing:
        """The verdict on the policy set."""
        found = self.process().standing()
        assert found is not None
        return found

    def refusal(self) -> SetRefusedError:
        """Why nothing runs."""
        with pytest.raises(SetRefusedError) as refused:
            self.situation()
        return refused.value

    def code(self) -> str | None:
        """The code under which the set is refused, whether or not an earlier one holds in its place."""
        refusal = self.standing().refusal
        return None if refusal is None else refusal.code
