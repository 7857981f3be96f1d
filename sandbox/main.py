"""The command `sandbox`: run code, see what this host can enforce, install gVisor, see and end runs.

Exit codes of `sandbox run`: the code's own; 124 timed out, 137 killed or out of memory, 125 refused or our failure.
Of the others: 0 yes; 1 no; 2 wrong usage or unreadable input; 70 our own failure.
Each command lives in a module of `sandbox.commands` and is loaded only when it is called.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import click

from policy.errors import PolicyError, printable
from policy.lazy_group import LazyGroup
from sandbox.command_line import EXIT_INTERNAL, EXIT_KILLED, EXIT_NO, EXIT_REFUSED
from sandbox.errors import SandboxError

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "run": ("sandbox.commands.run:run_command", "Run code under the effective limits."),
        "doctor": ("sandbox.commands.doctor:doctor_command", "Say whether this host can enforce each limit."),
        "install": ("sandbox.commands.install:install_command", "Install gVisor beforehand."),
        "ps": ("sandbox.commands.ps:ps_command", "List the runs under way."),
        "kill": ("sandbox.commands.kill:kill_command", "End runs."),
    }
)
"""By name: where the command is, and its one line in the list; in the order in which people see them."""


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="sandbox-lockdown")
def cli() -> None:
    """Run code in a gVisor box, under the limits that policy decides.

    \b
    Examples:
      sandbox doctor                    can this host enforce each limit?
      sandbox install                   install gVisor beforehand
      sandbox run hello.py              run a file
      echo 'print(6 * 7)' | sandbox run -
      sandbox ps                        list the runs under way
      sandbox kill 3f2a                 end one of them
    \b
    Shell completion: eval "$(_SANDBOX_COMPLETE=bash_source sandbox)"
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and turn every error into words and an exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    refused = EXIT_REFUSED if given[:1] == ["run"] else EXIT_NO
    try:
        cli.main(args=given, prog_name="sandbox", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code if isinstance(error, click.UsageError) else refused)
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        click.echo("Stopped.", err=True)
        sys.exit(EXIT_KILLED)
    except PolicyError as error:
        for problem in error.problems:
            click.echo(printable(f"error: {problem}"), err=True)
        sys.exit(refused)
    except SandboxError as error:
        click.echo(printable(f"error: {error}"), err=True)
        sys.exit(refused)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(refused)
    except Exception as error:  # noqa: BLE001 -- the last border before a user: no traceback passes it
        click.echo(printable(f"internal error: {type(error).__name__}: {error}. Please report this."), err=True)
        sys.exit(EXIT_REFUSED if refused == EXIT_REFUSED else EXIT_INTERNAL)
