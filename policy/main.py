"""The command `policy`: what holds, who decided it, and the policy files behind it.

Exit codes: 0 yes; 1 no (refused, unsigned, invalid, looser); 2 wrong usage or unreadable input; 70 our own failure.
Each command lives in a module of `policy.commands` and is loaded only when it is called, so that none pays for the
imports of the others.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import click

from policy.errors import PolicyError, SetRefusedError, printable
from policy.lazy_group import LazyGroup

EXIT_NO = 1
EXIT_INTERNAL = 70
COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "init": ("policy.commands.init:init_command", "Write a commented policy file to begin from."),
        "keygen": ("policy.commands.keygen:keygen_command", "Make a key pair."),
        "lint": ("policy.commands.lint:lint_command", "Review policy files, and the variables beside them."),
        "sign": ("policy.commands.sign:sign_command", "Add a signature to a policy file."),
        "verify": ("policy.commands.verify:verify_command", "Check the signatures of a policy file."),
        "export": ("policy.commands.export:export_command", "Write a signed policy file in another format."),
        "status": ("policy.commands.status:status_command", "Show whether the policy set holds here."),
        "explain": ("policy.commands.explain:explain_command", "Show each limit and who decided it."),
        "diff": ("policy.commands.diff:diff_command", "Tell whether new policy files let anybody have more."),
        "test": ("policy.commands.test:test_command", "Hold policies against cases, as unit tests."),
        "audit": ("policy.commands.audit:audit_command", "Check the log of runs."),
        "import": ("policy.commands.import_:import_command", "Carry over the locks of safe-code-execution."),
        "schema": ("policy.commands.schema:schema_command", "Print the JSON Schema of a policy file."),
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
    """Decide what code from Open WebUI may do: keys, signatures, and who decides what.

    \b
    Examples:
      policy explain                          what holds here, and who decided it
      policy explain --valve MAX_CPUS=4       … for a person who sets that valve
      policy keygen ops                       make ops.key and ops.pub
      policy sign --key ops.key prod.toml     sign a policy file in place
      policy verify --key ops.pub prod.toml   check its signatures
    \b
    Shell completion: eval "$(_POLICY_COMPLETE=bash_source policy)"
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and turn every error into words and an exit code."""
    try:
        cli.main(args=arguments, prog_name="policy", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(EXIT_NO)
    except PolicyError as error:
        _tell_refusal(error, as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
        sys.exit(EXIT_NO)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_NO)
    except Exception as error:  # noqa: BLE001 -- the last border before a user: no traceback passes it
        click.echo(printable(f"internal error: {type(error).__name__}: {error}. Please report this."), err=True)
        sys.exit(EXIT_INTERNAL)


def _tell_refusal(error: PolicyError, *, as_json: bool) -> None:
    """Each problem for people; for programs the same on the standard output, with the reason code of a set."""
    code = error.code if isinstance(error, SetRefusedError) else None
    for problem in error.problems:
        click.echo(f"error [{code}]: {problem}" if code else f"error: {problem}", err=True)
    if as_json:
        problems = [problem.as_json() for problem in error.problems]
        click.echo(json.dumps({"refused": {"code": code, "problems": problems}}, indent=2))
