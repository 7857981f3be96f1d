"""The files of cgroups, read and written, and never created.

Source: the kernel's Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

import errno
import os
from pathlib import Path


def cgroup_text(path: Path) -> str:
    """Read a file whole, as it is now."""
    with path.open("rb", buffering=0) as file:
        return file.readall().decode(errors="surrogateescape")


def write_cgroup_file(path: Path, text: str) -> None:
    """Write in one call, and never create: a file that the kernel does not offer is an error."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def cgroup_number(path: Path, key: str) -> int | None:
    """Read one number of a file of `key number` lines, or of a lone number with the empty key."""
    try:
        lines = [line.split() for line in cgroup_text(path).splitlines()]
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise  # it may well be there
        return None
    return next((int(words[-1]) for words in lines if words[:-1] == key.split()), None)


def controller_names(path: Path) -> frozenset[str]:
    """Read a list of controllers of v2: what a cgroup has, or what it hands down."""
    return frozenset(cgroup_text(path).split())


def cgroup_members(folder: Path) -> frozenset[int]:
    """The processes in one cgroup, none where it is gone; those outside our process namespace are left out.

    Raises:
        OSError: it is there, and cannot be read.
    """
    try:
        words = cgroup_text(folder / "cgroup.procs").split()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV}:
            return frozenset()
        raise
    return frozenset(map(int, words)) - {0}
