"""The files that somebody named: files, folders as an instance loads them, patterns, the standard input."""

import glob
import os
from collections.abc import Iterator, Sequence

from policy.trusted_files import POLICY_SUFFIXES

STANDARD_INPUT = "-"


class UnknownInputError(Exception):
    """Something that was named is not there."""


def named_files(names: Sequence[str]) -> tuple[str, ...]:
    """Every file that was named, once, in the order given; those of a folder or pattern by name.

    Raises:
        UnknownInputError: a name is of nothing, or a folder or pattern holds no policy file.
    """
    return tuple(dict.fromkeys(file for name in names for file in _files(name)))


def _files(name: str) -> Iterator[str]:
    if name == STANDARD_INPUT:
        yield name
    elif os.path.isdir(name):  # noqa: PTH112 -- unlike Path.is_dir, no where it may not look
        yield from _of_folder(name)
    elif os.path.lexists(name):  # what it is shows when it is read
        yield name
    elif glob.has_magic(name):
        yield from _of_pattern(name)
    else:
        raise UnknownInputError(f"{name}: there is no such file or folder")


def _of_folder(name: str) -> Iterator[str]:
    try:
        with os.scandir(name) as entries:
            found = sorted(entry.name for entry in entries if is_policy_name(entry.name))
    except OSError as error:
        raise UnknownInputError(f"{name}: the folder cannot be listed: {error.strerror}") from error
    if not found:
        remedy = "files below it are named by a pattern, such as 'policies/**/*.toml'"
        raise UnknownInputError(f"{name}: the folder holds no *.toml; {remedy}")
    for each in found:
        yield os.path.join(name, each)  # noqa: PTH118 -- a path as it was named, not as Path would spell it


def files_beside(folder: str) -> frozenset[str]:
    """The names of all policy files of a folder; none where it cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(entry.name for entry in entries if is_policy_name(entry.name))
    except OSError:
        return frozenset()


def is_policy_name(name: str) -> bool:
    """Whether a file of that name in a folder is read as a policy."""
    return name.lower().endswith(POLICY_SUFFIXES) and not name.startswith(".")


def _of_pattern(name: str) -> Iterator[str]:
    found = sorted(each for each in glob.glob(name, recursive=True) if os.path.isfile(each))  # noqa: PTH113, PTH207
    if not found:
        raise UnknownInputError(f"{name}: no file has a name like that")
    yield from found
