"""Tables and colour, where people look; apart from the rest of the command line since they take time to load."""

import os
import sys

from rich.console import Console
from rich.markup import escape

from policy.errors import printable

_PIPE_WIDTH = 160


def table_console() -> Console:
    """Where tables are printed: as wide as the terminal, or wide enough for a pipe; without any style for NO_COLOR."""
    return Console(
        width=None if sys.stdout.isatty() else _PIPE_WIDTH,
        color_system=None if os.environ.get("NO_COLOR") else "auto",  # or else bold and dim would remain
        emoji=False,
    )


def unstyled(text: str) -> str:
    """Text that rich shows as it is, whatever brackets, backslashes and control characters are in it."""
    return escape(printable(text))
