"""`sandbox ps`: the runs under way, whose they are, and what each uses at this moment."""

import json
import os
from collections.abc import Sequence
from typing import Any

import click
from rich.console import JustifyMethod
from rich.table import Table

from policy.tables import table_console, unstyled
from sandbox.command_line import user_option
from sandbox.run_owner import owned_runs
from sandbox.seen_runs import ABANDONED, SHORT_NAME_CHARACTERS, UNKNOWN, SeenRun, seen_runs

STATE_STYLES = {ABANDONED: "red", UNKNOWN: "yellow", "running": "green", "waiting": "dim", "starting": "none"}
HEADINGS = ("run", "state", "for", "language", "person", "surface", "CPU", "memory", "caller", "limits")
ABSENT = "-"
LONGEST_CELL = 64
SHORT_DIGEST_CHARACTERS = 8
MEGABYTE = 1 << 20


@click.command("ps")
@user_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps_command(user: str | None, as_json: bool) -> None:
    """List the runs under way, those of all servers and commands of this user.

    A run is starting, waiting (a box in a pool, ready for code), running, or abandoned: its caller is dead, and the
    next run, or sandbox kill, removes what is left of it. CPU and memory are what the kernel counts now, gVisor's own
    share included. A server in a container is seen from inside that container.

    \b
    Examples:
      sandbox ps
      sandbox ps --json | jq '.runs[] | select(.state == "running")'
      sandbox ps --user open-webui
      docker exec open-webui sandbox ps
    """
    with owned_runs(user, os.environ) as folder:
        rows = [run_json(run) for run in seen_runs(folder)]
    if as_json:
        # Escaped, since a terminal would obey some characters of what people are called.
        click.echo(json.dumps({"runs": rows}, indent=2))
    elif rows:
        _print_runs(rows)
    else:
        click.echo("No runs.")


def run_json(run: SeenRun) -> dict[str, Any]:
    """All there is to say of a run at this moment."""
    note = run.note
    return {
        "name": run.name,
        "state": run.state,
        "state_seconds": _rounded(run.age_seconds()),
        "language": note and note.language,
        "person": note and note.person,
        "surface": note and note.surface,
        "cpu_seconds": _rounded(run.cpu_seconds()),
        "memory_bytes": run.memory_bytes(),
        "caller_pid": note and note.caller_pid,
        "limits_digest": note and note.limits_digest,
        "box_digest": note and note.box_digest,
        "since": note and note.since,
        "started": note and note.started,
        "cgroup_folders": [str(place.folder) for place in run.cgroup.places],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _print_runs(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for heading in HEADINGS:
        # Ids are long, and untrusted; whatever else does not fit a narrow terminal is not broken in two.
        folded = heading == "person"
        side: JustifyMethod = "right" if heading in {"for", "CPU", "memory"} else "left"
        table.add_column(heading, overflow="fold" if folded else "ellipsis", no_wrap=not folded, justify=side)
    for row in rows:
        style = STATE_STYLES[row["state"]]
        table.add_row(*(_styled(cell, style if place == 1 else "none") for place, cell in enumerate(_cells(row))))
    table_console().print(table)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One run as people read it, in the order of the headings."""
    memory = row["memory_bytes"]
    return (
        row["name"][:SHORT_NAME_CHARACTERS],
        row["state"],
        _age_words(row["state_seconds"]),
        row["language"] or ABSENT,
        row["person"] or ABSENT,
        row["surface"] or ABSENT,
        ABSENT if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.1f} s",
        ABSENT if memory is None else f"{memory / MEGABYTE:.0f} MB",
        str(row["caller_pid"] or ABSENT),
        (row["limits_digest"] or ABSENT)[:SHORT_DIGEST_CHARACTERS],
    )


def _styled(cell: str, style: str) -> str:
    shown = cell if len(cell) <= LONGEST_CELL else f"{cell[:LONGEST_CELL]}…"
    return f"[{style}]{unstyled(shown)}[/]"


def _age_words(seconds: float | None) -> str:
    """A time in its largest unit that counts at least two."""
    if seconds is None:
        return ABSENT
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
