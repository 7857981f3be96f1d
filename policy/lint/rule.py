"""What a rule is: its id, its reasons, its examples, and the check that finds what it is about.

A rule is one module of `policy.lint.rules`, which calls its one rule `RULE`; its name in dashes is the module's in
underscores. What it looks at decides which class it is of. Checks are pure functions of subjects and the set-up.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from policy.errors import Flaw
from policy.lint.findings import Found, Severity
from policy.lint.subjects import (
    EnvironmentSubject,
    NamedKey,
    Need,
    PolicyFile,
    PolicySet,
    SetChange,
    Setup,
    Suppression,
)


class Family(Enum):
    """What rules have in common; their ids begin alike."""

    SHAPE = "shape"
    CONTRADICTION = "contradiction"
    INSECURE = "insecure choice"
    TRUST = "trust and rollout"
    ENVIRONMENT = "environment"
    HYGIENE = "hygiene"
    HOST = "host"
    SUPPRESSION = "suppression"


class Suppressible(Enum):
    """Whether a comment can take a rule's findings out."""

    ALWAYS = "always"
    OUTSIDE_PRODUCTION = "not under --profile production"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a rule finds something in, or nothing; shown in the docs, and tested."""

    policy: str = ""
    """TOML of one policy file; what a head needs and it leaves out is filled in for the test."""
    other: str = ""
    """TOML of a second file of the same set."""
    base: str = ""
    """TOML of the same file as `--base` has it."""
    environment: str = ""
    """Lines of an `--env-file`."""
    shell: str = ""
    """What to run, where files say nothing about it; the rule's own test shows it then."""
    production: bool = False
    """Whether it takes `--profile production`."""
    whole: bool = False
    """Whether `policy` is a whole file, to which nothing is added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What all rules have."""

    id: str
    """`SBP` and three digits, the first of which is the family's; never used again for something else."""
    name: str
    """Words in dashes that say what is wrong."""
    family: Family
    """What it has in common with others."""
    severity: Severity
    """How bad its findings are."""
    in_production: Severity | None = None
    """How bad they are under `--profile production`; `None` where it makes no difference."""
    needs: Need | None = None
    """What it must be given before it can look; `None` where it always looks."""
    summary: str
    """One sentence with a full stop: what it finds."""
    rationale: str
    """Why that matters: whole sentences."""
    bad: Example
    """What it finds something in."""
    good: Example
    """The same, put right."""
    fix: str = ""
    """What `--fix` does, as a command with a full stop; empty where nothing is safe."""
    suppressible: Suppressible = Suppressible.ALWAYS
    """Whether a comment can take its findings out."""

    def severity_in(self, setup: Setup) -> Severity:
        """How bad its findings are under the profile that was asked for."""
        return self.in_production or self.severity if setup.production else self.severity


@dataclass(frozen=True, slots=True, kw_only=True)
class FlawRule(Rule):
    """Reports one kind of what the readers of files and variables refuse; its name is the flaw's."""

    flaw: Flaw
    """Which kind."""
    fixed: Callable[[PolicyFile, Found], Found] | None = None
    """Adds the fix to what was found, where one is safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRule(Rule):
    """Looks at each file's bytes, which may be no policy at all."""

    check: Callable[[PolicyFile, Setup], Iterator[Found]]
    """What it finds in one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRule(Rule):
    """Looks at each file that is a valid policy: `file.document` is there."""

    check: Callable[[PolicyFile, Setup], Iterator[Found]]
    """What it finds in one file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRule(Rule):
    """Looks at the valid policy files of one folder together, as an instance loads them."""

    check: Callable[[PolicySet, Setup], Iterator[Found]]
    """What it finds; each with its location."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRule(Rule):
    """Looks at what a change does to the policy files of one folder; only with `--base`."""

    check: Callable[[SetChange, Setup], Iterator[Found]]
    """What it finds; each with its location."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRule(Rule):
    """Looks at the keys that were named; only with `--key`."""

    check: Callable[[tuple[NamedKey, ...], Setup], Iterator[Found]]
    """What it finds; each with its location."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRule(Rule):
    """Looks at the variables, beside all policy files that are valid; only with `--env` or `--env-file`."""

    check: Callable[[EnvironmentSubject, tuple[PolicySet, ...], Setup], Iterator[Found]]
    """What it finds; each with its location."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionRule(Rule):
    """Looks at each comment that takes findings out, after all other rules have spoken."""

    check: Callable[[Suppression, Setup], Iterator[Found]]
    """What it finds; each with its location."""
