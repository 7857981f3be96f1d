"""`policy diff`: does a new set of policy files let anybody have more than an old one?"""

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from policy.command_line import READABLE_FILE, READABLE_PATH, UnreadableInputError, environment_variables, say
from policy.compare import LimitComparison, Verdict, Witness, compared_limits, joint_verdict
from policy.document import PolicyDocument
from policy.effective import Candidate, Decision, Fate
from policy.environment import read_environment
from policy.errors import PolicyError, Problem
from policy.limits import LIMITS
from policy.preview import unsigned_set
from policy.scope_search import ANYBODY
from policy.set_changes import SetChange, set_changes
from policy.statements import Layer, Stated, Verb
from policy.tables import table_console, unstyled

EXIT_LOOSER = 1
PROGRESS_AFTER_SECONDS = 2
MOST_SCOPES_SHOWN = 6
VERDICT_STYLES = {
    Verdict.EQUAL: "dim",
    Verdict.TIGHTER: "green",
    Verdict.LOOSER: "bold red",
    Verdict.MIXED: "bold yellow",
}
SENTENCES = {
    Verdict.EQUAL: "NEW and OLD permit every request the same",
    Verdict.TIGHTER: "NEW is tighter: it permits no request more than OLD, and some less",
    Verdict.LOOSER: "NEW is looser: it permits some requests more than OLD, and none less",
    Verdict.MIXED: "NEW is mixed: it permits some requests more than OLD, and some less",
}


