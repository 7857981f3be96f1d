"""What layers say of limits: statements, and where each came from. Plain values between reading and resolving."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from policy.limits import Limit


class Layer(Enum):
    """Who speaks, from the highest precedence to the lowest."""

    LOCKDOWN = "lockdown"
    """Nobody: the values that hold once a policy set has been refused for too long."""
    ENVIRONMENT = "environment"
    POLICY = "policy"
    PERSON_VALVE = "valve"
    ADMIN_VALVE = "admin-valve"
    BUILT_IN = "built-in"


class Verb(Enum):
    """What is said of a limit."""

    LOCK = "lock"
    """Exactly this."""
    CEILING = "ceiling"
    """Nothing looser than this."""
    DEFAULT = "default"
    """This, where nobody chooses."""
    CHOICE = "choice"
    """What a valve holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a statement stands."""

    layer: Layer
    """Who speaks."""
    place: str
    """The variable, `FILE:LINE`, the valve, or `built-in`."""
    reason: str = ""
    """What the policy tells people about it."""
    policy_id: str | None = None
    """The policy file's own id, for a statement out of one."""
    scope: str = ""
    """Whom the statement is for, in words, where it stands in a scope of the file."""
    serial: int | None = None
    """The policy file's serial."""
    key_ids: tuple[str, ...] = ()
    """Trusted keys that signed the policy file; empty for an unsigned one."""

    def __str__(self) -> str:
        """Name the place so that a person finds it."""
        match self.layer:
            case Layer.LOCKDOWN | Layer.ENVIRONMENT | Layer.BUILT_IN:
                return self.place
            case Layer.PERSON_VALVE | Layer.ADMIN_VALVE:
                return f"{self.layer.value} {self.place}"
            case Layer.POLICY:
                scope = f", {self.scope}" if self.scope else ""
                signed = "" if self.key_ids else ", unverified"
                return f"{self.policy_id} serial {self.serial} ({self.place}{scope}{signed})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """One statement about one limit."""

    limit: Limit[Any]
    """Which limit."""
    verb: Verb
    """What is said."""
    value: Any
    """A value of the limit's kind."""
    origin: Origin
    """Where it stands."""
    environment_may_loosen: bool = True
    """Whether an environment lock may be looser than this; only policy files say no."""

    @property
    def scoped(self) -> bool:
        """Whether it holds only for some; such a statement never loosens."""
        return bool(self.origin.scope)
