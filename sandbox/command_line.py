"""What the commands of `sandbox` do alike at their edge: exit codes, and words on the terminal."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from policy.errors import printable

F = TypeVar("F", bound=Callable[..., Any])

EXIT_NO = 1
EXIT_INTERNAL = 70
EXIT_TIMED_OUT = 124
EXIT_REFUSED = 125
EXIT_KILLED = 137


def warn_on_terminal(warning: str) -> None:
    """Print a warning in which untrusted text may stand."""
    click.echo(printable(f"warning: {warning}"), err=True)


def user_option(command: F) -> F:
    """The option by which root looks at another user's runs."""
    return click.option(
        "--user", metavar="NAME", help="Another user's runs, below their home's .cache; for root only."
    )(command)
