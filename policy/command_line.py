"""What both commands do alike at their edge."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape

from policy.limits import LIMITS

_PIPE_WIDTH = 160

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


def table_console() -> Console:
    """Where tables are printed: as wide as the terminal, or wide enough for a pipe; without any style for NO_COLOR."""
    return Console(
        width=None if sys.stdout.isatty() else _PIPE_WIDTH,
        color_system=None if os.environ.get("NO_COLOR") else "auto",  # or else bold and dim would remain
        emoji=False,
    )


def printable(text: str) -> str:
    """Text whose control and bidirectional characters a terminal shows instead of obeying; line ends stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1] for character in text
    )


def unstyled(text: str) -> str:
    """Text that rich shows as it is, whatever brackets, backslashes and control characters are in it."""
    return escape(printable(text))
