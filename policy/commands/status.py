"""`policy status`: does the policy set hold here, until when, and what is remembered of it."""

import json
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from policy.command_line import env_file_option, environment_variables, say
from policy.document import PolicyDocument
from policy.environment import EnvironmentLayer, read_environment
from policy.errors import Problem, SetRefusedError, StateError, printable
from policy.live import memory_of, onlooker
from policy.refusals import RefusalCode
from policy.remembered import FIRST_CONTACT, Remembered
from policy.settings import POLICY_MIN_SERIAL, POLICY_STATE
from policy.tables import table_console

STANDING_STYLES = {"good": "green", "last-good": "yellow", "locked-down": "red", "refused": "red", "none": "dim"}
STANDING_WORDS = {
    "good": "The policy set holds.",
    "last-good": "The policy set is refused; the last good one holds in its place.",
    "locked-down": "The policy set is refused; the last good one holds, bounded by the lockdown values.",
    "refused": "The policy set is refused and no earlier one may hold: nothing runs.",
    "none": "No policy set is configured; environment, valves and built-ins decide.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Everything that this command shows."""

    word: str = "none"
    """A key of `STANDING_WORDS`."""
    code: str | None = None
    """Why the set is refused."""
    problems: tuple[Problem, ...] = ()
    """All that is wrong with it."""
    until: datetime | None = None
    """When it expires, or when the lockdown values begin to bound the last good set."""
    documents: tuple[PolicyDocument, ...] = ()
    """The policies in force."""
    remembered: Remembered = FIRST_CONTACT
    """What was accepted before."""
    state: str | None
    """The folder in which that is kept."""
    rollback_unprotected: tuple[str, ...] = ()
    """Ids of which an older serial would be accepted: nothing is remembered of them, and no variable forbids it."""
    notices: tuple[str, ...] = ()
    """Where the environment is looser than a policy."""


@click.command("status")
@env_file_option
@click.option("--forget", metavar="ID", help="Forget that this policy was accepted, so that it may be gone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status_command(*, env_file: Path | None, forget: str | None, as_json: bool) -> None:
    """Show whether the policy set holds on this instance, until when, and what is remembered of it.

    Exit code 1 says that the set is refused, whether or not the last good one holds in its place.

    \b
    Examples:
      policy status
      policy status --env-file /etc/open-webui.env --json
      policy status --forget acme-old        after a policy was taken away for good
    """
    environment = read_environment(environment_variables(env_file))
    if forget is not None:
        _forget(forget, environment)
    report = _report(environment)
    if as_json:
        click.echo(json.dumps(_report_json(report, environment.warnings), indent=2))
    else:
        _print_report(report)
        for warning in environment.warnings:
            click.echo(printable(f"warning: {warning}"), err=True)
    sys.exit(0 if report.word in {"good", "none"} else 1)


def _report(environment: EnvironmentLayer) -> StatusReport:
    """What holds, and what was remembered before anything is decided here."""
    floors = environment.settings[POLICY_MIN_SERIAL]
    blank = StatusReport(state=environment.settings[POLICY_STATE])
    try:
        blank = replace(blank, remembered=memory_of(environment).read())
        situation = onlooker(environment).situation()
    except SetRefusedError as refusal:
        return replace(blank, word="refused", code=refusal.code, problems=refusal.problems)
    except StateError as error:
        return replace(blank, word="refused", code=RefusalCode.STATE_INVALID.code, problems=error.problems)
    if not situation.documents:
        return blank
    report = replace(
        blank,
        word="good",
        until=min(document.expires_at for document in situation.documents),
        documents=situation.documents,
        rollback_unprotected=tuple(
            each.policy_id
            for each in situation.documents
            if each.policy_id not in blank.remembered.policies and floors.get(each.policy_id, 0) < each.serial
        ),
        notices=situation.limits().notices,
    )
    stand_in = situation.stand_in
    if stand_in is None:
        return report
    word = "locked-down" if stand_in.locked_down else "last-good"
    problems = stand_in.refusal.problems
    return replace(report, word=word, code=stand_in.refusal.code, problems=problems, until=stand_in.until)


def _forget(policy_id: str, environment: EnvironmentLayer) -> None:
    """Take one id out of what is remembered.

    Raises:
        click.UsageError: nothing is remembered here at all.
        StateError: it is not remembered, or the memory cannot be changed.
    """
    folder = environment.settings[POLICY_STATE]
    if folder is None:
        raise click.UsageError(f"{POLICY_STATE.variable} is not set, so nothing is remembered")

    def without(remembered: Remembered) -> tuple[None, Remembered]:
        kept = {name: policy for name, policy in remembered.policies.items() if name != policy_id}
        return None, replace(remembered, policies=kept)

    memory = memory_of(environment)
    known = memory.read().policies
    if policy_id not in known:
        remedy = f"Remembered are: {', '.join(known) or 'none'}"
        raise StateError((Problem(key=policy_id, origin=folder, reason="it is not remembered", remedy=remedy),))
    memory.change(without)
    click.echo(printable(f"Forgot {policy_id}: any serial of it would be accepted, and it may be gone."), err=True)


def _report_json(report: StatusReport, warnings: tuple[str, ...]) -> dict[str, Any]:
    first, newest = report.remembered.first_refusal, report.remembered.newest_issued_at
    return {
        "standing": report.word,
        "code": report.code,
        "problems": [str(problem) for problem in report.problems],
        "until": _moment_json(report.until),
        "state": report.state,
        "rollback_unprotected": list(report.rollback_unprotected),
        "policies": [_document_json(document) for document in report.documents],
        "remembered": {
            "policies": [
                {"id": policy_id, "serial": known.serial, "retired_by": known.retired_by}
                for policy_id, known in report.remembered.policies.items()
            ],
            "newest_issued_at": _moment_json(newest),
            "first_refusal": None if first is None else {"at": _moment_json(first.at), "code": first.code},
        },
        "notices": list(report.notices),
        "warnings": list(warnings),
    }


def _document_json(document: PolicyDocument) -> dict[str, Any]:
    return {
        "id": document.policy_id,
        "serial": document.serial,
        "rollback_of": document.rollback_of,
        "issued_at": _moment_json(document.issued_at),
        "expires_at": _moment_json(document.expires_at),
        "payload_sha256": document.payload_sha256,
        "signed_by": list(document.key_ids),
        "unknown_keys": list(document.unknown_key_ids),
        "file": document.origin,
    }


def _moment_json(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def _print_report(report: StatusReport) -> None:
    console = table_console()
    code = f" \\[{report.code}]" if report.code else ""
    console.print(f"[{STANDING_STYLES[report.word]}]{STANDING_WORDS[report.word]}{code}[/]", highlight=False)
    for problem in report.problems:
        say(f"  {problem}")
    if report.until is not None:
        moment = _moment_json(report.until)
        words = {"good": f"It expires at {moment}.", "locked-down": f"That has been so since {moment}."}
        say(words.get(report.word, f"From {moment} on the lockdown values bound it."))
    for document in report.documents:
        _say_document(document)
    for notice in report.notices:
        say(f"note: {notice}")
    _say_memory(report)


def _say_document(document: PolicyDocument) -> None:
    """One policy in force; not in a table, which would break key ids and paths in two."""
    back = "" if document.rollback_of is None else f" (takes back {document.rollback_of})"
    issued, expires = _moment_json(document.issued_at), _moment_json(document.expires_at)
    say(f"{document.policy_id}, serial {document.serial}{back}, issued {issued}, expires {expires}")
    say(f"  file: {document.origin}")
    say(f"  signed by: {', '.join(document.key_ids) or 'nobody (unsigned)'}")
    for key_id in document.unknown_key_ids:
        say(f"  not counted, since that key is not trusted here: {key_id}")


def _say_memory(report: StatusReport) -> None:
    """What is remembered, and what it does not protect from."""
    for policy_id, known in report.remembered.policies.items():
        gone = f", retired by {known.retired_by}" if known.retired_by else ""
        say(f"Remembered: {policy_id}, serial {known.serial}{gone}.")
    if report.rollback_unprotected:
        ids = ", ".join(report.rollback_unprotected)
        remedy = (
            " The first run records it."
            if report.state
            else f" Set {POLICY_STATE.variable}, or raise {POLICY_MIN_SERIAL.variable}."
        )
        say(f"rollback_unprotected: an older serial of {ids} would be accepted: nothing is remembered of it.{remedy}")