@click.command("diff")
@click.option(
    "--env-file",
    type=READABLE_FILE,
    help="File of NAME=VALUE lines that holds beside both. Without one, the answer is for every environment.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("old", type=READABLE_PATH)
@click.argument("new", type=READABLE_PATH)
def diff_command(*, env_file: Path | None, as_json: bool, old: Path, new: Path) -> None:
    """Compare the policy files OLD and NEW by what they let somebody have.

    OLD and NEW are files, or folders that are one set each; signatures count for nothing here. NEW is looser in a
    limit if any request at all, of anybody, with any valves, gets something that it does not get under OLD. Each
    difference is shown by one such request. Exit code: 0 equal or only tighter, 1 looser or mixed, 2 not comparable.

    \b
    Examples:
      policy diff main/prod.toml prod.toml
      policy diff --env-file prod.env policies-before/ policies-after/
      policy diff --json old.toml new.toml
    """
    try:
        environment = None if env_file is None else read_environment(environment_variables(env_file)).statements
        before, after = _two_sets(old, new)
        with _progress() as advance:
            comparisons = []
            for comparison in compared_limits(before, after, environment):
                comparisons.append(comparison)
                advance()
    except PolicyError as error:
        raise UnreadableInputError(error) from error
    verdict = joint_verdict(comparison.verdict for comparison in comparisons)
    changes = set_changes(before, after)
    if as_json:
        click.echo(json.dumps(_as_json(verdict, comparisons, changes, env_file), indent=2))
    else:
        _print_comparisons(comparisons)
        _say_summary(verdict, comparisons, env_file)
        for change in changes:
            say(f"also changed: {change}")
    sys.exit(EXIT_LOOSER if verdict.loosens else 0)


def _two_sets(old: Path, new: Path) -> tuple[tuple[PolicyDocument, ...], tuple[PolicyDocument, ...]]:
    """The policy files at either path.

    Raises:
        PolicyError: any cannot be read, or contradicts another one of its set; all that is wrong is listed.
    """
    sets: list[tuple[PolicyDocument, ...]] = []
    problems: list[Problem] = []
    for path in (old, new):
        try:
            sets.append(unsigned_set([path], datetime.now(UTC)))
        except PolicyError as error:
            problems.extend(error.problems)
    if problems:
        raise PolicyError(tuple(dict.fromkeys(problems)))
    before, after = sets
    return before, after


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar that appears on a terminal once people begin to wait; what it gives is called after each limit."""
    console = Console(stderr=True)
    with_bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = with_bar.add_task("Comparing limits", total=len(LIMITS))
    timer = threading.Timer(PROGRESS_AFTER_SECONDS, with_bar.start)
    timer.start()
    try:
        yield lambda: with_bar.advance(task)
    finally:
        timer.cancel()
        timer.join()
        with_bar.stop()


def _print_comparisons(comparisons: Sequence[LimitComparison]) -> None:
    differing = [comparison for comparison in comparisons if comparison.verdict is not Verdict.EQUAL]
    if not differing:
        return
    table = Table(header_style="bold", box=None, pad_edge=False)
    for heading in ("limit", "verdict", "a request that shows it"):
        table.add_column(heading, overflow="fold")
    for comparison in differing:
        for direction, witness in _shown_witnesses(comparison):
            for row in _witness_rows(comparison, direction, witness):
                table.add_row(*row)
    table_console().print(table)


def _shown_witnesses(comparison: LimitComparison) -> Iterator[tuple[Verdict, Witness]]:
    """Each direction's witness, and those of other environments that say something else."""
    shown = set()
    for difference in (comparison.plain, comparison.under_lock, comparison.under_default):
        for direction, witness in ((Verdict.LOOSER, difference.looser), (Verdict.TIGHTER, difference.tighter)):
            if witness is not None and (direction, witness.old.value, witness.new.value) not in shown:
                shown.add((direction, witness.old.value, witness.new.value))
                yield direction, witness


def _witness_rows(comparison: LimitComparison, direction: Verdict, witness: Witness) -> Iterator[tuple[str, str, str]]:
    words = comparison.limit.words
    mixed = f"{Verdict.MIXED.value}: " if comparison.verdict is Verdict.MIXED else ""
    style = VERDICT_STYLES[comparison.verdict if direction is Verdict.TIGHTER else Verdict.LOOSER]
    yield comparison.limit.name, f"[{style}]{mixed}{direction.value}[/]", unstyled(_request_words(witness))
    yield "  old", unstyled(words(witness.old.value)), unstyled(_deciders(witness.old))
    yield "  new", unstyled(words(witness.new.value)), unstyled(_deciders(witness.new))
    if witness.who != ANYBODY:
        yield "  scopes", "", unstyled(_scope_words(witness))


def _request_words(witness: Witness) -> str:
    """Who asks, with which valves, and in which environment."""
    kind = witness.old.limit.kind
    valves = [
        f"{layer.value} {witness.old.limit.valve}={kind.text(value)}"
        for layer, value in ((Layer.PERSON_VALVE, witness.person), (Layer.ADMIN_VALVE, witness.admin))
        if value is not None
    ]
    return "; ".join((witness.who, *valves, *map(_variable_words, witness.environment)))


def _variable_words(stated: Stated) -> str:
    key = " (env_may_loosen)" if stated.verb is Verb.LOCK else ""  # what a reviewer has to look for in the file
    return f"where {stated.origin.place}={stated.limit.kind.text(stated.value)}{key}"


def _deciders(decision: Decision) -> str:
    """Whoever decided a value, or brought it in."""
    return "; ".join(_decider_words(candidate) for candidate in _decisive(decision))


def _decisive(decision: Decision) -> tuple[Candidate, ...]:
    return tuple(candidate for candidate in decision.candidates if candidate.fate is Fate.WON)


def _decider_words(candidate: Candidate) -> str:
    origin = candidate.origin
    match origin.layer:
        case Layer.POLICY:
            return f"{candidate.verb.value} {origin.place} {origin.scope}".rstrip()
        case Layer.ENVIRONMENT:
            return f"{candidate.verb.value} {origin}"
        case _:
            return str(origin)


def _scope_words(witness: Witness) -> str:
    """For whose requesters the limit differs so."""
    words = [f"{scope} ({place})" for scope, place in zip(witness.scopes, witness.places, strict=True)]
    shown = words[:MOST_SCOPES_SHOWN]
    more = [f"{len(words) - len(shown)} more"] if len(shown) < len(words) else []
    return "; ".join((*shown, *more, *(["where no scope holds"] if witness.beyond_scopes else [])))


def _say_summary(verdict: Verdict, comparisons: Sequence[LimitComparison], env_file: Path | None) -> None:
    say(f"{SENTENCES[verdict]}{f', with the variables of {env_file}' if env_file else ''}.")
    for each in (Verdict.LOOSER, Verdict.MIXED, Verdict.TIGHTER, Verdict.EQUAL):
        names = [comparison.limit.name for comparison in comparisons if comparison.verdict is each]
        if names:
            say(f"{each.value}: {', '.join(names)}")


def _as_json(
    verdict: Verdict, comparisons: Sequence[LimitComparison], changes: Sequence[SetChange], env_file: Path | None
) -> dict[str, Any]:
    return {
        "verdict": verdict.value,
        "environment": "any" if env_file is None else str(env_file),
        "limits": {
            comparison.limit.name: {
                "verdict": comparison.verdict.value,
                "witnesses": [_witness_json(direction, witness) for direction, witness in _shown_witnesses(comparison)],
            }
            for comparison in comparisons
        },
        "also_changed": [
            {"id": change.policy_id, "key": change.key, "old": change.old, "new": change.new, "note": change.note}
            for change in changes
        ],
    }


def _witness_json(direction: Verdict, witness: Witness) -> dict[str, Any]:
    native = witness.old.limit.kind.native
    return {
        "verdict": direction.value,
        "who": witness.who,
        "requester": witness.requester.as_json(),
        "valve": None if witness.person is None else native(witness.person),
        "admin_valve": None if witness.admin is None else native(witness.admin),
        "environment": {stated.origin.place: stated.limit.kind.text(stated.value) for stated in witness.environment},
        "old": _decision_json(witness.old),
        "new": _decision_json(witness.new),
        "scopes": [
            {"scope": str(scope), "place": place} for scope, place in zip(witness.scopes, witness.places, strict=True)
        ],
        "beyond_scopes": witness.beyond_scopes,
    }


def _decision_json(decision: Decision) -> dict[str, Any]:
    return {
        "value": decision.limit.kind.native(decision.value),
        "decided_by": [
            {
                "layer": candidate.origin.layer.value,
                "statement": candidate.verb.value,
                "place": candidate.origin.place,
                "scope": candidate.origin.scope,
                "policy": candidate.origin.policy_id,
            }
            for candidate in _decisive(decision)
        ],
    }
