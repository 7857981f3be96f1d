"""What can be wrong in a layer, and the errors that carry it.

A `Problem` is a plain value that names the thing, where it stands, why it is refused and what to do about it.
A bad document or environment reports all of its problems at once, in one error. No problem ever holds a secret.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, in words a person can act on."""

    key: str
    """What it is about: a variable, a key path, a file, a valve."""
    origin: str
    """Where it stands: `environment`, `FILE:LINE`, `FILE`, `valve`."""
    reason: str
    """Why it is refused: no full stop at its end."""
    remedy: str
    """What to do about it: a sentence without full stop, or empty where the reason says it all."""

    def __str__(self) -> str:
        """Read as one line: origin, key, reason, remedy."""
        text = f"{self.origin}: {self.key}: {self.reason}."
        return f"{text} {self.remedy}." if self.remedy else text


class PolicyError(Exception):
    """Something in a layer is wrong: no limits come out of it, so nothing runs."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        if not problems:
            raise ValueError("a policy error needs at least one problem")
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class ConfigurationError(PolicyError):
    """The environment holds a variable of ours, or one too close to ours, that cannot be used."""


class DocumentError(PolicyError):
    """A policy file is not a policy: size, syntax, shape or values."""


class SignatureError(PolicyError):
    """A policy file's signatures are missing, malformed, too few, or do not verify."""


class KeyFileError(PolicyError):
    """A key cannot be read, or is not one we accept."""


class AuditError(PolicyError):
    """A run cannot be written into the audit log, or could not be."""


class StateError(PolicyError):
    """What an instance remembers of policies cannot be read, written or trusted."""


class SetRefusedError(PolicyError):
    """The set of policy files as a whole is refused, for one stable reason code."""

    def __init__(self, code: str, problems: tuple[Problem, ...]) -> None:
        self.code = code
        super().__init__(problems)
