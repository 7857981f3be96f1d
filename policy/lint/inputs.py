"""The files that somebody named: files, folders as an instance loads them, patterns, the standard input."""

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from policy.trusted_files import POLICY_SUFFIXES

STANDARD_INPUT = "-"
_TREE = "/**/"
"""In a pattern: a folder and all below it."""


class UnknownInputError(Exception):
    """Something that was named is not there."""


def named_files(names: Sequence[str]) -> tuple[str, ...]:
    """Every file that was named, once, in the order given; those of a folder or pattern by name.

    A folder that is named in two ways is one folder: its files are a set, and none is there twice. Two files of which
    one is a link to the other are two, as they are for a server.

    Raises:
        UnknownInputError: a name is of nothing, or a folder or pattern holds no policy file.
    """
    spelt: dict[str, str] = {}
    return tuple(dict.fromkeys(_spelt_as_before(file, spelt) for name in names for file in _files(name)))


def _spelt_as_before(name: str, spelt: dict[str, str]) -> str:
    """The name, with its folder as it was spelt first."""
    if name == STANDARD_INPUT:
        return name
    folder, slash, file = name.rpartition("/")
    folder += slash
    if folder not in spelt:
        real = os.path.realpath(folder)
        spelt[folder] = spelt.setdefault(f"\0{real}", folder)
    return f"{spelt[folder]}{file}"


def _files(name: str) -> Iterator[str]:
    if name == STANDARD_INPUT:
        yield name
    elif os.path.isdir(name):  # noqa: PTH112 -- unlike Path.is_dir, no where it may not look
        yield from _of_folder(name)
    elif os.path.lexists(name):  # what it is shows when it is read
        yield name
    elif is_pattern(name):
        yield from _of_pattern(name)
    else:
        raise UnknownInputError(f"{name}: there is no such file or folder")


def is_pattern(name: str) -> bool:
    """Whether it stands for all files with a name like that: it has such signs, and nothing is called so itself."""
    return glob.has_magic(name) and not os.path.lexists(name)


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
    found = sorted({each for each in _matches(name) if os.path.isfile(each)})  # noqa: PTH113
    if not found:
        raise UnknownInputError(f"{name}: no file has a name like that")
    yield from found


def with_files(pattern: str) -> str:
    """The same pattern; of one that ends in all folders below another, all files there."""
    return f"{pattern}/*" if f"/{pattern}".endswith(_TREE[:-1]) else pattern


def is_like(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path is one that a pattern stands for; both in parts, and the pattern `with_files`."""
    if not parts or not pattern:
        return not parts and not pattern
    shown = not parts[0].startswith(".")
    if pattern[0] == "**":
        return is_like(parts, pattern[1:]) or (shown and is_like(parts[1:], pattern))
    alike = fnmatchcase(parts[0], pattern[0]) and (shown or pattern[0].startswith("."))
    return alike and is_like(parts[1:], pattern[1:])


def _matches(pattern: str) -> Iterator[str]:
    """What has a name like that; unlike `glob`, of which two links in a circle make more paths than can be walked."""
    pattern = with_files(pattern)
    above, sign, below = pattern.partition(_TREE)
    if pattern.startswith(_TREE[1:]):
        above, sign, below = "", _TREE, pattern.removeprefix(_TREE[1:])
    if not sign:
        yield from glob.glob(pattern)  # noqa: PTH207 -- a path as it was named, not as Path would spell it
        return
    tops = glob.glob(f"{above}/") if above or pattern.startswith("/") else [""]  # noqa: PTH207
    for top in tops:
        for folder in _folders_below(top):
            yield from _matches(f"{glob.escape(folder)}{below}")


def _folders_below(top: str) -> Iterator[str]:
    """A folder and all below it that are not hidden, each with a slash: by its own name if it has one there.

    Links are followed after that, each folder once, and only to what lies below the folder where we are: a link to the
    root of the system is no reason to walk through all of it.
    """
    seen: set[str] = set()
    here = os.path.realpath("")
    waiting = [top]
    while waiting:
        links: list[str] = []
        for start in waiting:
            yield from _unlinked_folders(start, seen, links)
        waiting = [link for link in sorted(links) if os.path.realpath(link).startswith(f"{here}/")]


def _unlinked_folders(top: str, seen: set[str], links: list[str]) -> Iterator[str]:
    for place, names, _ in os.walk(top or "."):
        real = os.path.realpath(place)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        shown = [name for name in names if not name.startswith(".")]
        folder = f"{top}{os.path.relpath(place, top or '.')}/" if place != (top or ".") else top
        linked = {name for name in shown if os.path.islink(os.path.join(place, name))}  # noqa: PTH114, PTH118
        links += [f"{folder}{name}/" for name in linked]
        names[:] = [name for name in shown if name not in linked]
        yield folder
