"""The command `sandbox`: run code, see what this host can enforce, install gVisor.

Exit codes of `sandbox run`: the code's own; 124 timed out, 137 killed or out of memory, 125 refused or our failure.
Of the others: 0 yes; 1 no; 2 wrong usage or unreadable input; 70 our own failure.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from policy.command_line import parsed_requester, parsed_valves, requester_options, valve_options
from policy.effective import fixed_limits
from policy.errors import PolicyError, printable
from policy.situation import Situation
from policy.tables import table_console, unstyled
from sandbox.cleaning import cleaned
from sandbox.doctor import (
    Check,
    Verdict,
    cgroup_checks,
    commands_check,
    enforced_otherwise,
    gvisor_check,
    host_checks,
    probe_checks,
)
from sandbox.equipment import Equipment, found_runsc, installed_runsc, prepared, runsc_words
from sandbox.errors import SandboxError
from sandbox.gvisor import auto_install_refused
from sandbox.outcome import Outcome, RunResult
from sandbox.request import LANGUAGE_NAMES, MAX_CODE_BYTES
from sandbox.session import RunOrder, Session, gvisor_source

EXIT_NO = 1
EXIT_TIMED_OUT = 124
EXIT_REFUSED = 125
EXIT_KILLED = 137
EXIT_INTERNAL = 70
VERDICT_STYLES = {Verdict.GOOD: "green", Verdict.WARNING: "yellow", Verdict.BAD: "red"}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sandbox-lockdown")
def cli() -> None:
    """Run code in a gVisor box, under the limits that policy decides.

    \b
    Examples:
      sandbox doctor                    can this host enforce each limit?
      sandbox install                   install gVisor beforehand
      sandbox run hello.py              run a file
      echo 'print(6 * 7)' | sandbox run -
    \b
    Shell completion: eval "$(_SANDBOX_COMPLETE=bash_source sandbox)"
    """


@cli.command()
@click.option(
    "--language", type=click.Choice(list(LANGUAGE_NAMES)), help="By default from the file's name, else python."
)
@requester_options
@valve_options
@click.option("--json", "as_json", is_flag=True, help="Print the result and its record as JSON.")
@click.argument("file", type=click.Path(allow_dash=True), default="-")
def run(
    *,
    language: str | None,
    person_valves: tuple[str, ...],
    admin_valves: tuple[str, ...],
    as_json: bool,
    file: str,
    **who: Any,  # noqa: ANN401 -- as `requester_options` names them
) -> None:
    """Run FILE (or standard input) under the effective limits.

    Its output and exit code are the code's own; 124 timed out, 137 killed or out of memory, 125 refused. Scopes of
    policy files hold as they would for the person you describe; what you do not say of them counts as undetermined,
    so every scope that might be for them holds.

    \b
    Examples:
      sandbox run hello.py
      echo 'echo $((6 * 7))' | sandbox run --language bash -
      sandbox run --valve MAX_RUNTIME_SECONDS=5 --json slow.py
      sandbox run --role user --group students --user 4f1c --model llama --surface tool hello.py
    """
    requester = parsed_requester(**who)
    persons, administrators = parsed_valves(person_valves), parsed_valves(admin_valves)
    order = RunOrder(
        language=language or ("bash" if file.endswith(".sh") else "python"),
        code=_read_code(file),
        person=f"uid {os.getuid()}",
        requester=requester,
        untrusted_person_valves=persons,
        untrusted_admin_valves=administrators,
    )
    result = asyncio.run(_run_until_told_to_end(order))
    if as_json:
        click.echo(json.dumps({**result.record(), "output": result.output}, indent=2, ensure_ascii=False))
    else:
        _write_output(result)
    sys.exit(_exit_code(result))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, as_json: bool) -> None:
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


@cli.command()
def install() -> None:
    """Install gVisor beforehand, into the private folder of this user.

    The official release is taken, pinned by its checksum; where its host is out of reach, Debian's package. A gVisor
    that is already there is left alone. This is an administrator's own act, so `auto_install` does not forbid it.

    \b
    Example:
      sandbox install
    """
    source = gvisor_source(Session(os.environ, _warn_on_terminal).situation())
    runsc = found_runsc(source, os.environ)
    if runsc is None:
        limits = fixed_limits({"auto_install": True}, "sandbox install")
        runsc = installed_runsc(source, os.environ, limits, lambda sentence: click.echo(sentence, err=True))
    click.echo(f"gVisor {runsc_words(runsc)} is at {runsc.path}")


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
        click.echo(f"internal error: {type(error).__name__}: {error}. Please report this.", err=True)
        sys.exit(EXIT_REFUSED if refused == EXIT_REFUSED else EXIT_INTERNAL)


async def _run_until_told_to_end(order: RunOrder) -> RunResult:
    """Run code; a signal that asks for an end gets one, with nothing left behind, as Ctrl-C does."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task is not None:
            loop.add_signal_handler(number, task.cancel)
    return await Session(os.environ, _warn_on_terminal).run(order, _announce_on_terminal)


