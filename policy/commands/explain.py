"""`policy explain`: each limit's effective value, and who decided it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from policy.command_line import (
    READABLE_PATH,
    env_file_option,
    environment_variables,
    parsed_requester,
    parsed_valves,
    requester_options,
    say,
    valve_options,
)
from policy.effective import Decision, EffectiveLimits, Fate
from policy.egress_rules import Foretold, foretold
from policy.environment import read_environment
from policy.errors import printable
from policy.live import onlooker
from policy.preview import previewed
from policy.requester import SCOPE_ATTRIBUTES, Requester
from policy.situation import Situation
from policy.tables import table_console, unstyled

EXIT_REFUSED = 1
_USUAL_PORT, _LARGEST_PORT = 443, 65535
FATE_STYLES = {
    Fate.WON: "green",
    Fate.CLAMPED: "yellow",
    Fate.SHADOWED: "dim",
    Fate.IGNORED: "yellow",
    Fate.INVALID: "red",
}


@click.command("explain")
@click.option(
    "--policy",
    "policies",
    type=READABLE_PATH,
    multiple=True,
    help="Policy file or folder in place of SANDBOX_POLICY_PATH; may be repeated and unsigned.",
)
@env_file_option
@requester_options
@valve_options
@click.option(
    "--destination",
    "destinations",
    metavar="HOST[:PORT]",
    multiple=True,
    help="Say too whether code may reach it, at port 443 unless you name one; may be repeated.",
)
@click.option("--candidates", is_flag=True, help="Show everybody who had a say, not only who decided.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all candidates.")
def explain_command(
    *,
    policies: tuple[Path, ...],
    env_file: Path | None,
    person_valves: tuple[str, ...],
    admin_valves: tuple[str, ...],
    destinations: tuple[str, ...],
    candidates: bool,
    as_json: bool,
    **who: Any,  # noqa: ANN401 -- as `requester_options` names them
) -> None:
    """Show each limit's effective value and who decided it.

    Reads the SANDBOX_* variables, and the policy files they name. Files named by --policy take the place of those;
    they may be unsigned, are marked so, and are explained even where they would be refused, which is then said. What
    you do not say of the person counts as undetermined: every scope that might be for them holds.

    With --destination the exit code is 1 where any is refused. No name is resolved for that.

    \b
    Examples:
      policy explain
      policy explain --valve MAX_RUNTIME_SECONDS=600 --candidates
      policy explain --role user --group students --surface tool --user 4f1c --model llama
      policy explain --policy prod.toml --env-file prod.env --json
      policy explain --destination pypi.org --destination 10.0.0.5:22
    """
    requester = parsed_requester(**who)
    person, admin = parsed_valves(person_valves), parsed_valves(admin_valves)
    environment = read_environment(environment_variables(env_file))
    if policies:
        preview = previewed(policies, environment, datetime.now(UTC))
        situation = Situation(environment=environment, documents=preview.documents)
        warnings = (*environment.warnings, *preview.warnings)
    else:
        situation = onlooker(environment).situation()
        stand_in = () if situation.stand_in is None else (situation.stand_in.sentence,)
        warnings = (*environment.warnings, *stand_in)
    limits = situation.limits(requester=requester, untrusted_person_valves=person, untrusted_admin_valves=admin)
    reached = tuple(foretold(limits, *_host_and_port(destination)) for destination in destinations)
    if as_json:
        told = {**limits.as_json(), "requester": requester.as_json(), "warnings": list(warnings)}
        click.echo(json.dumps({**told, "destinations": [asdict(one) for one in reached]}, indent=2))
    else:
        _print_limits(limits, with_candidates=candidates)
        _print_destinations(reached)
        _print_undetermined(requester, situation)
        for warning in warnings:
            click.echo(printable(f"warning: {warning}"), err=True)
    if not all(one.permitted for one in reached):
        sys.exit(EXIT_REFUSED)


def _host_and_port(destination: str) -> tuple[str, int]:
    """What `--destination` names; an IPv6 address needs brackets where a port follows it.

    Raises:
        click.UsageError: its port is none.
    """
    if not destination or "/" in destination:
        raise click.UsageError(f"--destination {printable(destination)}: it is a host, or a host and a port.")
    host, separator, port = destination.rpartition(":")
    if not separator or (":" in host.strip("[]") and not host.endswith("]")):
        return destination, _USUAL_PORT
    if port.isascii() and port.isdecimal() and 1 <= int(port) <= _LARGEST_PORT:
        return host, int(port)
    raise click.UsageError(f"--destination {printable(destination)}: the port is a number from 1 to {_LARGEST_PORT}.")


def _print_destinations(reached: Sequence[Foretold]) -> None:
    if not reached:
        return
    console = table_console()
    table = Table(title="Destinations", title_justify="left", header_style="bold", box=None, pad_edge=False)
    for heading in ("destination", "answer", "why"):
        table.add_column(heading, overflow="fold")
    for one in reached:
        answer = "[green]permitted[/]" if one.permitted else "[red]refused[/]"
        why = ", ".join(filter(None, (one.reason, one.origin)))
        table.add_row(unstyled(one.destination), answer, unstyled(why))
    console.print(table)


def _print_undetermined(requester: Requester, situation: Situation) -> None:
    """Say which scopes hold only because it was not said of whom they are."""
    asked = {
        name for document in situation.documents for scope in document.scopes for name in scope.conditions.asks_for
    }
    unknown = [name for name in SCOPE_ATTRIBUTES if name in asked and requester.lacks(name)]
    if unknown:
        names = ", ".join(unknown)
        say(f"note: you did not say the person's {names}; a scope that asks for them may hold for that reason alone.")


def _print_limits(limits: EffectiveLimits, *, with_candidates: bool) -> None:
    console = table_console()
    table = Table(title="Effective limits", title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("limit", no_wrap=True)
    for heading in ("value", "decided by", "where"):
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
