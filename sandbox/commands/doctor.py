"""`sandbox doctor`: can this host enforce each limit? If not, the remedy."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

import click
from rich.console import Console
from rich.table import Table

from policy.errors import PolicyError
from policy.settings import GVISOR_PLATFORM, POOL_IMPORTS
from policy.situation import Situation
from policy.tables import table_console, unstyled
from sandbox.cgroups import find_cgroup_parent
from sandbox.command_line import EXIT_NO, warn_on_terminal
from sandbox.doctor import (
    Check,
    Verdict,
    cgroup_checks,
    commands_check,
    enforced_otherwise,
    gvisor_check,
    host_checks,
    imports_check,
    probe_checks,
    start_check,
)
from sandbox.equipment import Equipment, found_runsc, prepared
from sandbox.errors import SandboxError
from sandbox.folders import private_folder
from sandbox.gvisor import Runsc, auto_install_refused
from sandbox.host_facts import host_facts
from sandbox.kept_launch import forget_launch
from sandbox.launch import LaunchError
from sandbox.session import Session, gvisor_source, packages_order

VERDICT_STYLES = {Verdict.GOOD: "green", Verdict.WARNING: "yellow", Verdict.BAD: "red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor_command(*, as_json: bool) -> None:
    """Say, check by check, whether this host can enforce each limit, and what to do where it cannot.

    Each limit is held against code that tries to break it, in a real box; nothing is installed.

    \b
    Example:
      sandbox doctor
    """
    with nullcontext() if as_json else Console(stderr=True).status("Trying each limit in a real box…"):
        checks = asyncio.run(_checked())
    if as_json:
        rows = [
            {"name": check.name, "verdict": check.verdict.value, "detail": check.detail, "remedy": check.remedy}
            for check in checks
        ]
        click.echo(json.dumps({"checks": rows}, indent=2, ensure_ascii=False))
    else:
        _print_checks(checks)
    sys.exit(EXIT_NO if any(check.verdict is Verdict.BAD for check in checks) else 0)


async def _checked() -> list[Check]:
    session = Session(os.environ, warn_on_terminal)
    facts = host_facts()
    checks = list(host_checks(facts.surroundings))
    try:
        situation = session.situation()
        checks.append(_policy_check(situation))
        runsc = _runsc_without_installing(situation)
        equipment = _equipment(runsc, situation)
    except PolicyError as error:
        return [
            *checks,
            *(Check(name="policy", verdict=Verdict.BAD, detail=str(problem)) for problem in error.problems),
        ]
    except LaunchError as error:
        checks += [gvisor_check(runsc, None), *cgroup_checks(find_cgroup_parent(), facts)]
        return [*checks, start_check(error, runsc.version, facts), *enforced_otherwise()]
    except SandboxError as error:
        detail = f"{error.reason} ({error.origin})"
        return [*checks, Check(name=error.key, verdict=Verdict.BAD, detail=detail, remedy=error.remedy)]
    checks += [gvisor_check(runsc, equipment.launch), *cgroup_checks(equipment.cgroups, facts)]
    probed = [check async for check in probe_checks(equipment, facts)]
    checks += probed
    if all(check.verdict is Verdict.GOOD for check in probed):
        checks.append(await commands_check(equipment))
        modules = situation.environment.settings[POOL_IMPORTS]
        checks += [await imports_check(equipment, modules)] if modules else []
    return [*checks, *enforced_otherwise()]


def _runsc_without_installing(situation: Situation) -> Runsc:
    source = gvisor_source(situation.environment.settings)
    runsc = found_runsc(source, os.environ)
    if runsc is None:
        raise auto_install_refused(source, "doctor installs nothing")
    return runsc


def _equipment(runsc: Runsc, situation: Situation) -> Equipment:
    """What a run would find here, but for how boxes start: that is found out anew."""
    settings = situation.environment.settings
    forget_launch(private_folder(os.environ))
    return prepared(
        runsc,
        os.environ,
        lambda sentence: click.echo(sentence, err=True),
        packages_order(settings),
        gvisor_platform=settings[GVISOR_PLATFORM],
    )


def _policy_check(situation: Situation) -> Check:
    if situation.stand_in is not None:
        remedy = "Mend the set; policy status shows all that is wrong with it"
        return Check(name="policy", verdict=Verdict.WARNING, detail=situation.stand_in.sentence, remedy=remedy)
    files = len(situation.documents)
    detail = f"{files} policy file{'' if files == 1 else 's'} and the environment can be used"
    return Check(name="policy", verdict=Verdict.GOOD, detail=detail)


def _print_checks(checks: Sequence[Check]) -> None:
    console = table_console()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("check", "result", "detail"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        style = VERDICT_STYLES[check.verdict]
        remedy = f"\n[bold]→ {unstyled(check.remedy)}[/bold]" if check.remedy else ""
        table.add_row(check.name, f"[{style}]{check.verdict.value}[/{style}]", f"{unstyled(check.detail)}{remedy}")
    console.print(table)
