"""Turns one file's bytes into what rules look at, and judges it alone: the part that runs in many processes at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

from policy.document import DocumentReading, read_document
from policy.errors import Flaw, PolicyError, Problem
from policy.limits import NETWORK_ALLOWLIST
from policy.lint.findings import Finding, Found, Location
from policy.lint.registry import all_rules, rules_by_flaw
from policy.lint.rule import DocumentRule, Rule, TextRule
from policy.lint.spans import key_span
from policy.lint.subjects import FactList, FactRow, FileFacts, Need, Place, PolicyFile, Setup, Suppression
from policy.lint.suppressions import suppressions
from policy.positions import KeyPath
from policy.signature_block import BEGIN_MARKER, SplitDocument, split_signatures, text_source
from policy.trusted_files import SIGNED_POLICY_FILE, read_to_review

R = TypeVar("R", bound=Rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """What came of one file."""

    name: str
    """As it was named."""
    folder: str = ""
    """Where it lies; empty for the standard input."""
    findings: tuple[Finding, ...] = ()
    """What is wrong with it by itself."""
    suppressions: tuple[Suppression, ...] = ()
    """Its comments that take findings out."""
    facts: FileFacts | None = None
    """What it says, for its set; `None` where it is no valid policy."""
    text: str = ""
    """Its text, for excerpts and fixes."""
    signed: bool = False
    """Whether it holds a signature block, or what is left of one."""
    unreadable: tuple[Problem, ...] = ()
    """Why it could not be read; empty where it could."""


def judged_path(name: str, setup: Setup) -> FileResult:
    """Read and judge the file of that name."""
    return judged(file_at(name), setup)


def file_at(name: str) -> PolicyFile:
    """What rules look at, of the file of that name; where it cannot be read, that is its flaw."""
    path = Path(name)
    try:
        untrusted = read_to_review(path, SIGNED_POLICY_FILE)
    except PolicyError as error:
        flaws = tuple(replace(each, flaw=each.flaw or Flaw.UNREADABLE_FILE) for each in error.problems)
        return PolicyFile(name=name, path=path, untrusted=b"", text="", flaws=flaws)
    return policy_file(name, path, untrusted)


def policy_file(name: str, path: Path | None, untrusted: bytes) -> PolicyFile:
    """What rules look at, out of a file's bytes."""
    try:
        split = split_signatures(untrusted, origin=name)
        reading = read_document(text_source(name, split))
    except PolicyError as error:
        return PolicyFile(
            name=name, path=path, untrusted=untrusted, text=_readable_text(untrusted), flaws=error.problems
        )
    return _valid_file(name, path, untrusted, split, reading)


def _valid_file(
    name: str, path: Path | None, untrusted: bytes, split: SplitDocument, reading: DocumentReading
) -> PolicyFile:
    return PolicyFile(
        name=name,
        path=path,
        untrusted=untrusted,
        text=split.text.decode("utf-8"),
        reading=reading,
        signatures=split.signatures,
    )


def _readable_text(untrusted: bytes) -> str:
    """The text of a file that may be none, as far as an excerpt goes."""
    return untrusted.decode("utf-8", errors="replace")


def judged(file: PolicyFile, setup: Setup) -> FileResult:
    """Everything that is wrong with one file by itself."""
    findings = [
        finding_of(rule, found, file_location(file, found), setup, file.text) for rule, found in _found(file, setup)
    ]
    comments = suppressions(file.name, file.text)
    return FileResult(
        name=file.name,
        folder=_folder(file),
        findings=tuple(findings),
        suppressions=comments,
        facts=_facts(file) if file.reading else None,
        text=file.text,
        signed=BEGIN_MARKER in file.untrusted,
        unreadable=tuple(problem for problem in file.flaws if problem.flaw is Flaw.UNREADABLE_FILE),
    )


def _found(file: PolicyFile, setup: Setup) -> Iterator[tuple[Rule, Found]]:
    if file.flaws:
        yield from flaws_found(file.flaws, lambda problem: _flaw_location(file, problem), file)
    for text_rule in rules_of(TextRule, setup):
        for found in text_rule.check(file, setup):
            yield text_rule, found
    if file.reading:
        for rule in rules_of(DocumentRule, setup):
            for found in rule.check(file, setup):
                yield rule, found


def rules_of(kind: type[R], setup: Setup) -> Sequence[R]:
    """The rules of one class that can look with what the run was given."""
    met = frozenset(need for need in Need if setup.meets(need))
    return [rule for rule in _rules_by_class(met).get(kind, ()) if isinstance(rule, kind)]


