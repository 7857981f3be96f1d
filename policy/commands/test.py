"""`policy test`: hold policies against cases of who asks and what must come out."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from policy.cases import CaseVerdict, judged, parse_cases
from policy.command_line import READABLE_FILE, READABLE_PATH, UnreadableInputError
from policy.errors import PolicyError, printable
from policy.preview import unsigned_set
from policy.trusted_files import SIGNED_POLICY_FILE, read_trusted


@click.command("test")
@click.option(
    "--policy",
    "policies",
    type=READABLE_PATH,
    multiple=True,
    help="Policy file or folder in place of those that FILE names; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("files", nargs=-1, required=True, type=READABLE_FILE, metavar="FILE...")
def test_command(policies: tuple[Path, ...], as_json: bool, files: tuple[Path, ...]) -> None:
    """Hold policies against the cases of each FILE, as unit tests of a policy.

    \b
    FILE is TOML:
      policies = ["prod.toml"]
      [[case]]
      name = "students get ten seconds"
      who = { groups = ["students"], surface = "tool" }
      valves = { max_runtime_seconds = 600 }
      expect = { max_runtime_seconds = 10, networking_allowed = false }

    A case may also have admin_valves, and environment with SANDBOX_* variables. An attribute that `who` leaves out
    cannot be determined. Signatures, dates and audience are not judged.

    \b
    Examples:
      policy test prod.test.toml
      policy test --policy proposed/ cases/*.toml
    """
    try:
        verdicts = [verdict for file in files for verdict in _judged_file(file, policies)]
    except PolicyError as error:
        raise UnreadableInputError(error) from error
    if as_json:
        click.echo(json.dumps({"cases": [_verdict_json(verdict) for verdict in verdicts]}, indent=2))
    else:
        _print_verdicts(verdicts)
    sys.exit(1 if any(verdict.failures for verdict in verdicts) else 0)


def _judged_file(file: Path, policies: tuple[Path, ...]) -> list[CaseVerdict]:
    cases = parse_cases(read_trusted(file, SIGNED_POLICY_FILE), str(file))
    named = policies or tuple(file.parent / name for name in cases.policies)
    if not named:
        raise click.UsageError(f"{file} names no policies, and --policy is not given")
    documents = unsigned_set(named, datetime.now(UTC))
    return [judged(case, documents) for case in cases.cases]


def _verdict_json(verdict: CaseVerdict) -> dict[str, Any]:
    return {
        "name": verdict.case.name,
        "place": verdict.case.place,
        "passed": not verdict.failures,
        "failures": list(verdict.failures),
    }


def _print_verdicts(verdicts: list[CaseVerdict]) -> None:
    """One line for each case, those that failed with what was not as expected, and a count."""
    for verdict in verdicts:
        mark = click.style("FAILED", fg="red") if verdict.failures else click.style("passed", fg="green")
        click.echo(f"{mark}  {printable(verdict.case.name)}  {click.style(printable(verdict.case.place), dim=True)}")
        for failure in verdict.failures:
            click.echo(printable(f"        {failure}"))
    failed = sum(bool(verdict.failures) for verdict in verdicts)
    click.echo(f"{len(verdicts) - failed} passed, {failed} failed")
