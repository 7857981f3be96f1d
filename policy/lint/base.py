"""What `--base` holds files against: the same folder in a revision of git, or another file or folder.

A change is told of the files that are linted, and of those that are gone from their folder. What else lies in the
folder counts on both sides as it lies there now, so that files linted one by one are still judged as a set. Files are
matched by id, then by name. Of git only plumbing is run, as a program, without a shell, the network or its variables.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from policy.errors import PolicyError
from policy.lint.files import policy_file
from policy.lint.inputs import STANDARD_INPUT, UnknownInputError, files_beside, is_policy_name
from policy.lint.subjects import FileChange, PolicyFile, SetChange
from policy.settings import MAX_DOCUMENT_BYTES
from policy.trusted_files import SIGNED_POLICY_FILE, read_trusted

GIT_SECONDS = 60
"""How long one command of git may take."""
_GIT = ("git", "-c", "protocol.allow=never", "--no-replace-objects", "--literal-pathspecs")
_GIT_VARIABLES = {"GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_REGULAR_MODES = (b"100644", b"100755")


def changes(base: str, files: Sequence[str], standard_input: PolicyFile | None = None) -> tuple[SetChange, ...]:
    """What changed since the base, for each folder of these files in which anything did.

    Args:
        base: a file or folder, or else a revision of git.
        files: files to lint, as they were named.
        standard_input: what was read from there, which only one file can be the past of; `None` where nothing was.

    Raises:
        UnknownInputError: there is no such file, folder or revision, it cannot be read, or it is no past of the files.
    """
    folders: dict[str, list[str]] = {}
    for name in files:
        if name != STANDARD_INPUT:
            folders.setdefault(str(Path(name).parent), []).append(name)
    is_folder = os.path.isdir(base)  # noqa: PTH112 -- unlike Path.is_dir, no where it may not look
    if os.path.lexists(base) and not is_folder:
        return tuple(filter(None, [_since_file(base, files, standard_input)]))
    if not folders:
        raise UnknownInputError(f"{base}: the standard input has no place there; name one file as --base")
    if is_folder:
        found: Iterable[SetChange | None] = [_since_folder(base, folders)]
    else:
        found = [_since_revision(base, folder, names) for folder, names in folders.items()]
    return tuple(change for change in found if change)


def _since_file(base: str, names: Sequence[str], standard_input: PolicyFile | None) -> SetChange | None:
    if len(names) != 1:
        raise UnknownInputError(f"{base} is one file, and {len(names)} are linted; name a folder or a revision")
    (name,) = names
    old = policy_file(base, Path(base), _bytes_of(base))
    new = standard_input if standard_input and name == STANDARD_INPUT else _file_there(name)
    pairs = [FileChange(old=old if old.reading else None, new=new)] if new.reading else []
    return _set_change(str(Path(name).parent), base, pairs, [old], [new])


def _since_folder(base: str, folders: Mapping[str, Sequence[str]]) -> SetChange | None:
    if len(folders) != 1:
        raise UnknownInputError(f"{base} is one folder, and files of {len(folders)} are linted; name a revision")
    ((folder, names),) = folders.items()
    places = [os.path.join(base, name) for name in sorted(files_beside(base))]  # noqa: PTH118 -- as named
    return _since(base, folder, names, [(place, _bytes_of(place)) for place in places])


def _since_revision(base: str, folder: str, names: Sequence[str]) -> SetChange | None:
    if not base or base.startswith("-") or not base.isprintable():
        raise UnknownInputError(f"{base!r} is neither a file nor a folder, and no name of a revision")
    commit = _git(folder, base, "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}").decode().strip()
    return _since(base, folder, names, tuple(_files_of(commit, folder, base)))


def _since(base: str, folder: str, names: Sequence[str], past: Sequence[tuple[str, bytes]]) -> SetChange | None:
    """What changed in a folder, in the company of all else that lies there now; the past by name, with its bytes."""
    linted = [_file_there(name) for name in names]
    linted_names = {_base_name(file) for file in linted}
    beside = [_file_there(os.path.join(folder, name)) for name in sorted(files_beside(folder) - linted_names)]  # noqa: PTH118
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
        return read_trusted(Path(name), SIGNED_POLICY_FILE)
    except PolicyError as error:
        raise UnknownInputError(str(error.problems[0])) from error


def _file_there(name: str) -> PolicyFile:
    """A file that is there now; why one cannot be read is told where it is linted."""
    try:
        return policy_file(name, Path(name), read_trusted(Path(name), SIGNED_POLICY_FILE))
    except PolicyError as error:
        return PolicyFile(name=name, path=Path(name), untrusted=b"", text="", flaws=error.problems)


# Git.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One policy file in a tree of git."""

    name: str
    mode: bytes
    blob: bytes
    size: int

    @property
    def readable(self) -> bool:
        """Whether it is a file that a policy could be: a link's own bytes are the name of another file."""
        return self.mode in _REGULAR_MODES and self.size <= MAX_DOCUMENT_BYTES


def _files_of(commit: str, folder: str, base: str) -> Iterator[tuple[str, bytes]]:
    """The policy files of a folder in a commit, by the names they would have now; no bytes for what is no such file."""
    entries = [entry for entry in _entries(commit, folder, base) if is_policy_name(entry.name)]
    contents = iter(_blobs([entry.blob for entry in entries if entry.readable], folder, base))
    for entry in entries:
        yield os.path.join(folder, entry.name), next(contents) if entry.readable else b""  # noqa: PTH118 -- as named


def _entries(commit: str, folder: str, base: str) -> Iterator[_Entry]:
    """What git has of a folder in a commit: nothing where the folder was not there."""
    listed = _git(folder, base, "ls-tree", "-z", "-l", commit)
    for line in filter(None, listed.split(b"\0")):
        facts, _, name = line.partition(b"\t")
        mode, kind, blob, size = facts.split()
        if kind == b"blob" and b"/" not in name:
            yield _Entry(name=os.fsdecode(name), mode=mode, blob=blob, size=int(size))


def _blobs(ids: Sequence[bytes], folder: str, base: str) -> Iterator[bytes]:
    """The contents of these blobs, in their order."""
    if not ids:
        return
    told = _git(folder, base, "cat-file", "--batch", given=b"\n".join(ids) + b"\n")
    at = 0
    for blob in ids:
        end = told.index(b"\n", at)
        facts = told[at:end].split()
        if len(facts) != 3:  # noqa: PLR2004 -- id, type, size; or that it is missing
            raise UnknownInputError(f"{base}: git lacks the object {blob.decode()}; fetch the whole history")
        at = end + 1 + int(facts[2]) + 1
        yield told[end + 1 : at - 1]


def _git(folder: str, base: str, *arguments: str, given: bytes = b"") -> bytes:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _GIT_VARIABLES
    try:
        done = subprocess.run(
            [*_GIT, "-C", folder or ".", *arguments],
            input=given,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=False,
            env=environ,
        )
    except FileNotFoundError as error:
        raise UnknownInputError(f"{base}: there is no such file or folder, and no git to ask for a revision") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnknownInputError(f"{base}: git cannot be asked for it: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0].removeprefix("fatal: ")
        raise UnknownInputError(f"{base}: there is no such file or folder, and git knows no such revision: {said}")
    return done.stdout
