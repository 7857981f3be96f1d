"""What both commands do alike at their edge."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from policy.env_files import read_env_path
from policy.errors import PolicyError, printable
from policy.limits import LIMITS
from policy.requester import SURFACES, Requester

READABLE_PATH = click.Path(exists=True, readable=True, path_type=Path)
"""A file or folder that a command reads."""
READABLE_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
"""A file that a command reads."""


class UnreadableInputError(click.ClickException):
    """What a command was given to look at cannot be read: each problem in a line, and exit code 2."""

    exit_code = 2

    def __init__(self, error: PolicyError) -> None:
        super().__init__("\n".join(map(str, error.problems)))
        self.problems = error.problems

    def show(self, file: IO[Any] | None = None) -> None:
        """Say each problem as a refusal is said."""
        for problem in self.problems:
            click.echo(f"error: {problem}", file=file, err=True)


F = TypeVar("F", bound=Callable[..., Any])


def valve_options(command: F) -> F:
    """The options by which a command is given valves, as NAME=VALUE."""
    person = click.option(
        "--valve", "person_valves", multiple=True, metavar="NAME=VALUE", help="A person's valve; may be repeated."
    )
    administrator = click.option(
        "--admin-valve",
        "admin_valves",
        multiple=True,
        metavar="NAME=VALUE",
        help="An administrator's valve; may be repeated.",
    )
    return person(administrator(command))


def env_file_option(command: F) -> F:
    """The option that puts a file of variables in place of the process's environment."""
    return click.option(
        "--env-file", type=READABLE_FILE, help="File of NAME=VALUE lines in place of this process's environment."
    )(command)


def environment_variables(env_file: Path | None) -> Mapping[str, str]:
    """The variables of that file, or of this process.

    Raises:
        click.BadParameter: the file cannot be read as variables.
    """
    if env_file is None:
        return os.environ
    with env_file_border():
        return read_env_path(env_file).environ()


@contextmanager
def env_file_border() -> Iterator[None]:
    """Where reading the file of `--env-file` fails, that is wrong usage of the option.

    Raises:
        click.BadParameter: the file cannot be read as variables.
    """
    try:
        yield
    except PolicyError as error:
        raise click.BadParameter(str(error), param_hint="'--env-file'") from error


def requester_options(command: F) -> F:
    """The options that say who asks; what is left out cannot be determined, and meets every scope's `match`."""
    options = (
        click.option("--user", metavar="ID", help="The person's id in Open WebUI."),
        click.option("--role", metavar="ROLE", help="Their role: admin, user, …"),
        click.option(
            "--group", "groups", multiple=True, metavar="GROUP", help="Id or name of a group; may be repeated."
        ),
        click.option("--no-group", is_flag=True, help="They are in no group."),
        click.option("--model", metavar="ID", help="The model that runs the code."),
        click.option("--surface", type=click.Choice(SURFACES), help="Through the tool, or through the button."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def parsed_requester(
    *,
    user: str | None,
    role: str | None,
    groups: Sequence[str],
    no_group: bool,
    model: str | None,
    surface: str | None,
) -> Requester:
    """Who asks, from the options that `requester_options` adds, by their names.

    Raises:
        click.UsageError: groups are named, and none are claimed too.
    """
    if groups and no_group:
        raise click.UsageError("--group and --no-group exclude each other")
    known = frozenset(groups) if groups or no_group else None
    return Requester(role=role, groups=known, user=user, model=model, surface=surface)


def parsed_valves(texts: Sequence[str]) -> dict[str, object]:
    """Valves given as NAME=VALUE, by name; their values are read when limits are resolved.

    Raises:
        click.BadParameter: one is not of that form, or names no limit.
    """
    known = {limit.valve for limit in LIMITS}
    valves: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise click.BadParameter(f"{text!r}: expected NAME=VALUE, where NAME is one of {', '.join(sorted(known))}")
        valves[name] = value
    return valves


def say(sentence: str) -> None:
    """Print a sentence in which untrusted text may stand."""
    click.echo(printable(sentence))