@cache
def _rules_by_class(met: frozenset[Need]) -> Mapping[type[Rule], tuple[Rule, ...]]:
    can_look = [rule for rule in all_rules() if rule.needs is None or rule.needs in met]
    return {kind: tuple(rule for rule in can_look if type(rule) is kind) for kind in set(map(type, can_look))}


def flaws_found(
    problems: Sequence[Problem], location_of: Callable[[Problem], Location], file: PolicyFile | None = None
) -> Iterator[tuple[Rule, Found]]:
    """What readers refuse, each under the rule of its kind."""
    for problem in problems:
        if problem.flaw is None:
            continue
        rule = rules_by_flaw()[problem.flaw]
        found = Found(
            path=problem.path, message=_message(problem), remedy=problem.remedy, location=location_of(problem)
        )
        yield rule, rule.fixed(file, found) if rule.fixed and file else found


def _message(problem: Problem) -> str:
    return f"{problem.key}: {problem.reason}"


def _flaw_location(file: PolicyFile, problem: Problem) -> Location:
    position = problem.position
    key = problem.key if problem.path else ""
    if position is None:
        return Location(file=file.name, key=key)
    length = _flaw_length(file, problem)
    return Location(
        file=file.name,
        line=position.line,
        column=position.column,
        end_column=position.column + length,
        key=key,
    )


def _flaw_length(file: PolicyFile, problem: Problem) -> int:
    """How many characters to underline: the key or item, where it is the one that its path finds first."""
    located = file.located if problem.path else None
    if located is None:
        return 1
    span = key_span(file.text, located, problem.path)
    if span and located.find(problem.path) == problem.position:
        return max(1, span.end - span.start)
    return max(1, len(str(problem.path[-1])))


def file_location(file: PolicyFile, found: Found) -> Location:
    """Where something stands that a rule found in a file."""
    if found.location is not None:
        return found.location
    return file.location(found.path) if found.path and file.reading else Location(file=file.name)


def finding_of(rule: Rule, found: Found, location: Location, setup: Setup, text: str) -> Finding:
    """A finding, with the line of the text where it stands."""
    return Finding(
        rule_id=rule.id,
        rule_name=rule.name,
        severity=found.severity or rule.severity_in(setup),
        location=location,
        message=found.message,
        remedy=found.remedy,
        related=found.related,
        fix=found.fix,
        excerpt=_line(text, location.line),
    )


def _line(text: str, number: int) -> str:
    lines = _lines(text)
    return lines[number - 1].removesuffix("\r") if number <= len(lines) else ""


@lru_cache(maxsize=4)
def _lines(text: str) -> Sequence[str]:
    return text.split("\n")


def _facts(file: PolicyFile) -> FileFacts:
    document = file.document
    return FileFacts(
        name=file.name,
        folder=_folder(file),
        policy_id=document.policy_id,
        id_place=file.place(("id",)),
        serial=document.serial,
        signed=bool(file.signatures),
        audience=document.audience,
        audience_place=file.place(("audience",)),
        requires=_named_ids(file, "requires", document.requires),
        retires=_named_ids(file, "retires", document.retires),
        rows=tuple(_fact_rows(file)),
        lists=tuple(_fact_lists(file)),
        line_starts=file.positions.line_starts,
    )


def _fact_rows(file: PolicyFile) -> Iterator[FactRow]:
    offset = file.positions.offset
    for placed in file.everywhere:
        said, path = placed.stated, placed.path
        yield said.limit.name, said.verb, said.value, said.environment_may_loosen, path, offset(path) or 0


def _fact_lists(file: PolicyFile) -> Iterator[FactList]:
    if NETWORK_ALLOWLIST.name not in file.text:
        return
    for placed in file.statements:
        if placed.limit.name == NETWORK_ALLOWLIST.name:
            said, path = placed.stated, placed.path
            items: Sequence[str] = file.untrusted_at(path)
            yield FactList(
                verb=said.verb,
                value=said.value,
                environment_may_loosen=said.environment_may_loosen,
                scoped=placed.scope is not None,
                path=path,
                offset=file.positions.offset(path) or 0,
                untrusted_items=tuple(items),
                spans=tuple(_span(file, (*path, number)) for number in range(len(items))),
            )


def _span(file: PolicyFile, path: KeyPath) -> tuple[int, int]:
    span = key_span(file.text, file.positions, path)
    return (span.start, span.end - span.start) if span else (file.positions.offset(path) or 0, 0)


def _folder(file: PolicyFile) -> str:
    return str(file.path.parent) if file.path else ""


def _named_ids(file: PolicyFile, key: str, ids: Sequence[str]) -> tuple[tuple[str, Place], ...]:
    return tuple((name, file.place((key, number))) for number, name in enumerate(ids))
