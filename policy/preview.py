"""Policy files as somebody reviews them: unsigned if need be, and read even where an instance would refuse them.

What is read here decides nothing: it is explained, compared or tested, and never handed to a sandbox.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from policy.document import DocumentSource, PolicyDocument, parse_document
from policy.environment import EnvironmentLayer
from policy.errors import PolicyError, Problem, SetRefusedError, SignatureError
from policy.load import read_keys, trusted_reader
from policy.refusals import RefusalCode, set_refusals
from policy.settings import POLICY_THRESHOLD, SettingValues
from policy.signature_block import unsigned_source
from policy.signatures import policy_source
from policy.trusted_files import POLICY_SUFFIXES, SIGNED_POLICY_FILE, read_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Policy files, and what would keep them from being an instance's set."""

    documents: tuple[PolicyDocument, ...]
    """As they were read, in the order given."""
    warnings: tuple[str, ...]
    """Why an instance would refuse them, one sentence each."""


def previewed(paths: Sequence[Path], environment: EnvironmentLayer, now: datetime) -> Preview:
    """These files and folders as if they were the policy set of an instance with this environment.

    Raises:
        PolicyError: a file is no policy, or cannot be read; every problem of every file is listed.
    """
    warnings: list[str] = []
    try:
        keys = read_keys(environment.settings, trusted_reader())
    except SetRefusedError as error:
        keys = ()
        warnings.extend(f"no signature was checked [{error.code}]: {problem}" for problem in error.problems)

    def source_of(name: str, untrusted: bytes) -> DocumentSource:
        try:
            return policy_source(name, untrusted, keys, environment.settings[POLICY_THRESHOLD])
        except SignatureError as error:
            warnings.extend(f"would be refused here [signature-invalid]: {problem}" for problem in error.problems)
            return unsigned_source(name, untrusted)

    documents = _all_read(paths, source_of)
    refusals = set_refusals(documents, environment.settings, now)
    warnings.extend(f"would be refused here [{code.code}]: {problem}" for code, problem in refusals)
    return Preview(documents=documents, warnings=tuple(warnings))


def unsigned_set(paths: Sequence[Path], now: datetime) -> tuple[PolicyDocument, ...]:
    """These files and folders as one set whose signatures, dates and audience count for nothing.

    Raises:
        PolicyError: a file is no policy or cannot be read, or two of them contradict each other.
    """
    documents = _all_read(paths, unsigned_source)
    refusals = set_refusals(documents, SettingValues({}), now)
    problems = tuple(problem for code, problem in refusals if code is RefusalCode.SET_INVALID)
    if problems:
        raise PolicyError(problems)
    return documents


def _all_read(paths: Sequence[Path], source_of: Callable[[str, bytes], DocumentSource]) -> tuple[PolicyDocument, ...]:
    documents: list[PolicyDocument] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            contents = read_files(path, POLICY_SUFFIXES, SIGNED_POLICY_FILE)
        except PolicyError as error:
            problems.extend(error.problems)
            continue
        for name, untrusted in contents.items():
            try:
                documents.append(parse_document(source_of(name, untrusted)))
            except PolicyError as error:
                problems.extend(error.problems)
    if problems:
        raise PolicyError(tuple(problems))
    return tuple(documents)
