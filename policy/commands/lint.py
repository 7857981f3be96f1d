"""`policy lint`: review policy files, and the variables beside them."""

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from policy.command_line import READABLE_FILE, UnreadableInputError, env_file_border
from policy.env_files import ENV_FILE
from policy.errors import DocumentError, PolicyError, Problem, printable
from policy.lint.files import FileResult, judged, policy_file
from policy.lint.findings import Fix, Severity
from policy.lint.fixing import with_fixes
from policy.lint.inputs import UnknownInputError, is_pattern, named_files
from policy.lint.registry import all_rules, rules_by_word
from policy.lint.report import FORMATS, STANDARD_INPUT, Report, obeyed_by_none
from policy.lint.rule_texts import rule_facts, rule_text
from policy.lint.run import LintRun, judged_paths, linted
from policy.lint.subjects import EnvironmentSubject, SetChange, Setup
from policy.settings import MAX_DOCUMENT_BYTES
from policy.trusted_files import read_trusted, replace_file, write_new_file

EXIT_FINDINGS = 1
EXIT_UNREADABLE = 2
DEFAULT_FORMAT = "text"
REPORT_MODE = 0o644
_STDIN = "-"
_TOLD_FROM = 500
"""Files from which on progress is shown: fewer take less than two seconds."""


