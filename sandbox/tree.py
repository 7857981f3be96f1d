"""The box's own file tree: a copy of interpreter, standard library and listed commands, built once and only read.

Nothing of the caller (site-packages, working directory, home) is in it, and no host path. A tree lies at
`<private folder>/trees/<digest>/`, its completion marker beside it. It is built in a temporary sibling under a lock and
appears by one rename; what a crash leaves begins with `.building-` and goes with the trees that nobody has used for a
week, at the next preparation. Packages that an administrator offers are no part of it, but the shared libraries that
they need are.
"""

import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.packages import Packages
from sandbox.shared_libraries import file_tree_error
from sandbox.tree_build import TreeChoice, chosen_sources, fill_tree
from sandbox.tree_marker import (
    BUILDING_PREFIX,
    NO_PACKAGES,
    TreeMarker,
    believed_marker,
    ours_alone,
    write_marker,
)
from sandbox.tree_plan import Interpreter, TreePlan, identity_digest, planned_tree
from sandbox.used_trees import remove_unused_trees, used_tree

TREES_FOLDER = "trees"
BOX_PYTHON = "/usr/bin/python3"
BOX_BASH = "/usr/bin/bash"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTree:
    """A complete tree, to be mounted read-only as a box's root."""

    root: Path
    """Its folder on the host."""
    digest: str
    """Names everything in it: another interpreter, library or command gives another digest."""
    python: str
    """The interpreter's path in the box."""
    bash: str
    """Bash's path in the box."""
    file_count: int
    """Regular files in it."""
    size_bytes: int
    """Bytes of all files in it, each counted once."""
    omitted: tuple[str, ...]
    """Optional programs and modules of this host that could not be taken along, each with the reason, and libraries
    that offered packages ask for and this host does not have."""


def build_tree(
    folder: Path, interpreter: Interpreter, report: Callable[[str], None], packages: Packages | None = None
) -> FileTree:
    """Return the tree for an interpreter, building it if there is none yet; blocks while it does.

    Args:
        folder: the runner's private folder; made if it is not there.
        interpreter: whose standard library it is.
        report: told in a few words, only when a tree has to be built.
        packages: what is offered beside it; the libraries that they need come into the tree.

    Raises:
        SandboxError: the tree cannot be built, or the folder is open to others.
    """
    plan = planned_tree(interpreter, packages)
    try:
        trees = _folder_of_ours(folder) / TREES_FOLDER
        _folder_of_ours(trees)
        tree = _ready_tree(trees, plan)
        if tree is None:
            with _tree_lock(trees):
                # Another process may have built it while this one waited.
                tree = _ready_tree(trees, plan) or _made_tree(trees, plan, report)
    except OSError as error:
        origin = str(error.filename or folder)
        raise file_tree_error(
            origin, error.strerror or str(error), "Give this account a writable folder with space in it"
        ) from error
    _remove_useless(trees)
    return tree


def _folder_of_ours(folder: Path) -> Path:
    """Make a folder of this account's alone, or refuse the one that is there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not ours_alone(folder.lstat(), stat.S_IFDIR):
        raise file_tree_error(
            str(folder), "is not a folder that belongs to this account alone", f"Chown it and `chmod 700 {folder}`"
        )
    return folder


def _packages_digest(plan: TreePlan) -> str:
    return plan.packages.digest if plan.packages else NO_PACKAGES


def _ready_tree(trees: Path, plan: TreePlan) -> FileTree | None:
    """Find the complete tree of a plan that is known to hold every library that its packages need."""
    plan_digest, packages_digest = plan.digest, _packages_digest(plan)
    for path in sorted(trees.glob("*.json")):
        marker = believed_marker(path, plan_digest)
        if marker is not None and packages_digest in dict(marker.packages):
            with suppress(OSError), used_tree(trees / marker.digest):  # unless it is being removed
                return _file_tree(trees, marker, packages_digest)
    return None


def _file_tree(trees: Path, marker: TreeMarker, packages_digest: str) -> FileTree:
    return FileTree(
        root=trees / marker.digest,
        digest=marker.digest,
        python=BOX_PYTHON,
        bash=BOX_BASH,
        file_count=marker.file_count,
        size_bytes=marker.size_bytes,
        omitted=(*marker.omitted, *dict(marker.packages)[packages_digest]),
    )


@contextmanager
def _tree_lock(trees: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Let one process build or remove at a time; the kernel frees the lock of one that dies."""
    descriptor = os.open(trees / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _made_tree(trees: Path, plan: TreePlan, report: Callable[[str], None]) -> FileTree:
    """Build the tree, unless the one that is there turns out to hold all that these packages need too."""
    choice, packages_digest = chosen_sources(plan), _packages_digest(plan)
    path = trees / f"{identity_digest(plan.digest, choice.libraries)}.json"
    marker = believed_marker(path, plan.digest)
    if marker is None:
        report("Building the sandbox's own file tree...")
        _remove_unfinished(trees)
        return _file_tree(trees, _built_tree(trees, plan, choice), packages_digest)
    marker = marker.remembering(packages_digest, choice.missing)
    write_marker(path, marker)
    return _file_tree(trees, marker, packages_digest)


def _remove_useless(trees: Path) -> None:
    """Remove trees that nobody uses any more, and what a crash left; while somebody builds, that is for later."""
    with suppress(OSError), _tree_lock(trees, fcntl.LOCK_EX | fcntl.LOCK_NB):
        _remove_unfinished(trees)
        remove_unused_trees(trees, now=time.time())


def _remove_unfinished(trees: Path) -> None:
    """Remove what a crashed build left: under the lock nobody else is building."""
    for leftover in trees.glob(f"{BUILDING_PREFIX}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _built_tree(trees: Path, plan: TreePlan, choice: TreeChoice) -> TreeMarker:
    """Build into a temporary sibling and rename it once it is complete and on disk."""
    building = trees / f"{BUILDING_PREFIX}{secrets.token_hex(8)}"
    building.mkdir(mode=0o700)
    try:
        file_count, size_bytes = fill_tree(building, plan.interpreter, choice)
        marker = TreeMarker(
            plan_digest=plan.digest,
            libraries=choice.libraries,
            file_count=file_count,
            size_bytes=size_bytes,
            omitted=choice.omitted,
            packages=((_packages_digest(plan), choice.missing),),
        )
        root = trees / marker.digest
        os.sync()
        write_marker(root.with_suffix(".json"), marker)
        if root.exists() or root.is_symlink():
            # A tree without its marker is not believed.
            root.rename(trees / f"{BUILDING_PREFIX}{secrets.token_hex(8)}")
        building.rename(root)
        _sync_folder(trees)
    finally:
        _remove_unfinished(trees)
    return marker


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
