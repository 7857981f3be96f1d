"""`sandbox kill`: ends runs, chosen by name, person, waiting or all; only what is proved to be a run is touched."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
from click.shell_completion import CompletionItem

from policy.errors import printable
from sandbox.cgroup_discovery import find_cgroup_parent
from sandbox.command_line import EXIT_NO, user_option
from sandbox.errors import SandboxError
from sandbox.run_ending import EndedRun, Ending, end_runs
from sandbox.run_owner import owned_runs
from sandbox.seen_runs import SeenRun, seen_runs

LONGEST_PERSON = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which runs are to be ended: by exactly one of these."""

    names: tuple[str, ...]
    """Beginnings of names, each of which must mean one run."""
    person: str | None
    """Whose runs."""
    waiting: bool
    """Those that wait in a pool."""
    everything: bool
    """All of them."""

    def __post_init__(self) -> None:
        """Refuse no choice, and several.

        Raises:
            click.UsageError: so it is.
        """
        if sum((bool(self.names), self.person is not None, self.waiting, self.everything)) != 1:
            raise click.UsageError("Name runs, or give one of --person, --waiting and --all")

    def of(self, runs: Sequence[SeenRun]) -> tuple[SeenRun, ...]:
        """The runs chosen, each once.

        Raises:
            SandboxError: there is none.
        """
        if self.names:
            return tuple({run.name: run for run in (_run_named(name, runs) for name in self.names)}.values())
        chosen = tuple(run for run in runs if self._takes(run))
        if not chosen:
            raise self._nothing_chosen()
        return chosen

    def _nothing_chosen(self) -> SandboxError:
        if self.person is not None:
            return _no_run(self.person, "--person", "no run of this person is under way")
        if self.waiting:
            return _no_run("--waiting", "command line", "no box waits in a pool")
        return _no_run("--all", "command line", "no run is under way")

    def _takes(self, run: SeenRun) -> bool:
        if self.person is not None:
            return run.note is not None and run.note.person == self.person
        return self.everything or run.waits


def _completed_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of runs that begin so, for the shell, which shows what each is where it can."""
    given = context.params.get("names") or ()
    try:
        with owned_runs(context.params.get("user"), os.environ) as folder:
            runs = [run for run in seen_runs(folder) if run.name.startswith(incomplete) and run.name not in given]
            return [CompletionItem(run.name, help=_what(run)) for run in runs]
    except (SandboxError, OSError):
        return []


@click.command("kill")
@click.option("--person", metavar="ID", help="All runs of this person, by their id as sandbox ps shows it.")
@click.option("--waiting", is_flag=True, help="All boxes that wait in a pool.")
@click.option("--all", "everything", is_flag=True, help="All runs; asks first on a terminal.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@user_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_completed_names)
def kill_command(
    *,
    names: tuple[str, ...],
    person: str | None,
    waiting: bool,
    everything: bool,
    yes: bool,
    user: str | None,
    as_json: bool,
) -> None:
    """End runs: those that you name, a person's, those that wait in a pool, or all.

    The beginning of a name will do where no other run's begins so. People are told that an administrator ended
    their run. Of an abandoned run, whose caller is dead, what is left is removed. Exit code 1 says that there was no
    such run, or that one is still there.

    \b
    Examples:
      sandbox kill 3f2a
      sandbox kill --person 4f1c0d5e-8a3b-4d0e-9f65-1f6f3c2b7a90
      sandbox kill --waiting            for instance after an image was renewed
      sandbox kill --all --yes
      docker exec open-webui sandbox kill --all --yes
    """
    choice = Choice(names=names, person=person, waiting=waiting, everything=everything)
    try:
        with owned_runs(user, os.environ) as folder:
            chosen = choice.of(seen_runs(folder))
            if everything and not yes and not _confirmed(len(chosen)):
                click.echo("Nothing was ended.", err=True)
                sys.exit(EXIT_NO)
            ended = end_runs(chosen, find_cgroup_parent(), only_waiting=waiting)
    except SandboxError as error:
        if as_json:
            problem = {"key": error.key, "origin": error.origin, "reason": error.reason, "remedy": error.remedy}
            click.echo(json.dumps({"runs": [], "problems": [problem]}, indent=2))
        raise
    if as_json:
        click.echo(json.dumps({"runs": [_ended_json(each) for each in ended], "problems": []}, indent=2))
    else:
        for each in ended:
            click.echo(printable(_ended_words(each)), err=each.ending is Ending.FAILED)
    sys.exit(EXIT_NO if any(each.ending is Ending.FAILED for each in ended) else 0)


def _run_named(name: str, runs: Sequence[SeenRun]) -> SeenRun:
    """The one run whose name begins so.

    Raises:
        SandboxError: there is none, or more than one.
    """
    found = [run for run in runs if name and run.name.startswith(name.lower())]
    if not found:
        raise _no_run(name, "command line", "no run's name begins so")
    if len(found) > 1:
        names = ", ".join(run.short_name for run in found)
        raise SandboxError(
            key=name,
            origin="command line",
            reason=f"the names of {len(found)} runs begin so: {names}",
            remedy="Give more of the name of the one that is meant",
        )
    return found[0]


def _no_run(key: str, origin: str, reason: str) -> SandboxError:
    return SandboxError(key=key, origin=origin, reason=reason, remedy="`sandbox ps` lists the runs under way")


def _confirmed(count: int) -> bool:
    """Whether a person at a terminal wants it; a script that says --all has decided."""
    if sys.stdin is None or not sys.stdin.isatty():
        return True
    return click.confirm(f"End all {count} runs?" if count > 1 else "End the one run there is?", err=True)


def _ended_json(each: EndedRun) -> dict[str, str | None]:
    return {
        "name": each.run.name,
        "state": each.run.state,
        "person": None if each.run.note is None else each.run.note.person,
        "ending": each.ending.value,
        "reason": each.reason or None,
    }


def _ended_words(each: EndedRun) -> str:
    name = f"{each.run.short_name} ({_what(each.run)})"
    match each.ending:
        case Ending.ENDED:
            return f"Ended {name}{f'; {each.reason}' if each.reason else ''}."
        case Ending.REMOVED:
            return f"Removed what was left of {name}."
        case Ending.GONE:
            return f"{name} had ended by itself."
        case Ending.SPARED:
            return f"{name} was given code meanwhile, and was left alone."
        case Ending.FAILED:
            return f"error: {name}: {each.reason}."


def _what(run: SeenRun) -> str:
    return printable(", ".join(_parts(run)))


def _parts(run: SeenRun) -> Iterator[str]:
    yield run.state
    if run.note is not None:
        yield run.note.language
        if run.note.person is not None:
            person = run.note.person
            yield person if len(person) <= LONGEST_PERSON else f"{person[:LONGEST_PERSON]}…"
