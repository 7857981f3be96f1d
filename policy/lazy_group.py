"""A group of commands of which each lives in a module of its own and is loaded only when it is called.

So no command pays for the imports of the others, and neither does shell completion.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Loads a command when it is called or asked for help."""

    def __init__(self, *, table: Mapping[str, tuple[str, str]], **options: Any) -> None:  # noqa: ANN401 -- of click
        """Take a group's commands.

        Args:
            table: by name: where the command is (`module:attribute`), and its one line in the list; in the order in
                which people see them.
            options: whatever click gives a group.
        """
        super().__init__(**options)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's own signature
        """Every name, in the table's order."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command itself."""
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; of a misspelt name, say which one is near."""
        near = [] if args[0] in self._table else get_close_matches(args[0], self._table, n=1)
        if near and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])
