"""What can be wrong in a layer, and the errors that carry it.

A `Problem` is a plain value that names the thing, where it stands, why it is refused and what to do about it.
A bad document or environment reports all of its problems at once, in one error. No problem ever holds a secret.
"""

from dataclasses import dataclass
from enum import Enum

from policy.positions import KeyPath, Position

LONGEST_PART = 600
"""Characters shown of each part of a problem: a path may be long, a key that somebody made up too."""
MOST_LISTED = 100
"""Problems listed of one error."""


class Flaw(Enum):
    """What kind of thing is wrong with a file or a variable; each is the name of a lint rule."""

    UNREADABLE_FILE = "unreadable-file"
    NOT_TOML = "not-toml"
    ENCODING = "encoding"
    TOO_LARGE = "too-large"
    DUPLICATE_KEY = "duplicate-key"
    UNKNOWN_KEY = "unknown-key"
    LOOK_ALIKE_KEY = "look-alike-key"
    UNSUPPORTED_KEY = "unsupported-key"
    MISSING_KEY = "missing-key"
    WRONG_TYPE = "wrong-type"
    OUT_OF_RANGE = "out-of-range"
    NOT_FINITE = "not-finite"
    BAD_VALUE = "bad-value"
    DATE_WITHOUT_OFFSET = "date-without-offset"
    BAD_DESTINATION = "bad-destination"
    REPEATED_ITEM = "repeated-item"
    SAYS_NOTHING = "says-nothing"
    BROKEN_SIGNATURES = "broken-signatures"
    LOCK_BESIDE_OTHERS = "lock-beside-others"
    DEFAULT_OUTSIDE_CEILING = "default-outside-ceiling"
    DATES_OUT_OF_ORDER = "dates-out-of-order"
    IDLE_ENV_MAY_LOOSEN = "idle-env-may-loosen"
    CONTRADICTORY_RELATIONS = "contradictory-relations"
    MISSPELT_VARIABLE = "misspelt-variable"
    MALFORMED_VARIABLE = "malformed-variable"
    CONTRADICTORY_VARIABLES = "contradictory-variables"
    AMBIGUOUS_LINE = "ambiguous-line"


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
    flaw: Flaw | None = None
    """What kind of thing is wrong; `None` for what only a host, a key or a moment makes wrong."""
    path: KeyPath = ()
    """The key in a policy file, where it is about one."""
    position: Position | None = None
    """Where in the file it stands, where that is known to the character."""

    def __str__(self) -> str:
        """Read as one line of bounded length, without control characters: origin, key, reason, remedy."""
        text = f"{_cut_part(self.origin)}: {_cut_part(self.key)}: {_cut_part(self.reason)}."
        return printable(f"{text} {_cut_part(self.remedy)}." if self.remedy else text)

    def as_json(self) -> dict[str, str]:
        """The same for programs."""
        return {"key": self.key, "origin": self.origin, "reason": self.reason, "remedy": self.remedy}


def _cut_part(text: str) -> str:
    return text if len(text) <= LONGEST_PART else f"{text[:LONGEST_PART]}…"


def printable(text: str) -> str:
    """Text in one line, whose control and bidirectional characters show: no line of a log or terminal is forged."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def listed(problems: tuple[Problem, ...], most: int = MOST_LISTED) -> tuple[Problem, ...]:
    """The first problems, and how many more there are, so that no file can fill a chat or a log."""
    if len(problems) <= most:
        return problems
    more = Problem(key="and more", origin=problems[most].origin, reason=f"{len(problems) - most} more", remedy="")
    return (*problems[:most], more)


class PolicyError(Exception):
    """Something in a layer is wrong: no limits come out of it, so nothing runs."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        if not problems:
            raise ValueError("a policy error needs at least one problem")
        self.problems = listed(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


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