async def _checked() -> list[Check]:
    session = Session(os.environ, _warn_on_terminal)
    checks = list(host_checks())
    try:
        situation = session.situation()
        checks.append(_policy_check(situation))
        equipment = _equipment_without_installing(situation)
    except PolicyError as error:
        return [
            *checks,
            *(Check(name="policy", verdict=Verdict.BAD, detail=str(problem)) for problem in error.problems),
        ]
    except SandboxError as error:
        detail = f"{error.reason} ({error.origin})"
        return [*checks, Check(name=error.key, verdict=Verdict.BAD, detail=detail, remedy=error.remedy)]
    checks += [gvisor_check(equipment), *cgroup_checks(equipment.cgroups)]
    probed = [check async for check in probe_checks(equipment)]
    checks += probed
    if all(check.verdict is Verdict.GOOD for check in probed):
        checks.append(await commands_check(equipment))
    return [*checks, *enforced_otherwise()]


def _equipment_without_installing(situation: Situation) -> Equipment:
    source = gvisor_source(situation)
    runsc = found_runsc(source, os.environ)
    if runsc is None:
        raise auto_install_refused(source, "doctor installs nothing")
    return prepared(runsc, os.environ, lambda sentence: click.echo(sentence, err=True))


def _policy_check(situation: Situation) -> Check:
    if situation.stand_in is not None:
        remedy = "Mend the set; policy status shows all that is wrong with it"
        return Check(name="policy", verdict=Verdict.WARNING, detail=situation.stand_in.sentence, remedy=remedy)
    files = len(situation.documents)
    detail = f"{files} policy file{'' if files == 1 else 's'} and the environment can be used"
    return Check(name="policy", verdict=Verdict.GOOD, detail=detail)


def _read_code(name: str) -> str:
    data = _code_file_bytes(name)
    if len(data) > MAX_CODE_BYTES:
        raise _code_file_error(
            name, f"it has more than {MAX_CODE_BYTES} bytes", "Shorten it; data belongs elsewhere than in code"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _code_file_error(name, f"it is not UTF-8 in line {line}", "Save it as UTF-8") from error


def _code_file_bytes(name: str) -> bytes:
    """A file's bytes, or standard input's for `-`, up to one more than code may have."""
    if name == "-" and sys.stdin is None:
        raise _code_file_error(name, "it is closed", "Name a file, or give code on standard input")
    try:
        with click.open_file(name, "rb") as file:
            data: bytes = file.read(MAX_CODE_BYTES + 1)
            return data
    except OSError as error:
        raise _code_file_error(name, f"it cannot be read: {error.strerror}", "Name a file that you can read") from error


def _code_file_error(name: str, reason: str, remedy: str) -> SandboxError:
    shown = "standard input" if name == "-" else name
    return SandboxError(key=shown, origin="command line", reason=reason, remedy=remedy)


def _warn_on_terminal(warning: str) -> None:
    click.echo(printable(f"warning: {warning}"), err=True)


async def _announce_on_terminal(sentence: str) -> None:
    if sys.stderr.isatty() or sentence.startswith(("Auto-installing", "Downloading", "Building")):
        click.secho(sentence, err=True, dim=True)


def _write_output(result: RunResult) -> None:
    for chunk in result.chunks:
        stream = sys.stdout if chunk.stream == "stdout" else sys.stderr
        # A pipe gets the bytes as they are; a terminal would obey some of them.
        stream.buffer.write(cleaned(chunk.data.decode(errors="replace")).encode() if stream.isatty() else chunk.data)
        stream.flush()
    remarks = list(result.notices)
    if result.truncated:
        remarks.append(f"Output was cut after {result.output_limit_kilobytes} kilobytes.")
    if result.unenforced:
        remarks.append(f"Not enforced on this host: {', '.join(result.unenforced)}.")
    if result.outcome not in {Outcome.OK, Outcome.ERROR}:
        remarks.append(result.sentence)
    for remark in remarks:
        click.echo(printable(f"note: {remark}"), err=True)


def _exit_code(result: RunResult) -> int:
    match result.outcome:
        case Outcome.TIMED_OUT:
            return EXIT_TIMED_OUT
        case Outcome.OUT_OF_MEMORY | Outcome.KILLED:
            return EXIT_KILLED
        case Outcome.OK | Outcome.ERROR:
            return result.exit_code or 0


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
