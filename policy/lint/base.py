"""What `--base` holds files against: the same folder in a revision of git, or another file or folder.

A change is told of the files that are linted, and of those that are gone from their folder. What else lies in the
folder counts on both sides as it lies there now, so that files linted one by one are still judged as a set. Files are
matched by id, then by name.

Whoever wrote the change chose what lies in the folder. So a name that could mean a path or a revision is refused.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from policy.errors import PolicyError
from policy.lint.files import file_at, policy_file
from policy.lint.inputs import STANDARD_INPUT, UnknownInputError, files_beside, with_files
from policy.lint.revisions import RevisionTree, commit_of, files_of, folders_like, place_in_git
from policy.lint.subjects import FileChange, PolicyFile, SetChange
from policy.trusted_files import SIGNED_POLICY_FILE, read_to_review


def changes(
    base: str, files: Sequence[str], standard_input: PolicyFile | None = None, patterns: Iterable[str] = ()
) -> tuple[SetChange, ...]:
    """What changed since the base, for each folder of these files in which anything did.

    Args:
        base: a file or folder, or else a revision of git.
        files: files to lint, as they were named.
        standard_input: what was read from there, which only one file can be the past of; `None` where nothing was.
        patterns: those by which files were named; a revision may have files like that in folders that are gone.

    Raises:
        UnknownInputError: there is no such file, folder or revision, it cannot be read, or it is no past of the files.
    """
    folders: dict[str, list[str]] = {}
    for name in files:
        if name != STANDARD_INPUT:
            folders.setdefault(str(Path(name).parent), []).append(name)
    is_path = _is_path(base, folders)
    is_folder = is_path and os.path.isdir(base)  # noqa: PTH112 -- unlike Path.is_dir, no where it may not look
    if is_path and not is_folder:
        return tuple(filter(None, [_since_file(base, files, standard_input)]))
    if not folders:
        raise UnknownInputError(f"{base}: the standard input has no place there; name one file as --base")
    if is_folder:
        found: list[SetChange | None] = [_since_folder(base, folders)]
    else:
        found = [_since_revision(base, folder, names) for folder, names in folders.items()]
        found += _gone_folders(base, patterns, folders)
    return tuple(change for change in found if change)


def _is_path(base: str, folders: Iterable[str]) -> bool:
    """Whether the base is a file or folder.

    Raises:
        UnknownInputError: it could be a revision too, and a change could have brought the file to hide behind it.
    """
    if not os.path.lexists(base):
        return False
    if os.path.normpath(base) != base or base.startswith((".", "/")):  # no revision is written like that
        return True
    if any(_is_revision(base, folder) for folder in {"", *folders}):
        full = f"a revision in full, such as refs/heads/{base}"
        raise UnknownInputError(f"{base} is both a path here and a revision of git; write ./{base}, or {full}")
    return True


def _is_revision(base: str, folder: str) -> bool:
    try:
        return bool(commit_of(base, folder))
    except UnknownInputError:
        return False


def _since_file(base: str, names: Sequence[str], standard_input: PolicyFile | None) -> SetChange | None:
    if len(names) != 1:
        raise UnknownInputError(f"{base} is one file, and {len(names)} are linted; name a folder or a revision")
    (name,) = names
    old = policy_file(base, Path(base), _bytes_of(base))
    new = standard_input if standard_input and name == STANDARD_INPUT else file_at(name)
    pairs = [FileChange(old=old if old.reading else None, new=new)] if new.reading else []
    return _set_change(str(Path(name).parent), base, pairs, [old], [new])


def _since_folder(base: str, folders: Mapping[str, Sequence[str]]) -> SetChange | None:
    if len(folders) != 1:
        raise UnknownInputError(f"{base} is one folder, and files of {len(folders)} are linted; name a revision")
    ((folder, names),) = folders.items()
    places = [os.path.join(base, name) for name in sorted(files_beside(base))]  # noqa: PTH118 -- as named
    return _since(base, folder, names, [(place, _bytes_of(place)) for place in places])


def _since_revision(base: str, folder: str, names: Sequence[str]) -> SetChange | None:
    root, place = place_in_git(folder, base)
    tree = RevisionTree(root=root, commit=commit_of(base, root), place=place, base=base)
    past = [(os.path.join(folder, name), untrusted) for name, untrusted in files_of(tree)]  # noqa: PTH118 -- as named
    return _since(base, folder, names, past)


def _gone_folders(base: str, patterns: Iterable[str], linted: Iterable[str]) -> Iterator[SetChange]:
    """The folders of files like that which have none any more: what moved elsewhere is held against nothing there."""
    there = {os.path.realpath(folder) for folder in linted}
    for pattern in patterns:
        parts = with_files(os.path.normpath(pattern)).split("/")
        plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
        top = "/".join(parts[:plain]) or ("/" if pattern.startswith("/") else "")
        root, place = place_in_git(top, base)
        tree = RevisionTree(root=root, commit=commit_of(base, root), place=place, base=base)
        for below in sorted(set(folders_like(tree, parts[plain:]))):
            folder = os.path.normpath(os.path.join(top, below))  # noqa: PTH118 -- as named
            if os.path.realpath(folder) in there or files_beside(folder):
                continue
            there.add(os.path.realpath(folder))
            past = replace(tree, place=os.path.normpath(os.path.join(place, below)))  # noqa: PTH118 -- of git
            old = [policy_file(os.path.join(folder, name), None, data) for name, data in files_of(past)]  # noqa: PTH118
            pairs = [FileChange(old=file, new=None) for file in old if file.reading]
            change = _set_change(folder, base, pairs, old, [])
            if change:
                yield change


def _since(base: str, folder: str, names: Sequence[str], past: Sequence[tuple[str, bytes]]) -> SetChange | None:
    """What changed in a folder, in the company of all else that lies there now; the past by name, with its bytes."""
    linted = [file_at(name) for name in names]
    linted_names = {_base_name(file) for file in linted}
    beside = [file_at(os.path.join(folder, name)) for name in sorted(files_beside(folder) - linted_names)]  # noqa: PTH118
    unlinted_names = {_base_name(file) for file in beside}
    same = {(_base_name(file), file.untrusted): file for file in linted}  # most files are, and need no second reading
    old = [
        same.get((os.path.basename(name), untrusted)) or policy_file(name, Path(name), untrusted)  # noqa: PTH119
        for name, untrusted in past
    ]
    before = [file for file in old if _base_name(file) not in unlinted_names]
    unlinted_ids = {file.document.policy_id for file in beside if file.reading}
    pairs = [
        pair
        for pair in paired(before, linted)
        # Moved into a file that is not linted: it is not gone, and what became of it is not asked.
        if pair.new or (pair.old and pair.old.document.policy_id not in unlinted_ids)
    ]
    return _set_change(folder, base, pairs, [*before, *beside], [*linted, *beside])


def _set_change(
    folder: str, base: str, pairs: Iterable[FileChange], old: Sequence[PolicyFile], new: Sequence[PolicyFile]
) -> SetChange | None:
    changed = tuple(pair for pair in pairs if not pair.old or not pair.new or pair.old.text != pair.new.text)
    if not changed:
        return None
    return SetChange(
        folder=folder,
        base=base,
        changes=changed,
        old=tuple(file for file in old if file.reading),
        new=tuple(file for file in new if file.reading),
        comparable=all(file.reading for file in (*old, *new)),
        doubtful=tuple(file.name for file in old if not file.reading),
    )


def paired(old: Sequence[PolicyFile], new: Sequence[PolicyFile]) -> Iterator[FileChange]:
    """Every valid file beside what it was before: the one of its name and id, else of its id, else of its name.

    One that is there now and no valid policy is left out, with what it was before: it is neither changed nor gone.
    """
    broken = {_base_name(file) for file in new if not file.reading}
    now = [file for file in new if file.reading]
    left = {number: file for number, file in enumerate(old) if file.reading and _base_name(file) not in broken}
    partners: dict[int, PolicyFile] = {}
    for key_of in (_name_and_id, _id_alone, _base_name):
        places = {key_of(file): number for number, file in reversed(left.items())}
        for number, file in enumerate(now):
            place = places.get(key_of(file)) if number not in partners else None
            if place in left:
                partners[number] = left.pop(place)
    yield from (FileChange(old=partners.get(number), new=file) for number, file in enumerate(now))
    yield from (FileChange(old=file, new=None) for file in left.values())


def _name_and_id(file: PolicyFile) -> tuple[str, str]:
    return _base_name(file), _id_alone(file)


def _id_alone(file: PolicyFile) -> str:
    return file.document.policy_id


def _base_name(file: PolicyFile) -> str:
    return os.path.basename(file.name)  # noqa: PTH119 -- called for each file, many times


def _bytes_of(name: str) -> bytes:
    """A file of the base.

    Raises:
        UnknownInputError: it cannot be read.
    """
    try:
        return read_to_review(Path(name), SIGNED_POLICY_FILE)
    except PolicyError as error:
        raise UnknownInputError(str(error.problems[0])) from error
