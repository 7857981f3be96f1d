"""What git has of a folder in a revision; only plumbing is run, without a shell, the network or variables of git.

Whoever wrote the change under review chose what lies in the folder now. So it is looked up by its name, not by where a
link leads now, and only in the repository around it.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from policy.lint.inputs import UnknownInputError, is_like, is_policy_name
from policy.settings import MAX_DOCUMENT_BYTES

GIT_SECONDS = 60
"""How long one command of git may take."""
# A folder of a change can itself look like a bare repository, with a history of its own.
_GIT = (
    *("git", "-c", "protocol.allow=never", "-c", "safe.bareRepository=explicit"),
    *("--no-replace-objects", "--literal-pathspecs"),
)
_GIT_VARIABLES = {"GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_REGULAR_MODES = (b"100644", b"100755")
_LINK_MODE = b"120000"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionTree:
    """One folder of a commit."""

    root: str
    """The top folder of its repository."""
    commit: str
    place: str
    """The folder below the root, by its name."""
    base: str
    """As the revision was named."""


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


def commit_of(base: str, folder: str) -> str:
    """The id of the commit that a revision is, in the repository of a folder.

    Raises:
        UnknownInputError: there is no such revision.
    """
    if not base or base.startswith("-") or not base.isprintable():
        raise UnknownInputError(f"{base!r} is neither a file nor a folder, and no name of a revision")
    return _git(folder, base, "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}").decode().strip()


def place_in_git(folder: str, base: str) -> tuple[str, str]:
    """The top of the repository that a folder lies in, and the folder's place below it, by its name.

    Raises:
        UnknownInputError: it lies in none, or in one within the one where we are, whose revisions are others.
    """
    own = _top(folder, base)
    try:
        around = _top("", base)
    except UnknownInputError:  # we are in none
        around = own
    path = os.path.abspath(folder)  # noqa: PTH100 -- by its name: no link is followed
    place = _place_below(path, around)
    foreign = around != own
    if place is None and foreign:
        place = _place_below(path, own)
        foreign = bool(_git(folder, base, "rev-parse", "--show-superproject-working-tree"))
    if foreign:
        raise UnknownInputError(f"{folder} lies in a git repository within another; run policy lint in {own}")
    return own, os.path.relpath(os.path.realpath(folder), own) if place is None else place


def _top(folder: str, base: str) -> str:
    return os.path.realpath(os.fsdecode(_git(folder, base, "rev-parse", "--show-toplevel").removesuffix(b"\n")))


def _place_below(path: str, top: str) -> str | None:
    """The rest of a path after the folder that is the top; `None` where it leads past none."""
    parents = (path, *map(str, Path(path).parents))
    return next((os.path.relpath(path, each) for each in reversed(parents) if os.path.realpath(each) == top), None)


def files_of(tree: RevisionTree) -> Iterator[tuple[str, bytes]]:
    """The policy files of a folder in a commit, by name; no bytes for what is no such file."""
    entries = [entry for entry in _entries(tree) if is_policy_name(entry.name)]
    contents = iter(_blobs([entry.blob for entry in entries if entry.readable], tree.root, tree.base))
    for entry in entries:
        yield entry.name, next(contents) if entry.readable else b""


def folders_like(tree: RevisionTree, pattern: Sequence[str]) -> Iterator[str]:
    """The folders of a commit, below a place, with policy files that a pattern stands for."""
    kind, oid, _ = _resolved(tree, tree.place)
    if kind != b"tree":
        return
    listed = _git(tree.root, tree.base, "ls-tree", "-r", "-z", "--name-only", "--full-tree", oid.decode())
    for name in map(os.fsdecode, filter(None, listed.split(b"\0"))):
        folder, _, file = name.rpartition("/")
        if is_policy_name(file) and is_like(name.split("/"), pattern):
            yield folder


def _entries(tree: RevisionTree) -> Iterator[_Entry]:
    """What git has of a folder in a commit: nothing where the folder was not there."""
    kind, oid, _ = _resolved(tree, tree.place)
    if kind != b"tree":
        return
    listed = _git(tree.root, tree.base, "ls-tree", "-z", "-l", "--full-tree", oid.decode())
    for line in filter(None, listed.split(b"\0")):
        facts, _, name = line.partition(b"\t")
        mode, kind, blob, size = facts.split()
        if kind == b"blob":
            entry = _Entry(name=os.fsdecode(name), mode=mode, blob=blob, size=int(size))
            yield _followed(tree, entry) if mode == _LINK_MODE and is_policy_name(entry.name) else entry


def _followed(tree: RevisionTree, link: _Entry) -> _Entry:
    """The file that a link led to in the same commit; the link where it led to none."""
    kind, blob, size = _resolved(tree, os.path.join(tree.place, link.name))  # noqa: PTH118 -- of git
    return replace(link, mode=_REGULAR_MODES[0], blob=blob, size=size) if kind == b"blob" else link


def _resolved(tree: RevisionTree, place: str) -> tuple[bytes, bytes, int]:
    """Kind, id and size of what a place of a commit is, links of the same commit followed; no kind for nothing."""
    if "\n" in place:
        raise UnknownInputError(f"{tree.base}: git cannot be asked for {place!r}; rename the folder or file")
    given = os.fsencode(f"{tree.commit}:{'' if place == os.curdir else place}\n")
    told = _git(tree.root, tree.base, "cat-file", "--batch-check", "--follow-symlinks", given=given)
    words = told.removesuffix(b"\n").split(b" ")
    if len(words) != 3 or words[1] not in (b"tree", b"blob"):  # noqa: PLR2004 -- id, kind, size; or why there is none
        # What a partial clone lacks is missing too, and no sign that there was nothing: this fails on all above it.
        listed = _git(tree.root, tree.base, "ls-tree", "-z", "--full-tree", tree.commit, "--", place)
        if listed.startswith(b"040000 tree "):
            raise UnknownInputError(f"{tree.base}: git lacks what was in {place}; fetch the whole history")
        return b"", b"", 0
    return words[1], words[0], int(words[2])


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
