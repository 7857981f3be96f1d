"""What the linter finds: plain values that rules make and only the formats print."""

from dataclasses import dataclass
from enum import Enum

from policy.positions import KeyPath


class Severity(Enum):
    """How bad a finding is, from the worst; the words are those of SARIF."""

    ERROR = "error"
    """It will be refused, or opens what must stay closed."""
    WARNING = "warning"
    """Probably not what somebody meant."""
    NOTE = "note"
    """Worth knowing."""

    def reaches(self, level: "Severity") -> bool:
        """Whether it is at least as bad as that."""
        order = list(Severity)
        return order.index(self) <= order.index(level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A stretch of one line of one file."""

    file: str
    """As it was named on the command line; `environment` for the variables of the process."""
    line: int = 1
    """Counted from 1."""
    column: int = 1
    """Counted from 1, in characters."""
    end_column: int = 1
    """The column after its last character; `column` where only a place is known."""
    key: str = ""
    """The key path in a policy file as TOML spells it, or the variable; empty for the file as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change of a file's text."""

    start: int
    """Characters before what is replaced."""
    end: int
    """Characters before what stays after it."""
    text: str
    """What is written instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A change that mends a finding, and changes nothing that the policy decides."""

    description: str
    """What it does, as a command: `Remove the repeated item`."""
    edits: tuple[Edit, ...]
    """Changes that do not overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a rule says of one place; the run makes a finding of it."""

    path: KeyPath = ()
    """The key in the policy file; empty for the file as a whole, or where `location` says more."""
    message: str
    """What is wrong, one sentence without full stop."""
    remedy: str = ""
    """What to do about it, one sentence without full stop."""
    location: Location | None = None
    """Where it stands, where no key path says it."""
    related: tuple[Location, ...] = ()
    """Other places that have a part in it."""
    fix: Fix | None = None
    """What `--fix` does about it; `None` where nothing is safe."""
    severity: Severity | None = None
    """How bad this one is; `None` where it is as bad as the rule says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """Why a finding does not count."""

    reason: str
    """What the comment says."""
    until: str
    """The last day on which it holds, `YYYY-MM-DD`."""
    line: int
    """Where the comment stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a rule found in one place."""

    rule_id: str
    """`SBP101`; never changes its meaning."""
    rule_name: str
    """`default-outside-ceiling`."""
    severity: Severity
    """How bad it is, under the profile that was asked for."""
    location: Location
    """Where it stands."""
    message: str
    """What is wrong, one sentence without full stop."""
    remedy: str = ""
    """What to do about it, one sentence without full stop; empty where the message says it all."""
    related: tuple[Location, ...] = ()
    """Other places that have a part in it."""
    fix: Fix | None = None
    """What `--fix` does about it; `None` where nothing is safe."""
    suppressed: Suppressed | None = None
    """The comment that takes it out; `None` where it counts."""
    excerpt: str = ""
    """The line of the file where it stands, without its line end; empty where there is none."""
