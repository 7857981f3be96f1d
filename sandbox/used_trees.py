"""Which file trees are in use, and the removal of those that nobody has used for a week.

Whoever starts a box holds a shared lock on its tree for as long as the box lives, and notes the time of use on its
marker, outside what a box sees. Whoever removes a tree needs the lock for themselves alone, and looks at the time
only once they have it: a tree is either used in time and stays, or it is gone, marker first, for whoever comes later.
Source: flock(2); the lock is on the tree's own folder, since a marker is replaced when more packages are known.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sandbox.tree_marker import BUILDING_PREFIX

UNUSED_TREE_SECONDS = 7 * 86_400.0
"""How long a tree stays that nobody uses; building it again takes some seconds."""
_TREE_NAME = re.compile(r"[0-9a-f]{64}")


@contextmanager
def used_tree(root: Path) -> Iterator[None]:
    """Keep a tree from being removed for as long as the context lasts, and for a week from now.

    Args:
        root: its folder.

    Raises:
        FileNotFoundError: it is gone, or on its way.
    """
    with _tree_opened(root) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not _is_still(root, descriptor):
            raise FileNotFoundError(errno.ENOENT, "the file tree is gone", str(root))
        with suppress(OSError):  # a full disk, or no marker: then the lock alone keeps it
            os.utime(root.with_suffix(".json"))
        yield


def remove_unused_trees(trees: Path, *, now: float) -> None:
    """Remove the trees that nobody uses nor has used for a week; the caller holds the lock under which they are built.

    Args:
        trees: where they are.
        now: seconds since 1970.
    """
    for root in sorted(trees.iterdir()):
        if _TREE_NAME.fullmatch(root.name) and _last_use(root) < now - UNUSED_TREE_SECONDS:
            with suppress(OSError):  # in use, or no folder of ours
                _remove_if_unused(root, now - UNUSED_TREE_SECONDS)


def _remove_if_unused(root: Path, before: float) -> None:
    outgoing = root.with_name(f"{BUILDING_PREFIX}{secrets.token_hex(8)}")
    with _tree_opened(root) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_still(root, descriptor) or _last_use(root) >= before:
            return
        root.with_suffix(".json").unlink(missing_ok=True)
        root.rename(outgoing)
    shutil.rmtree(outgoing)


def _last_use(root: Path) -> float:
    """When somebody used a tree, or built it where it has no marker; seconds since 1970."""
    for path in (root.with_suffix(".json"), root):
        with suppress(OSError):
            return path.lstat().st_mtime
    return 0.0


def _is_still(root: Path, descriptor: int) -> bool:
    """Whether what was opened still has its name: it may have been renamed before it was locked."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), root.lstat())
    return False


@contextmanager
def _tree_opened(root: Path) -> Iterator[int]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