def _complete_rule(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    return [
        CompletionItem(rule.id, help=rule.name)
        for rule in all_rules()
        if rule.id.startswith(begun.upper()) or rule.name.startswith(begun.lower())
    ]


def _explain(context: click.Context, _parameter: click.Parameter, word: str | None) -> None:
    if word is None:
        return
    rule = rules_by_word().get(word.upper()) or rules_by_word().get(word.lower())
    if rule is None:
        known = f"{all_rules()[0].id} to {all_rules()[-1].id}"
        raise click.BadParameter(f"there is no rule {word!r}; known are {known}, and their names: policy lint --rules")
    click.echo(rule_text(rule))
    context.exit()


def _list_rules(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    for rule in all_rules():
        click.echo(f"{rule.id}  {rule.severity.value:<8} {rule.name:<33} {rule.summary}")
    context.exit()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the command line asks for, beyond the set-up."""

    names: tuple[str, ...]
    """Files, as they are told."""
    patterns: tuple[str, ...]
    """Those by which some of them were named."""
    base: str | None
    """What they are held against."""
    format_name: str
    """How findings are written."""
    output: Path | None
    """Where; `None` for the standard output."""
    fail_level: Severity
    """What makes the exit code 1."""
    fix: bool
    """Whether to mend."""
    standard_input: bytes
    """What was read there; empty where it was not named."""


@click.command("lint")
@click.option("--env-file", type=READABLE_FILE, help="Look at this file of NAME=VALUE lines too.")
@click.option("--env", "from_process", is_flag=True, help="Look at the SANDBOX_* variables of this process too.")
@click.option("--base", metavar="REV|FILE", help="Tell what is looser than in this git revision, file or folder.")
@click.option("--key", "key_paths", type=READABLE_FILE, multiple=True, help="Public key that signs; may be repeated.")
@click.option("--threshold", type=click.IntRange(min=1), help="How many keys must have signed.  [default: 1]")
@click.option("--host", "this_host", is_flag=True, help="Tell what this host cannot enforce.")
@click.option("--host-facts", type=READABLE_FILE, help="Tell what the host of this `sandbox doctor --json` cannot.")
@click.option("--profile", type=click.Choice(("production",)), help="Look more closely; fewer comments count.")
@click.option(
    "--format", "format_name", type=click.Choice(tuple(FORMATS)), default=DEFAULT_FORMAT, show_default=True,
    help="How to write the findings.",
)  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="File for them, replaced whole.")
@click.option(
    "--fail-level", type=click.Choice([severity.value for severity in Severity]), default=Severity.ERROR.value,
    show_default=True, help="Exit with 1 for findings of this severity or worse.",
)  # fmt: skip
@click.option("--fix", is_flag=True, help="Mend what can be mended safely; refuses signed files.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--explain", metavar="RULE", callback=_explain, is_eager=True, expose_value=False, shell_complete=_complete_rule,
    help="Explain a rule, by id or name, and exit.",
)  # fmt: skip
@click.option(
    "--rules", is_flag=True, callback=_list_rules, is_eager=True, expose_value=False, help="List all rules and exit."
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=str), metavar="[PATH]...")
def lint_command(  # noqa: PLR0913 -- one for each option
    *,
    env_file: Path | None,
    from_process: bool,
    base: str | None,
    key_paths: tuple[Path, ...],
    threshold: int | None,
    this_host: bool,
    host_facts: Path | None,
    profile: str | None,
    format_name: str,
    output: Path | None,
    fail_level: str,
    fix: bool,
    as_json: bool,
    paths: tuple[str, ...],
) -> None:
    """Review policy files: what is wrong, has no effect, opens too much, or will be refused.

    PATH is a policy file, a folder (its *.toml, as an instance loads it), a quoted pattern, or - for the standard
    input. Files of one folder are judged together too, as one set.

    \b
    A comment takes a finding out for a while, at the end of its line or alone
    above it:
      # policy: ignore[SBP207] reason="GPU tests" until=2027-01-31

    \b
    Examples:
      policy lint prod.toml
      policy lint --profile production --key ops.pub --env-file prod.env policies/
      policy lint --base origin/main --format github 'policies/**/*.toml'
      policy lint --format sarif --output lint.sarif policies/
      policy lint --fix prod.toml
      policy lint --explain SBP101

    \b
    Exit codes: 0 nothing at --fail-level or worse, 1 findings, 2 wrong usage
    or unreadable input, 70 our own failure.
    """
    if not paths and not from_process and env_file is None:
        raise click.UsageError("name policy files, folders or - for the standard input, or --env, or --env-file FILE")
    if host_facts is not None and this_host:
        raise click.UsageError("--host and --host-facts exclude each other")
    if env_file is not None and from_process:
        raise click.UsageError("--env and --env-file exclude each other")
    setup = Setup(
        now=datetime.now(UTC),
        production=profile == "production",
        environment=_environment(env_file, from_process=from_process),
        compares=base is not None,
        unenforceable=_unenforceable(host_facts, this_host=this_host),
    )
    setup = _with_keys(setup, key_paths, threshold)
    names = _named(paths)
    asked = _Asked(
        names=names,
        patterns=tuple(filter(is_pattern, paths)),
        base=base,
        format_name="json" if as_json else format_name,
        output=output,
        fail_level=Severity(fail_level),
        fix=fix,
        standard_input=_standard_input() if STANDARD_INPUT in names else b"",
    )
    with _garbage_kept():
        sys.exit(_run(asked, setup))


def _named(paths: Sequence[str]) -> tuple[str, ...]:
    """Every file that was named, as it is told.

    Raises:
        click.UsageError: a name is of nothing.
    """
    with _input_border():
        names = named_files(paths)
    return tuple(STANDARD_INPUT if name == _STDIN else name for name in names)


def _environment(env_file: Path | None, *, from_process: bool) -> EnvironmentSubject | None:
    """The variables to look at.

    Raises:
        click.BadParameter: the file cannot be read.
    """
    if env_file is None and not from_process:
        return None
    from policy.lint.environments import environment_of_process, environment_of_text  # noqa: PLC0415 -- loads pydantic

    if env_file is None:
        return environment_of_process(os.environ)
    with env_file_border():
        return environment_of_text(str(env_file), read_trusted(env_file, ENV_FILE))


def _run(asked: _Asked, setup: Setup) -> int:
    """Lint, mend where that was asked for, and tell: the exit code."""
    results = _results(asked, setup)
    fixed = 0
    while True:
        found = linted(results, _changes(asked), setup)
        applied = _mend(found, results) if asked.fix else 0
        if not applied:
            break
        fixed += applied
        results = _results(asked, setup)
    _tell(found, asked, fixed)
    for problem in found.unreadable:
        click.echo(obeyed_by_none(f"error: {problem}"), err=True)
    if found.unreadable:
        return EXIT_UNREADABLE
    counting = (finding for finding in found.findings if finding.suppressed is None)
    return EXIT_FINDINGS if any(finding.severity.reaches(asked.fail_level) for finding in counting) else 0


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Where nobody looks for garbage: what a run makes lives as long as it, and looking takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _standard_input() -> bytes:
    return sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)


def _results(asked: _Asked, setup: Setup) -> list[FileResult]:
    """What came of each file by itself, the standard input last."""
    files = [name for name in asked.names if name != STANDARD_INPUT]
    with _progress(len(files)) as told:
        results = judged_paths(files, setup, told)
    if STANDARD_INPUT in asked.names:
        results.append(judged(policy_file(STANDARD_INPUT, None, asked.standard_input), setup))
    return results


@contextmanager
def _progress(files: int) -> Iterator[Callable[[int], None]]:
    """Something that is told how many files are done, and shows it where that takes long and somebody looks."""
    if files < _TOLD_FROM or not sys.stderr.isatty():
        yield lambda _done: None
        return
    with click.progressbar(length=files, label="Reading policies", file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)


def _mend(found: LintRun, results: Sequence[FileResult]) -> int:
    """Apply what can be mended, file by file, each whole or not at all; the number of fixes.

    Raises:
        click.UsageError: a file to mend is signed, or was not read from a file.
    """
    fixes: dict[str, list[Fix]] = {}
    for finding in found.findings:
        if finding.fix and not finding.suppressed:
            fixes.setdefault(finding.location.file, []).append(finding.fix)
    to_mend = [result for result in results if result.name in fixes]
    for result in to_mend:  # before the first one is written
        _refuse_to_mend(result)
    applied = 0
    for result in to_mend:
        text, count = with_fixes(result.text, fixes[result.name])
        replace_file(Path(result.name), text.encode())
        applied += count
    return applied


def _refuse_to_mend(result: FileResult) -> None:
    """Stop before a file that --fix must leave as it is.

    Raises:
        click.UsageError: it is signed, or was not read from a file.
    """
    if result.name == STANDARD_INPUT:
        raise click.UsageError("--fix writes files, and cannot mend the standard input")
    if result.signed:
        reason = f"{result.name} is signed, and --fix would break its signatures; mend it, then sign it again"
        raise click.UsageError(obeyed_by_none(printable(reason)))


def _tell(found: LintRun, asked: _Asked, fixed: int) -> None:
    """Write the findings to where they were asked for."""
    report = Report(
        findings=found.findings,
        rules=tuple(map(rule_facts, all_rules())),
        files=found.files,
        tool_version=_version() if asked.format_name != DEFAULT_FORMAT else "",
        fixed=fixed,
        complete=not found.unreadable,
        folder=str(Path.cwd()),
    )
    text = FORMATS[asked.format_name].written(report, colour=_colour(asked.format_name, asked.output))
    if asked.output is None:
        click.echo(text, nl=False, color=True)
    else:
        _write_report(asked.output, text.encode())


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 -- a fifth of the start, and people are not told

    return version("sandbox-lockdown")


def _write_report(path: Path, data: bytes) -> None:
    """Make the file, or put new bytes in its place, at once.

    Raises:
        UnreadableInputError: it cannot be written.
    """
    try:
        if path.is_symlink():
            raise DocumentError((_link_problem(path),))
        if path.exists():
            replace_file(path, data)
        else:
            write_new_file(path, data, REPORT_MODE)
    except PolicyError as error:
        raise UnreadableInputError(error) from error


def _link_problem(path: Path) -> Problem:
    """What is refused of a report: in a folder under review, a link could lead it over any file of the reviewer's."""
    reason = "it is a symbolic link, and what it leads to is not overwritten"
    return Problem(key="report", origin=str(path), reason=reason, remedy="Name a regular file, or remove the link")


def _colour(format_name: str, output: Path | None) -> bool:
    """Whether to use colour: for people who look, unless NO_COLOR says no or FORCE_COLOR yes."""
    if format_name != DEFAULT_FORMAT or output is not None or os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def _changes(asked: _Asked) -> Sequence[SetChange]:
    """What changed since the base.

    Raises:
        click.UsageError: there is no such base, or it cannot be read.
    """
    if asked.base is None:
        return ()
    from policy.lint.base import changes  # noqa: PLC0415 -- compares exactly, which takes a while to load

    given = policy_file(STANDARD_INPUT, None, asked.standard_input) if STANDARD_INPUT in asked.names else None
    named = tuple(_STDIN if name == STANDARD_INPUT else name for name in asked.names)
    with _input_border():
        return changes(asked.base, named, given, asked.patterns)


@contextmanager
def _input_border() -> Iterator[None]:
    """Where what an option names is not there, that is wrong usage.

    Raises:
        click.UsageError: it is not there.
    """
    try:
        yield
    except UnknownInputError as error:
        raise click.UsageError(obeyed_by_none(printable(str(error)))) from error


def _with_keys(setup: Setup, paths: tuple[Path, ...], threshold: int | None) -> Setup:
    """The set-up with the keys that are to have signed.

    Raises:
        click.UsageError: a threshold without keys.
        UnreadableInputError: a file cannot be read, or holds no public keys.
    """
    if not paths:
        if threshold is not None:
            raise click.UsageError("--threshold says how many of the keys of --key must have signed; name them")
        return setup
    from policy.lint.keys import reviewed_keys  # noqa: PLC0415 -- loads cryptography

    try:
        found = reviewed_keys(paths)
    except PolicyError as error:
        raise UnreadableInputError(error) from error
    return replace(setup, keys=found.keys, named_keys=found.named, threshold=threshold or 1)


def _unenforceable(facts: Path | None, *, this_host: bool) -> Mapping[str, str] | None:
    """By limit, why the host cannot enforce it.

    Raises:
        click.UsageError: nothing is said of the host.
    """
    if facts is None and not this_host:
        return None
    from policy.lint import host  # noqa: PLC0415 -- loads subprocess

    if facts is None:
        click.echo("Trying each limit in a box on this host (some ten seconds)…", err=True)
    with _input_border():
        return host.unenforceable(host.this_host() if facts is None else host.facts_there(facts))
