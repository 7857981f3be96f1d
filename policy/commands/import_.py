"""`policy import`: the older plugin's locks as variables of ours, or as a policy file."""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from policy.command_line import env_file_border, env_file_option
from policy.env_files import read_env_path
from policy.environment import read_environment
from policy.errors import PolicyError, Problem, printable
from policy.legacy import LEGACY_PREFIX, LegacyImport, LegacySource, carry_over, legacy_names
from policy.starters import ANY_INSTANCE, StarterHead, checked_starter, locks_starter

EXIT_LEFT = 1
IMPORTED_ID = "imported"
IMPORTED_DAYS = 90


@click.command("import")
@env_file_option
@click.option(
    "--to",
    "target",
    type=click.Choice(("env", "policy")),
    default="env",
    show_default=True,
    help="What to write: SANDBOX_* variables, or a policy file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all that was not carried over.")
def import_command(*, env_file: Path | None, target: str, as_json: bool) -> None:
    """Carry over the locks of safe-code-execution: its CODE_EVAL_VALVE_OVERRIDE_* variables.

    Each becomes a lock here, on standard output. What cannot be carried over is listed with its remedy, and the exit
    code is 1 then; nothing is dropped, and no value is bent to fit.

    \b
    Examples:
      policy import --env-file open-webui.env > sandbox.env
      policy import --env-file open-webui.env --to policy > imported.toml
    """
    source = _legacy_source(env_file)
    if not legacy_names(source.untrusted):
        raise PolicyError((_nothing_found(env_file),))
    found = carry_over(source)
    text = _output(found, target)
    if as_json:
        click.echo(json.dumps(_as_json(found, text if target == "policy" else ""), indent=2))
    else:
        click.echo(text, nl=False)
        _say_rest(found)
    sys.exit(EXIT_LEFT if found.left else 0)


def _legacy_source(env_file: Path | None) -> LegacySource:
    """The variables of that file, or of this process.

    Raises:
        click.BadParameter: the file cannot be read as variables.
    """
    if env_file is None:
        return LegacySource(untrusted=dict(sorted(os.environ.items())))
    with env_file_border():
        file = read_env_path(env_file)
    return LegacySource(
        untrusted={variable.name: variable.value for variable in file.variables},
        places={variable.name: f"{file.origin}:{variable.line}" for variable in file.variables},
        doubts={variable.name: variable.doubt for variable in file.variables if variable.doubt},
    )


def _nothing_found(env_file: Path | None) -> Problem:
    origin = "environment" if env_file is None else str(env_file)
    remedy = "Name the file that holds them: --env-file FILE" if env_file is None else "Name another file"
    return Problem(key=f"{LEGACY_PREFIX}*", origin=origin, reason="no such variable is set", remedy=remedy)


def _output(found: LegacyImport, target: str) -> str:
    """What goes to standard output, read back before anybody else reads it; empty where no lock was carried over."""
    if not found.locks:
        return ""
    if target == "env":
        read_environment(found.variables)
        return "".join(f"{name}={value}\n" for name, value in found.variables.items())
    now = datetime.now(UTC).replace(microsecond=0)
    head = StarterHead(
        policy_id=IMPORTED_ID,
        issued_at=now,
        expires_at=now + timedelta(days=IMPORTED_DAYS),
        audience=(ANY_INSTANCE,),
        description="Locks carried over from safe-code-execution",
        owner=None,
    )
    intro = f"A policy for sandbox-lockdown, out of the {LEGACY_PREFIX}* variables of safe-code-execution."
    text = locks_starter(intro, head, [(lock.limit, lock.native, lock.comment) for lock in found.locks])
    checked_starter(text)
    return text


def _as_json(found: LegacyImport, policy: str) -> dict[str, object]:
    return {
        "variables": dict(found.variables),
        "policy": policy or None,
        "left": [problem.as_json() for problem in found.left],
        "warnings": list(found.warnings),
    }


def _say_rest(found: LegacyImport) -> None:
    for warning in found.warnings:
        click.echo(printable(f"warning: {warning}"), err=True)
    for problem in found.left:
        click.echo(printable(f"not carried over: {problem}"), err=True)
    click.echo(f"{len(found.locks)} carried over, {len(found.left)} not.", err=True)
