"""The command `policy`: keys, signatures, and who decides what.

Exit codes: 0 yes; 1 no (refused, unsigned, invalid); 2 wrong usage or unreadable input; 70 our own failure.
"""

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from policy.command_line import parsed_valves, printable, table_console, unstyled, valve_options
from policy.document import PolicyDocument, parse_document
from policy.effective import Decision, EffectiveLimits, Fate
from policy.environment import read_environment
from policy.errors import PolicyError, Problem, SetRefusedError, SignatureError
from policy.keys import generate_key, load_private_key, parse_public_pem, private_pem, public_pem
from policy.load import (
    Situation,
    load_situation,
    policy_source,
    read_keys,
    set_refusals,
    trusted_reader,
    unsigned_source,
)
from policy.schema import schema_text
from policy.settings import POLICY_THRESHOLD
from policy.signatures import add_signature, verify_signatures
from policy.trusted_files import (
    PRIVATE_KEY_FILE,
    SIGNED_POLICY_FILE,
    read_public_key_files,
    read_trusted,
    replace_file,
    write_new_files,
)

EXIT_NO = 1
EXIT_INTERNAL = 70
KEY_MODE, PUBLIC_MODE = 0o600, 0o644
READABLE_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
FATE_STYLES = {
    Fate.WON: "green",
    Fate.CLAMPED: "yellow",
    Fate.SHADOWED: "dim",
    Fate.IGNORED: "yellow",
    Fate.INVALID: "red",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


@cli.command()
@click.argument("name", type=click.Path(path_type=Path))
def keygen(name: Path) -> None:
    """Make a key pair: NAME.key (keep it secret) and NAME.pub (hand it out).

    \b
    Example:
      policy keygen ops
    """
    if not name.name or name.name == "..":
        raise click.BadParameter("a name is wanted, such as ops", param_hint="'NAME'")
    key = generate_key()
    private, public = name.with_name(f"{name.name}.key"), name.with_name(f"{name.name}.pub")
    write_new_files([(private, private_pem(key), KEY_MODE), (public, public_pem(key.public), PUBLIC_MODE)])
    _say(f"Wrote {private} (secret; sign with it) and {public} (public; verify with it).")
    _say(f"Key id: {key.public.key_id}")


@cli.command()
@click.option("--key", "key_path", type=READABLE_FILE, required=True, help="Private key, as `policy keygen` writes it.")
@click.argument("file", type=READABLE_FILE)
def sign(key_path: Path, file: Path) -> None:
    """Add a signature to FILE in place; its text stays as it is, byte for byte.

    A file that is not a valid policy is not signed.

    \b
    Example:
      policy sign --key ops.key prod.toml
    """
    if key_path.suffix == ".pub":  # whose mode would be refused first, with a remedy that leads nowhere
        raise click.BadParameter(f"{key_path} is a public key; sign with the private one, NAME.key", param_hint="--key")
    key = load_private_key(read_trusted(key_path, PRIVATE_KEY_FILE), str(key_path))
    untrusted = read_trusted(file, SIGNED_POLICY_FILE)
    document = parse_document(unsigned_source(str(file), untrusted))
    replace_file(file, add_signature(untrusted, key, origin=str(file)))
    _say(f"Signed {file} ({document.policy_id}, serial {document.serial}) with {key.public.key_id}.")


@cli.command()
@click.option(
    "--key", "key_paths", type=READABLE_FILE, multiple=True, required=True, help="Public key; may be repeated."
)
@click.option(
    "--threshold", type=click.IntRange(min=1), default=1, show_default=True, help="How many keys must have signed."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("file", type=READABLE_FILE)
def verify(key_paths: tuple[Path, ...], threshold: int, as_json: bool, file: Path) -> None:
    """Check that enough of the given keys signed FILE, and that it is a valid policy.

    Dates and audience are for the instance that loads it; this command does not judge them.

    \b
    Examples:
      policy verify --key ops.pub prod.toml
      policy verify --key ops.pub --key security.pub --threshold 2 prod.toml
    """
    keys = parse_public_pem({name: data for path in key_paths for name, data in read_public_key_files(path).items()})
    untrusted = read_trusted(file, SIGNED_POLICY_FILE)
    verified = verify_signatures(untrusted, keys, threshold=threshold, origin=str(file))
    document = parse_document(unsigned_source(str(file), untrusted))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "file": str(file),
                    "id": document.policy_id,
                    "serial": document.serial,
                    "payload_sha256": verified.payload_sha256,
                    "trusted": list(verified.trusted),
                    "unknown": list(verified.unknown),
                    "threshold": threshold,
                },
                indent=2,
            )
        )
        return
    signed = f"{len(verified.trusted)} of {len(keys)} keys given, {threshold} needed"
    _say(f"{file}: {document.policy_id}, serial {document.serial}: signed ({signed}).")
    for key_id in verified.trusted:
        _say(f"  {key_id}")
    for key_id in verified.unknown:
        _say(f"  {key_id}: not among the keys given; not checked and not counted")


