"""Reads a file of environment variables, in the grammar on which its readers agree.

One NAME=VALUE a line; blank lines and lines that begin with `#` say nothing; nothing is interpolated. `docker run
--env-file` and Compose differ about quotes, `#`, `$`, backslashes and space at a value's end, and each did so
differently over the years: a variable of ours with such a value is refused, since nobody could tell what the server
would see. Variables of others are none of our business; they only have to leave no doubt where the next one begins.
Source: docker/cli `pkg/kvfile`, compose-spec/compose-go `dotenv`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from policy.errors import ConfigurationError, DocumentError, Flaw, Problem
from policy.limits import VARIABLE_PREFIX
from policy.positions import Position
from policy.trusted_files import FileRule, read_trusted

READ_PREFIXES = (VARIABLE_PREFIX, "CODE_EVAL_")
"""How names begin, in any case, whose values we read: ours, and those of the older plugin."""

ENV_FILE = FileRule(
    kind="env file",
    max_bytes=64 * 1024,
    owner_checked=False,
    secret=False,
    error=DocumentError,
)
"""A file of variables that somebody names only to look at it."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_ENV_QUOTES = ("'", '"', "`")
_PLAIN = "Write the value plainly: NAME=VALUE without quotes, $, #, backslashes and space around it"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvFileVariable:
    """One variable of a file."""

    name: str
    """Left of the equals sign."""
    value: str
    """Right of the equals sign, as it stands."""
    line: int
    """Counted from 1."""
    doubt: Problem | None
    """Why readers differ about the value; `None` where they agree, or where it is none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvFile:
    """A file of variables."""

    origin: str
    """The file's name, for people."""
    variables: tuple[EnvFileVariable, ...]
    """In the file's order; no name stands twice."""

    def environ(self) -> Mapping[str, str]:
        """Every variable by its name, as a server that gets this file sees those that are ours.

        Raises:
            ConfigurationError: readers differ about a value of ours; every such value is listed.
        """
        doubts = tuple(variable.doubt for variable in self.variables if variable.doubt)
        if doubts:
            raise ConfigurationError(doubts)
        return MappingProxyType({variable.name: variable.value for variable in self.variables})


def read_env_path(path: Path) -> EnvFile:
    """Read the file of variables at this path.

    Raises:
        DocumentError: the file cannot be read, or is too large.
        ConfigurationError: it is no file of variables; every problem is listed.
    """
    return read_env_file(read_trusted(path, ENV_FILE), str(path))


def read_env_file(untrusted: bytes, origin: str) -> EnvFile:
    """Read a file of variables.

    Raises:
        ConfigurationError: it is no file of variables; every problem is listed.
    """
    lines = tuple(_assignments(_env_text(untrusted, origin), origin))
    problems = [line for line in lines if isinstance(line, Problem)]
    variables = tuple(line for line in lines if isinstance(line, EnvFileVariable))
    first: dict[str, int] = {}
    for variable in variables:
        if first.setdefault(variable.name, variable.line) != variable.line:
            reason = f"it stands in line {first[variable.name]} already"
            problems.append(_env_problem(origin, variable.line, variable.name, reason, "Keep one of them"))
    if problems:
        raise ConfigurationError(tuple(problems))
    return EnvFile(origin=origin, variables=variables)


def _env_text(untrusted: bytes, origin: str) -> str:
    try:
        text = untrusted.decode("utf-8")
    except UnicodeDecodeError as error:
        line = untrusted.count(b"\n", 0, error.start) + 1
        problem = _env_problem(origin, line, "the file", "it is not UTF-8", "Save it as UTF-8")
        raise ConfigurationError((problem,)) from error
    foreign = re.search("[\r\x00\ufeff]", text)
    if foreign:
        line = text.count("\n", 0, foreign.start()) + 1
        reason = "it holds a carriage return, a NUL or a byte order mark"
        remedy = "Save it with LF line ends and without a byte order mark"
        raise ConfigurationError((_env_problem(origin, line, "the file", reason, remedy),))
    return text


def _assignments(text: str, origin: str) -> Iterator[EnvFileVariable | Problem]:
    for number, line in enumerate(text.split("\n"), 1):
        content = line.lstrip(" \t")
        if content and not content.startswith("#"):
            found = _assignment(content, origin, number)
            if found is not None:
                yield found


def _assignment(content: str, origin: str, line: int) -> EnvFileVariable | Problem | None:
    """What one line says; nothing where it hands on somebody else's variable by its bare name."""
    name, equals, value = content.partition("=")
    if not _ENV_NAME.fullmatch(name):
        # What stands there is not shown: it may be the second line of somebody's key.
        return _env_problem(origin, line, "the line", "it does not begin with a variable's name", _name_remedy(name))
    ours = name.upper().startswith(READ_PREFIXES)
    if not equals:
        reason = "it has no value here, and takes it from whoever starts the server"
        return _env_problem(origin, line, name, reason, f"Write {name}=VALUE, or remove the line") if ours else None
    if value.startswith(_ENV_QUOTES) and not _closed(value):
        reason = "its quote does not end in this line, so that readers differ about where the next variable begins"
        return _env_problem(origin, line, name, reason, "Write the value in one line")
    reason = _difference(value) if ours else ""
    doubt = _env_problem(origin, line, name, reason, _PLAIN) if reason else None
    return EnvFileVariable(name=name, value=value, line=line, doubt=doubt)


def _closed(value: str) -> bool:
    """Whether the quote that begins a value ends in the same line."""
    return re.search(rf"(?<!\\){value[0]}", value[1:]) is not None


def _difference(value: str) -> str:
    """What docker run and Compose do differently with a value; empty where they agree."""
    if value != value.strip():
        return "there is space around its value, which docker run keeps and Compose drops"
    if value.startswith(_ENV_QUOTES):
        return "its value is quoted; some versions of docker run keep the quotes, and Compose drops them"
    if "#" in value:
        return "there is a # in its value; docker run keeps it, and Compose may take the rest for a comment"
    if "$" in value:
        return "there is a $ in its value; docker run keeps it, and Compose puts another variable in its place"
    if "\\" in value:
        return "there is a backslash in its value, which not every reader keeps"
    return ""


def _name_remedy(name: str) -> str:
    if name.startswith("export "):
        return "Leave out export: this is no shell script, and docker run refuses it"
    if name.rstrip() != name and _ENV_NAME.fullmatch(name.rstrip()):
        return "Leave out the space before the equals sign"
    return "Write NAME=VALUE; begin a comment with #"


def _env_problem(origin: str, line: int, name: str, reason: str, remedy: str) -> Problem:
    return Problem(
        key=name,
        origin=f"{origin}:{line}",
        reason=reason,
        remedy=remedy,
        flaw=Flaw.AMBIGUOUS_LINE,
        position=Position(line=line, column=1),
    )
