"""What the start-up probe found on this host, and where that is kept until something changes that it depends on.

A proof holds for one boot, user, cgroup, kernel, gVisor and file tree. It lies in the private folder, which only this
user can write. One that found a broken limit is not kept: the next start tries again.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sandbox.cgroups import CgroupParent, CgroupsUnavailable
from sandbox.gvisor import Runsc
from sandbox.host_binding import host_binding

PROOF_FORMAT = 2
"""Raised with every change of what is probed, or how."""
PROOFS_FOLDER = "proofs"
MOST_PROOFS_KEPT = 4
"""Those used last, of this boot: one for each way in which boxes are run here."""
PROBE_AGAIN_SECONDS = 60.0
"""How long a broken limit counts as broken before the host is probed once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProof:
    """Which limits held against code that tried to break them."""

    broken: Mapping[str, str]
    """By limit, why it cannot be relied on here; empty where each held, or is known to be absent."""
    found_at: float = 0.0
    """When, on the monotonic clock."""

    def lasts(self, now: float) -> bool:
        """Whether it need not be tried again: a broken limit may have been a host that was too busy for the probe."""
        return not self.broken or now < self.found_at + PROBE_AGAIN_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofBinding:
    """Everything that a proof depends on."""

    facts: Mapping[str, str]
    """By name; if one differs, the proof is of another host."""

    @property
    def digest(self) -> str:
        """SHA-256 over all of it, in lower-case hexadecimal."""
        return hashlib.sha256(json.dumps(dict(self.facts), sort_keys=True).encode()).hexdigest()


def proof_binding(runsc: Runsc, tree_digest: str, cgroups: CgroupParent | CgroupsUnavailable) -> ProofBinding:
    """What a proof on this host at this moment is bound to."""
    places = cgroups.places if isinstance(cgroups, CgroupParent) else ()
    return ProofBinding(
        facts=MappingProxyType(
            {
                **host_binding(runsc),
                "format": str(PROOF_FORMAT),
                "cgroups": " ".join(f"{place.folder}:{','.join(sorted(place.controllers))}" for place in places),
                "tree": tree_digest,
            }
        )
    )


def kept_proof(folder: Path, binding: ProofBinding) -> HostProof | None:
    """The proof of this very host, if one is kept; anything that cannot be read is none.

    Args:
        folder: the private folder.
        binding: what it must be bound to.
    """
    with suppress(OSError, ValueError):
        path = folder / PROOFS_FOLDER / f"{binding.digest}.json"
        if json.loads(path.read_text()) == dict(binding.facts):
            os.utime(path)
            return HostProof(broken=MappingProxyType({}))
    return None


def keep_proof(folder: Path, binding: ProofBinding) -> None:
    """Keep that every limit held, in the place of proofs of before; a full disk keeps none, and the next start probes.

    Args:
        folder: the private folder.
        binding: what the proof is bound to.
    """
    proofs = folder / PROOFS_FOLDER
    with suppress(OSError, ValueError):
        proofs.mkdir(mode=0o700, exist_ok=True)
        partial = proofs / f".partial-{secrets.token_hex(8)}"
        partial.write_text(json.dumps(dict(binding.facts), indent=1, sort_keys=True))
        partial.rename(proofs / f"{binding.digest}.json")
        others = [path for path in proofs.glob("*.json") if path.stem != binding.digest]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for place, path in enumerate(others, start=1):
            if place >= MOST_PROOFS_KEPT or not _is_of_boot(path, binding.facts["boot"]):
                path.unlink()


def _is_of_boot(path: Path, boot: str) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads(path.read_text()).get("boot") == boot)
    return False
