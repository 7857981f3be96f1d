"""`sandbox doctor`: can this host enforce each limit? If not, the remedy."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import click
from rich.console import Console
from rich.table import Table

from policy.errors import PolicyError
from policy.settings import GVISOR_PLATFORM, NETWORK_MODE, POOL_IMPORTS
from policy.situation import Situation
from policy.tables import table_console, unstyled
from sandbox.cgroup_discovery import find_cgroup_parent
from sandbox.command_line import EXIT_NO, warn_on_terminal
from sandbox.doctor import (
    Check,
    Verdict,
    cgroup_checks,
    commands_check,
    enforced_otherwise,
    error_check,
    gvisor_check,
    host_checks,
    imports_check,
    missing_gvisor_check,
    network_check,
    probe_checks,
    start_check,
    untried_checks,
)
from sandbox.equipment import Equipment, found_runsc, prepared
from sandbox.errors import SandboxError
from sandbox.folders import private_folder
from sandbox.gvisor import Runsc
from sandbox.host_facts import host_facts
from sandbox.kept_launch import forget_launch
from sandbox.launch import LaunchError
from sandbox.preflight import HostFacts
from sandbox.release import ReleaseSource
from sandbox.session import Session, gvisor_source, packages_order
from sandbox.spec import NetworkMode

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
    facts = host_facts()
    checks = list(host_checks(facts.surroundings))
    try:
        situation = Session(os.environ, warn_on_terminal).situation()
    except PolicyError as error:
        problems = (Check(name="policy", verdict=Verdict.BAD, detail=str(problem)) for problem in error.problems)
        return [*checks, *problems, *_host_lacks(facts, ReleaseSource().version)]
    return [*checks, _policy_check(situation), *await _checked_boxes(situation, facts), *enforced_otherwise()]


async def _checked_boxes(situation: Situation, facts: HostFacts) -> list[Check]:
    """Whether boxes run here and hold their limits; where none can be tried, what is known all the same."""
    settings = situation.environment.settings
    try:
        source = gvisor_source(settings)
        runsc = found_runsc(source, os.environ)
    except SandboxError as error:
        return [error_check(error), *_host_lacks(facts, ReleaseSource().version)]
    if runsc is None:
        return [missing_gvisor_check(source), *_host_lacks(facts, source.version)]
    try:
        equipment = _equipment(runsc, situation)
    except LaunchError as error:
        cgroups = cgroup_checks(find_cgroup_parent(), facts)
        return [gvisor_check(runsc, source, None), *cgroups, start_check(error, runsc.version, facts)]
    except SandboxError as error:
        return [gvisor_check(runsc, source, None), error_check(error), *_host_lacks(facts, runsc.version)]
    cgroups = cgroup_checks(equipment.cgroups, facts)
    probed = [check async for check in probe_checks(equipment, facts)]
    checks = [gvisor_check(runsc, source, equipment.launch), *cgroups, *probed]
    if any(check.verdict is not Verdict.GOOD for check in probed):
        return checks
    modules = settings[POOL_IMPORTS]
    imports = [await imports_check(equipment, modules)] if modules else []
    network = await network_check(equipment, facts)
    return [*checks, network, await commands_check(equipment, source), *imports]


def _host_lacks(facts: HostFacts, gvisor_version: str) -> tuple[Check, ...]:
    """What is known of cgroups and of starting boxes without having started one."""
    return (*cgroup_checks(find_cgroup_parent(), facts), *untried_checks(facts, gvisor_version))


def _equipment(runsc: Runsc, situation: Situation) -> Equipment:
    """What a run would find here, but for how boxes start: that is found out anew."""
    settings = situation.environment.settings
    forget_launch(private_folder(os.environ))
    equipment = prepared(
        runsc,
        os.environ,
        lambda sentence: click.echo(sentence, err=True),
        packages_order(settings),
        gvisor_platform=settings[GVISOR_PLATFORM],
    )
    return replace(equipment, network_way=NetworkMode(settings[NETWORK_MODE]))


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
