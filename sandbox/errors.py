"""What can go wrong outside the person's code. Code that fails is an outcome, never one of these."""

from typing import Self


class SandboxError(Exception):
    """The run was refused, or could not be carried out.

    Args:
        key: what it is about: a limit, a file, a program.
        origin: where that stands: a variable, a path, `this host`.
        reason: why, without full stop.
        remedy: what to do about it, without full stop.
    """

    def __init__(self, *, key: str, origin: str, reason: str, remedy: str) -> None:
        self.key = key
        self.origin = origin
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{key} ({origin}): {reason}. {remedy}.")


class UnenforceableError(SandboxError):
    """A limit cannot be enforced on this host, and the effective limits do not permit going without it."""


class BusyError(SandboxError):
    """As many runs as the limits permit are under way."""


class StartError(SandboxError):
    """gVisor did not bring the interpreter up.

    Args:
        reason: why, without full stop.
        detail: what gVisor itself said; an internal, for whoever may see those.
        remedy: what to do about it, without full stop.
    """

    def __init__(
        self, *, reason: str, detail: str = "", remedy: str = "`sandbox doctor` finds out what this host lacks"
    ) -> None:
        self.detail = detail
        super().__init__(key="gVisor", origin="this host", reason=reason, remedy=remedy)

    def with_internals(self) -> Self:
        """The same error, with what gVisor said in its reason."""
        return type(self)(reason=f"{self.reason} ({self.detail})", remedy=self.remedy) if self.detail else self


class InstallError(SandboxError):
    """gVisor is missing and could not be installed."""