@cli.command()
@click.option(
    "--policy",
    "policies",
    type=READABLE_FILE,
    multiple=True,
    help="Policy file in place of SANDBOX_POLICY_PATH; may be repeated and unsigned.",
)
@valve_options
@click.option("--candidates", is_flag=True, help="Show everybody who had a say, not only who decided.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all candidates.")
def explain(
    *,
    policies: tuple[Path, ...],
    person_valves: tuple[str, ...],
    admin_valves: tuple[str, ...],
    candidates: bool,
    as_json: bool,
) -> None:
    """Show each limit's effective value and who decided it.

    Reads the SANDBOX_* variables, and the policy files they name. Files named by --policy take the place of those;
    they may be unsigned, are marked so, and are explained even where they would be refused, which is then said.

    \b
    Examples:
      policy explain
      policy explain --valve MAX_RUNTIME_SECONDS=600 --candidates
      SANDBOX_MAX_RAM_MEGABYTES=64 policy explain --policy prod.toml --json
    """
    now = datetime.now(UTC)
    person, admin = parsed_valves(person_valves), parsed_valves(admin_valves)
    if policies:
        situation, warnings = _previewed(policies, now)
    else:
        situation, warnings = load_situation(read_environment(os.environ), now=now, reader=trusted_reader()), ()
    limits = situation.limits(untrusted_person_valves=person, untrusted_admin_valves=admin)
    warnings = (*situation.environment.warnings, *warnings)
    if as_json:
        click.echo(json.dumps({**limits.as_json(), "warnings": list(warnings)}, indent=2))
        return
    _print_limits(limits, with_candidates=candidates)
    for warning in warnings:
        click.echo(printable(f"warning: {warning}"), err=True)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a policy file, for editors and reviewers.

    \b
    Example:
      policy schema > policy.schema.json
    """
    click.echo(schema_text(), nl=False)


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
        code = f" [{error.code}]" if isinstance(error, SetRefusedError) else ""
        for problem in error.problems:
            click.echo(printable(f"error{code}: {problem}"), err=True)
        sys.exit(EXIT_NO)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_NO)
    except Exception as error:  # noqa: BLE001 -- the last border before a user: no traceback passes it
        click.echo(f"internal error: {type(error).__name__}: {error}. Please report this.", err=True)
        sys.exit(EXIT_INTERNAL)


def _say(sentence: str) -> None:
    click.echo(printable(sentence))


def _previewed(paths: Sequence[Path], now: datetime) -> tuple[Situation, tuple[str, ...]]:
    """These files as if they were the policy set, and what would keep them from being it."""
    environment = read_environment(os.environ)
    keys = read_keys(environment.settings, trusted_reader())
    documents: list[PolicyDocument] = []
    problems: list[Problem] = []
    warnings: list[str] = []
    for path in paths:
        try:
            untrusted = read_trusted(path, SIGNED_POLICY_FILE)
            source = unsigned_source(str(path), untrusted)
            try:
                source = policy_source(str(path), untrusted, keys, environment.settings[POLICY_THRESHOLD])
            except SignatureError as error:
                warnings.extend(f"would be refused here [signature-invalid]: {problem}" for problem in error.problems)
            documents.append(parse_document(source))
        except PolicyError as error:
            problems.extend(error.problems)
    if problems:
        raise PolicyError(tuple(problems))
    refusals = set_refusals(documents, environment.settings, now)
    warnings.extend(f"would be refused here [{code.value}]: {problem}" for code, problem in refusals)
    return Situation(environment=environment, documents=tuple(documents)), tuple(warnings)


def _print_limits(limits: EffectiveLimits, *, with_candidates: bool) -> None:
    console = table_console()
    table = Table(title="Effective limits", title_justify="left", header_style="bold", box=None, pad_edge=False)
    for heading in ("limit", "value", "decided by", "where"):
        table.add_column(heading, overflow="fold")
    for decision in limits.decisions.values():
        table.add_row(decision.limit.name, _value_words(decision), decision.decided_by.layer.value, _where(decision))
        if with_candidates:
            for row in _candidate_rows(decision):
                table.add_row(*row)
    console.print(table)
    for notice in limits.notices:
        console.print(printable(f"note: {notice}"), markup=False, highlight=False)
    console.print(f"digest {limits.digest}", markup=False, highlight=False)


def _value_words(decision: Decision) -> str:
    return f"[bold]{unstyled(decision.limit.words(decision.value))}[/bold]"


def _where(decision: Decision) -> str:
    reason = f": {decision.decided_by.reason}" if decision.decided_by.reason else ""
    return unstyled(f"{decision.verb.value} {decision.decided_by}{reason}")


def _candidate_rows(decision: Decision) -> list[tuple[Any, ...]]:
    rows = []
    for candidate in decision.candidates:
        style = FATE_STYLES[candidate.fate]
        note = f" ({candidate.note})" if candidate.note else ""
        where = unstyled(f"{candidate.verb.value} {candidate.origin}{note}")
        text = unstyled(candidate.text)
        rows.append((f"  [{style}]{candidate.fate.value}[/]", text, candidate.origin.layer.value, where))
    return rows
