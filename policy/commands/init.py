"""`policy init`: a commented policy file to begin from."""

import json
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from policy.command_line import say
from policy.document import PolicyDocument
from policy.errors import printable
from policy.profiles import LONGEST_DAYS, PROFILES, Profile
from policy.settings import DOCUMENT_ID, INSTANCE, POLICY_IDS, POLICY_KEYS, POLICY_PATH, POLICY_STATE
from policy.starters import ANY_INSTANCE, SCHEMA_FILE, StarterHead, checked_starter, profile_starter
from policy.trusted_files import write_new_files

POLICY_MODE = 0o644
DEFAULT_DAYS = 90
LONGEST_NAME = 1_000
"""Characters of an owner or of an instance's name, as the schema has it."""


def _checked_id(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(DOCUMENT_ID, value):
        raise click.BadParameter(f"{value!r}: expected 1 to 64 of a-z, 0-9 and -, such as acme-prod")
    return value


def _checked_name(value: str) -> str:
    if value != value.strip() or not value.isprintable() or not 1 <= len(value) <= LONGEST_NAME:
        raise click.BadParameter(f"{value[:80]!r} is empty, too long, or has space around it or control characters")
    return value


def _checked_owner(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _checked_name(value)


def _checked_audience(_context: click.Context, _option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(_checked_name, values)))


@click.command("init")
@click.option(
    "--profile", "profile_name", type=click.Choice(tuple(PROFILES)), required=True, help="What deployment it is for."
)
@click.option("--id", "policy_id", callback=_checked_id, metavar="ID", help="The policy's own id.  [default: PROFILE]")
@click.option(
    "--audience",
    multiple=True,
    callback=_checked_audience,
    metavar="NAME",
    help="Instance it is for, by its SANDBOX_INSTANCE; may be repeated.  [default: *, any]",
)
@click.option("--owner", callback=_checked_owner, metavar="TEXT", help="Whom to ask about it.")
@click.option(
    "--days",
    type=click.IntRange(1, LONGEST_DAYS),
    default=DEFAULT_DAYS,
    show_default=True,
    help="How long it holds, from now on.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="New file to write; standard output if left out.", metavar="FILE"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the text in it.")
def init_command(
    *,
    profile_name: str,
    policy_id: str | None,
    audience: tuple[str, ...],
    owner: str | None,
    days: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write a commented policy file to begin from: read it, change it, sign it.

    \b
    Profiles:
      single-user   one person whom you trust, on a machine of their own
      classroom     many people who do not know each other
      production    a shared service; needs --owner and --audience, holds 90 days at most

    \b
    Examples:
      policy init --profile single-user
      policy init --profile classroom --id school --output school.toml
      policy init --profile production --audience prod-eu --owner ops@acme.example --output prod.toml
    """
    profile = PROFILES[profile_name]
    _check_named(profile, audience, owner, days)
    now = datetime.now(UTC).replace(microsecond=0)
    head = StarterHead(
        policy_id=policy_id or profile.name,
        issued_at=now,
        expires_at=now + timedelta(days=days),
        audience=audience or (ANY_INSTANCE,),
        description=profile.description,
        owner=owner,
    )
    text = profile_starter(profile, head)
    document = checked_starter(text)
    if output is not None:
        write_new_files([(output, text.encode(), POLICY_MODE)])
    _report(document, text, profile=profile, output=output, as_json=as_json)


def _check_named(profile: Profile, audience: Sequence[str], owner: str | None, days: int) -> None:
    """Refuse what a profile does not leave open.

    Raises:
        click.UsageError: names are missing, or it would hold for too long.
    """
    wrong = []
    if profile.names_instances and not owner:
        wrong.append("--owner TEXT, whom to ask about it")
    if profile.names_instances and (not audience or ANY_INSTANCE in audience):
        wrong.append("--audience NAME for each instance by its SANDBOX_INSTANCE, and not *")
    if days > profile.longest_days:
        wrong.append(f"--days of at most {profile.longest_days}")
    if wrong:
        raise click.UsageError(f"the profile {profile.name} wants {'; '.join(wrong)}")


def _report(document: PolicyDocument, text: str, *, profile: Profile, output: Path | None, as_json: bool) -> None:
    steps, variables = _next_steps(output), _server_variables(document)
    if as_json:
        told = {
            "file": None if output is None else str(output),
            "profile": profile.name,
            "id": document.policy_id,
            "serial": document.serial,
            "issued_at": document.issued_at.isoformat(),
            "expires_at": document.expires_at.isoformat(),
            "audience": list(document.audience),
            "text": text,
            "next": [command for command, _ in steps],
            "variables": variables,
        }
        click.echo(json.dumps(told, indent=2))
        return
    if output is None:
        click.echo(text, nl=False)
    else:
        say(f"Wrote {output} ({document.policy_id}, serial {document.serial}, until {document.expires_at:%Y-%m-%d}).")
    width = max(len(command) for command, _ in steps)
    lines = (
        "Next:",
        *(f"  {command:<{width}}  # {why}" for command, why in steps),
        "Then, in the environment of the server:",
        *(f"  {name}={value}" for name, value in variables.items()),
    )
    to_errors = output is None  # so that standard output is the policy and nothing else
    for line in lines:
        click.echo(printable(line), err=to_errors)


def _next_steps(output: Path | None) -> tuple[tuple[str, str], ...]:
    """Commands from here to a policy that ships, each with what it is for."""
    file = shlex.quote(str(output or "FILE"))
    schema = shlex.quote(str(output.with_name(SCHEMA_FILE)) if output else SCHEMA_FILE)
    return (
        (f"policy schema > {schema}", "your editor completes and checks"),
        (f"policy explain --policy {file}", "what comes of it"),
        (f"policy lint {file}", "what is wrong or unwise; again after each change"),
        ("policy keygen ops", "once: ops.key stays with you, ops.pub goes out"),
        (f"policy sign --key ops.key {file}", "again after each change"),
        (f"policy verify --key ops.pub {file}", "before it ships"),
    )


def _server_variables(document: PolicyDocument) -> dict[str, str]:
    """What makes a server load the policy, with places that are usual."""
    variables = {
        POLICY_PATH.variable: "/etc/sandbox/policies",
        POLICY_KEYS.variable: "/etc/sandbox/keys",
    }
    variables[POLICY_STATE.variable] = "/var/lib/sandbox-policy"
    variables[POLICY_IDS.variable] = document.policy_id
    if ANY_INSTANCE not in document.audience:
        variables[INSTANCE.variable] = document.audience[0]
    return variables
