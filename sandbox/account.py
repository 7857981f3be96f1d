"""What the audit log is told of one run: who asked for what, under which limits, and how it ended. Never the code.

Pure: whoever runs code appends it, for every end that a run can come to.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from policy.effective import EffectiveLimits
from policy.errors import PolicyError, SetRefusedError
from policy.requester import Requester
from sandbox.errors import SandboxError
from sandbox.outcome import RunResult, RunUsage

REFUSED_OUTCOME = "refused"
"""Nothing ran."""
STOPPED_OUTCOME = "stopped"
"""Whoever asked stopped it, or its server ended; code may have run until then."""
FAILED_OUTCOME = "failed"
"""A defect of ours ended it; code may have run until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccount:
    """One run, as far as it has come."""

    person: str
    """Whose run it is."""
    requester: Requester
    """Who asked, as far as it can be determined."""
    language: str
    """What it was said to be."""
    code: str
    """The person's text, of which only size and SHA-256 are told."""
    limits: EffectiveLimits | None = None
    """What it ran under; `None` where it did not come to limits."""
    policy_refusal: str | None = None
    """The reason code of a policy set that is refused, while the last good one holds in its place."""
    usage: RunUsage | None = None
    """What it used until somebody stopped it; `None` where no code ran, or a result tells."""

    def of_result(self, result: RunResult) -> dict[str, Any]:
        """The account of a run that came to a result."""
        record = result.record()
        return {**self._common(), **{name: value for name, value in record.items() if name != "audit_hash"}}

    def of_refusal(self, refusal: PolicyError | SandboxError) -> dict[str, Any]:
        """The account of a run that was refused, or that could not be carried out."""
        return {**self._common(), "outcome": REFUSED_OUTCOME, "refused_for": _refused_for(refusal)}

    def of_end(self, outcome: str) -> dict[str, Any]:
        """The account of a run that ended without a result, as stopped or failed."""
        return {**self._common(), "outcome": outcome, **(self.usage.record() if self.usage else {})}

    def _common(self) -> dict[str, Any]:
        code = str(self.code).encode(errors="surrogatepass")  # models hand over numbers too
        return {
            "person": self.person,
            "who": self.requester.as_json(),
            "language": self.language,
            "code_bytes": len(code),
            "code_sha256": hashlib.sha256(code).hexdigest(),
            "policy_refusal": self.policy_refusal,
            **_limits_account(self.limits),
        }


def _limits_account(limits: EffectiveLimits | None) -> Mapping[str, Any]:
    if limits is None:
        return {"limits_digest": None, "policies": []}
    policies = [{"id": policy.policy_id, "serial": policy.serial} for policy in limits.policies]
    return {"limits_digest": limits.digest, "policies": policies}


def _refused_for(refusal: PolicyError | SandboxError) -> str:
    """The reason code of a policy set, or the name of the thing that was refused."""
    match refusal:
        case SetRefusedError():
            return refusal.code
        case PolicyError():
            return refusal.problems[0].key
        case SandboxError():
            return refusal.key
