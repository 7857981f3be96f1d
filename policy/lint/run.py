"""One run of the linter: every file alone, then sets, changes and variables, then the comments that take findings out.

Files are independent of each other, so many of them are judged by several processes; nothing else is worth one.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import PurePath

from policy.errors import MOST_LISTED, Problem
from policy.lint.files import FileResult, finding_of, flaws_found, judged, judged_path, policy_file, rules_of
from policy.lint.findings import Finding, Found, Location, Severity
from policy.lint.inputs import files_beside
from policy.lint.rule import ChangeRule, EnvironmentRule, KeyRule, Rule, SetRule, SuppressionRule
from policy.lint.subjects import EnvironmentSubject, PolicySet, SetChange, Setup, Suppression
from policy.lint.suppressions import suppressions, weighed

_WORTH_PROCESSES = 200
"""Files from which on processes of their own pay for being started."""
_CHUNKS_EACH = 4
"""Parts of the work that each process gets: few, since each is handed over whole; several, since some take longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LintRun:
    """What came of a run."""

    findings: tuple[Finding, ...]
    """Everything found, those taken out included; by file, place and rule."""
    files: tuple[str, ...]
    """What was looked at, in the order given."""
    unreadable: tuple[Problem, ...]
    """What could not be read."""


def judged_paths(names: Sequence[str], setup: Setup, told: Callable[[int], None]) -> list[FileResult]:
    """Judge each file by itself.

    Args:
        names: the files.
        setup: what the run was told.
        told: called with the number of files done so far.
    """
    workers = min(os.cpu_count() or 1, len(names) // (_WORTH_PROCESSES // 2))
    if workers < 2:  # noqa: PLR2004 -- one process is what we are
        return list(_counted(map(partial(judged_path, setup=setup), names), told))
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 -- loaded by those who have many files
    from multiprocessing import get_context  # noqa: PLC0415

    # Forked, since what is loaded here need not be loaded there; this process has no threads.
    chunk = len(names) // (workers * _CHUNKS_EACH) + 1
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        return list(_counted(pool.map(partial(judged_path, setup=setup), names, chunksize=chunk), told))


def _counted(results: Iterable[FileResult], told: Callable[[int], None]) -> Iterator[FileResult]:
    for number, result in enumerate(results, 1):
        told(number)
        yield result


def linted(results: Sequence[FileResult], changes: Sequence[SetChange], setup: Setup) -> LintRun:
    """Everything that is wrong with files, sets, changes and variables.

    Args:
        results: what came of each file by itself.
        changes: what `--base` shows, by folder.
        setup: what the run was told.
    """
    texts = {result.name: result.text for result in results}
    sets = policy_sets(results)
    comments = list(_comments(results, sets, setup.environment))
    if setup.environment:
        texts[setup.environment.name] = setup.environment.shown_text
    findings = [finding for result in results for finding in result.findings]
    findings += _beyond_files(sets, changes, setup, texts)
    after = weighed(findings, comments, setup)
    findings = [*after.findings, *_of_comments(after.suppressions, setup, texts)]
    return LintRun(
        findings=tuple(sorted(_told(sorted(findings, key=_place)), key=_place)),
        files=(*(result.name for result in results), *_env_files(setup.environment)),
        unreadable=tuple(problem for result in results for problem in result.unreadable),
    )


def _env_files(environment: EnvironmentSubject | None) -> Iterator[str]:
    """The file of variables that was looked at too, if there was one."""
    if environment and environment.text:
        yield environment.name


def _told(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, but of each rule only so many in one file that nobody can fill a report with them."""
    told: Counter[tuple[str, str]] = Counter()
    first_left_out: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        key = (finding.location.file, finding.rule_id)
        told[key] += 1
        if told[key] <= MOST_LISTED or finding.suppressed:
            yield finding
        else:
            first_left_out.setdefault(key, finding)
    for key, finding in first_left_out.items():
        yield replace(finding, message=f"{told[key] - MOST_LISTED} more of these begin here", fix=None, related=())


def errors_in(name: str, untrusted: bytes, now: datetime) -> tuple[Problem, ...]:
    """What must be mended before a file is signed: its findings of the worst severity that no comment takes out."""
    setup = Setup(now=now)
    found = linted([judged(policy_file(name, None, untrusted), setup)], (), setup)
    return tuple(
        Problem(
            key=f"{finding.rule_id} {finding.rule_name}",
            origin=f"{name}:{finding.location.line}",
            reason=finding.message,
            remedy=finding.remedy,
        )
        for finding in found.findings
        if finding.severity is Severity.ERROR and finding.suppressed is None
    )


def policy_sets(results: Iterable[FileResult]) -> tuple[PolicySet, ...]:
    """The valid policy files, by folder."""
    folders: dict[str, list[FileResult]] = {}
    for result in results:
        folders.setdefault(result.folder, []).append(result)
    return tuple(
        PolicySet(
            folder=folder,
            files=tuple(result.facts for result in found if result.facts),
            complete=_is_complete(folder, found),
        )
        for folder, found in folders.items()
        if any(result.facts for result in found)
    )


def _is_complete(folder: str, results: Sequence[FileResult]) -> bool:
    """Whether all policy files of a folder were looked at and are valid; the standard input is a set by itself."""
    if not all(result.facts for result in results):
        return False
    return not folder or files_beside(folder) <= {PurePath(result.name).name for result in results}


def _comments(
    results: Iterable[FileResult], sets: Iterable[PolicySet], environment: EnvironmentSubject | None
) -> Iterator[Suppression]:
    """Every comment that takes findings out, and whether all that it may be about was looked at."""
    complete = {policy_set.folder for policy_set in sets if policy_set.complete}
    for result in results:
        for comment in result.suppressions:
            yield replace(comment, settled=result.folder in complete)
    if environment:
        for comment in suppressions(environment.name, environment.text):
            yield replace(comment, settled=environment.layer is not None)


def _beyond_files(
    sets: tuple[PolicySet, ...], changes: Sequence[SetChange], setup: Setup, texts: Mapping[str, str]
) -> Iterator[Finding]:
    found: list[tuple[Rule, Found]] = []
    for set_rule in rules_of(SetRule, setup):
        found += [(set_rule, each) for policy_set in sets for each in set_rule.check(policy_set, setup)]
    for change_rule in rules_of(ChangeRule, setup):
        found += [(change_rule, each) for change in changes for each in change_rule.check(change, setup)]
    for key_rule in rules_of(KeyRule, setup):
        found += [(key_rule, each) for each in key_rule.check(setup.named_keys, setup)]
    if setup.environment:
        found += _of_environment(setup.environment, sets, setup)
    for rule, each in found:
        yield _located(rule, each, setup, texts)


def _of_environment(
    environment: EnvironmentSubject, sets: tuple[PolicySet, ...], setup: Setup
) -> Iterator[tuple[Rule, Found]]:
    yield from flaws_found(environment.problems, environment.problem_location)
    for rule in rules_of(EnvironmentRule, setup):
        for found in rule.check(environment, sets, setup):
            yield rule, found


def _of_comments(found: Iterable[Suppression], setup: Setup, texts: Mapping[str, str]) -> Iterator[Finding]:
    for rule in rules_of(SuppressionRule, setup):
        for comment in found:
            for said in rule.check(comment, setup):
                yield _located(rule, said, setup, texts)


def _located(rule: Rule, found: Found, setup: Setup, texts: Mapping[str, str]) -> Finding:
    location = found.location or Location(file="")
    if setup.environment and location.file == setup.environment.name:
        found = replace(found, fix=None)  # --fix mends policy files
    return finding_of(rule, found, location, setup, texts.get(location.file, ""))


def _place(finding: Finding) -> tuple[str, int, int, int, str, str]:
    """What findings are sorted by: where they stand, and in one place the worst first."""
    where, rank = finding.location, list(Severity).index(finding.severity)
    return (where.file, where.line, where.column, rank, finding.rule_id, finding.message)
