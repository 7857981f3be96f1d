"""What stands beside a finished file tree and says what it was made of: a tree without it is not believed.

A marker lies outside what a box sees, at `<digest>.json` beside the tree `<digest>/`. It holds the identity of every
shared library, so that an updated one is noticed, and remembers which packages need no others: their files are read
once, not at each start.
"""

import json
import os
import secrets
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from sandbox.tree_plan import TreeSource, identity_digest, tree_source

BUILDING_PREFIX = ".building-"
NO_PACKAGES = "none"
"""Stands for the digest where no packages are offered."""
MOST_PACKAGES_REMEMBERED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMarker:
    """What a tree was made of."""

    plan_digest: str
    """Of the plan, libraries apart."""
    libraries: tuple[TreeSource, ...]
    """The shared libraries in it."""
    file_count: int
    """Regular files in it."""
    size_bytes: int
    """Bytes of all files in it, each counted once."""
    omitted: tuple[str, ...]
    """Optional programs and modules that could not be taken along, each with the reason."""
    packages: tuple[tuple[str, tuple[str, ...]], ...]
    """By the digest of packages that need no other libraries, the latest last: what they ask for and nobody has."""

    @property
    def digest(self) -> str:
        """What the tree is called."""
        return identity_digest(self.plan_digest, self.libraries)

    @classmethod
    def of_json(cls, read: dict[str, Any]) -> Self:
        """What JSON holds.

        Raises:
            KeyError, TypeError, ValueError: it is no marker of this version.
        """
        return cls(
            plan_digest=read["plan_digest"],
            libraries=tuple(TreeSource(**one) for one in read["libraries"]),
            file_count=read["file_count"],
            size_bytes=read["size_bytes"],
            omitted=tuple(read["omitted"]),
            packages=tuple((digest, tuple(missing)) for digest, missing in read["packages"]),
        )

    def remembering(self, packages_digest: str, missing: tuple[str, ...]) -> Self:
        """The same, for some more packages."""
        others = tuple(one for one in self.packages if one[0] != packages_digest)
        return replace(self, packages=(*others, (packages_digest, missing))[-MOST_PACKAGES_REMEMBERED:])


def ours_alone(status: os.stat_result, kind: int) -> bool:
    """Tell whether something is of one kind, this account's, and nobody else can write it."""
    mine = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return mine and stat.S_IFMT(status.st_mode) == kind


def believed_marker(path: Path, plan_digest: str) -> TreeMarker | None:
    """The marker of a plan's complete tree whose shared libraries are still those of the host."""
    root = path.with_suffix("")
    try:
        if not (ours_alone(path.lstat(), stat.S_IFREG) and ours_alone(root.lstat(), stat.S_IFDIR)):
            return None
        marker = TreeMarker.of_json(json.loads(path.read_text()))
        unchanged = all(one == tree_source(one.destination, one.source) for one in marker.libraries)
    except (OSError, ValueError, KeyError, TypeError):
        # Not a marker of this version, or not of this host any more: then there is no tree yet.
        return None
    believed = unchanged and marker.plan_digest == plan_digest and marker.digest == path.stem
    return marker if believed else None


def write_marker(path: Path, marker: TreeMarker) -> None:
    """Write a marker in one step, on disk before it has its name."""
    temporary = path.parent / f"{BUILDING_PREFIX}{secrets.token_hex(8)}"
    temporary.mkdir(mode=0o700)
    with (temporary / "marker").open("x") as file:
        json.dump(asdict(marker), file, indent=1)
        os.fchmod(file.fileno(), 0o600)
        file.flush()
        os.fsync(file.fileno())
    (temporary / "marker").rename(path)
    temporary.rmdir()
