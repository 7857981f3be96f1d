"""Packages that an administrator offers to code in boxes: one folder, mounted read-only at one place.

The folder is a virtual environment's `site-packages`, or one as `pip install --target` makes. It is refused where
somebody else could change it, where code could not read it, and where it overlaps what no box may see. Nothing in it is
run or imported here, and `.pth` files are run nowhere: they are for an interpreter's own `site-packages` alone.

Source: PEP 405 (`pyvenv.cfg`); Python's `site` module.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.folders import UnsafeFolderError, trusted_path
from sandbox.off_limits import NamedFolder, named_folder, overlapped

PACKAGES_VARIABLE = "SANDBOX_PACKAGES_PATH"
BOX_PACKAGES = "/opt/packages"
"""Where a box has them."""
COMPILED_FOLDER = "__pycache__"
"""Made and changed by whoever imports, and no package: it tells nothing of what is installed."""
_OTHERS_READ = stat.S_IROTH | stat.S_IXOTH
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagesOrder:
    """What an administrator wants offered."""

    path: Path
    """The folder, as the setting names it: absolute."""
    off_limits: tuple[NamedFolder, ...]
    """What settings name that no box may see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """A folder of packages that may be offered."""

    path: Path
    """As the administrator named it."""
    folder: Path
    """What is mounted: it holds the packages themselves, and no symbolic link leads to it."""
    library_name: str
    """Of the Python that boxes run (`python3.11`)."""
    digest: str
    """SHA-256 in lower-case hexadecimal, another one as soon as something is installed, removed or replaced."""

    def unchanged(self) -> bool:
        """Whether the path still leads to the same folder with the same packages; takes about a millisecond."""
        try:
            return self == found_packages(self.path, self.library_name)
        except SandboxError:
            return False


def offered_packages(
    order: PackagesOrder, library_name: str, off_limits: tuple[NamedFolder, ...], uid: int
) -> Packages:
    """The packages of a folder, once nothing speaks against offering it.

    Args:
        order: what the administrator wants.
        library_name: of the interpreter in the box (`python3.11`).
        off_limits: what no box may see, besides what the order names.
        uid: the running user.

    Raises:
        SandboxError: it is missing, is no folder, is for another Python, others than root and this user can change it,
            code could not read it, or it overlaps something off limits.
    """
    packages = found_packages(order.path, library_name)
    # First of all, so that nobody is advised to change owners and modes of what are no packages.
    _refuse_overlap(packages, (*order.off_limits, *off_limits))
    try:
        for place in (order.path, packages.folder):
            trusted_path(place, uid)
        _refuse_unfit(packages.folder, order.path, uid)
        _refuse_sockets(packages.folder, order.path)
    except OSError as error:
        raise _unreadable_packages(order.path, error) from error
    except UnsafeFolderError as error:
        remedy = "Let root or this user own it and every folder above it, and `chmod go-w` them"
        raise _packages_error(order.path, f"{error.origin}: {error.reason}", remedy) from error
    return packages


def found_packages(path: Path, library_name: str) -> Packages:
    """Describe a folder of packages, whoever may change it and whatever it overlaps.

    Raises:
        SandboxError: it is missing, is no folder, or is for another Python.
    """
    try:
        folder = Path(os.path.realpath(_site_folder(path, library_name)))
        return Packages(path=path, folder=folder, library_name=library_name, digest=_contents_digest(folder))
    except OSError as error:
        raise _unreadable_packages(path, error) from error


def _site_folder(path: Path, library_name: str) -> Path:
    """The folder that holds the packages: of a virtual environment, the one for the box's own Python."""
    if not path.exists():
        raise _packages_error(path, "there is no such folder", "Make it, or mount it into the container")
    if not path.is_dir():
        raise _packages_error(path, "it is a file", "Name a folder: code can import no archive")
    if not (path / "pyvenv.cfg").is_file():
        return path
    site = path / "lib" / library_name / "site-packages"
    if not site.is_dir():
        others = ", ".join(sorted(one.parent.name for one in path.glob("lib/python*/site-packages"))) or "no Python"
        raise _packages_error(
            path,
            f"it is a virtual environment of {others}, and boxes run {library_name}",
            f"Make it with {library_name}: `{library_name} -m venv {path}`",
        )
    return site


def _contents_digest(folder: Path) -> str:
    with os.scandir(folder) as entries:
        lines = sorted(_entry_line(entry) for entry in entries if entry.name != COMPILED_FOLDER)
    return hashlib.sha256("\n".join((str(folder), *lines)).encode(errors="surrogateescape")).hexdigest()


def _entry_line(entry: os.DirEntry[str]) -> str:
    status = entry.stat(follow_symlinks=False)
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return f"{entry.name}\0{stat.S_IFMT(status.st_mode)}\0{status.st_mtime_ns}\0{size}"


def _refuse_overlap(packages: Packages, off_limits: tuple[NamedFolder, ...]) -> None:
    found = overlapped(named_folder("packages", packages.folder), off_limits)
    if found is not None:
        named, verb = found
        raise _packages_error(
            packages.path,
            f"it {verb} {named.path}, {named.name}, which code must not see",
            "Keep packages in a folder of their own, such as /opt/sandbox-packages",
        )


def _refuse_unfit(folder: Path, path: Path, uid: int) -> None:
    """Refuse what the box's account cannot read, being neither root nor the owner, and what others can change.

    Of what lies in the folder only the top is looked at: an installer gives everything below the same owner and mode.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & _OTHERS_READ != _OTHERS_READ:
        reason = f"code in a box cannot read {folder} (mode {mode:04o})"
        raise _packages_error(path, reason, f"Open it for reading: `chmod -R a+rX {path}`")
    for place in (folder, *folder.iterdir()):
        status = place.lstat()
        if status.st_uid not in {0, uid} or (status.st_mode & _OTHERS_WRITE and not stat.S_ISLNK(status.st_mode)):
            reason = f"others can change {place} (uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o})"
            raise _packages_error(path, reason, f"`chown -R root {path}` and `chmod -R go-w {path}`")


def _refuse_sockets(folder: Path, path: Path) -> None:
    """Refuse a folder with a socket anywhere in it: a box with a way out may connect to what is mounted into it."""
    for place, _, names in os.walk(folder):
        for name in names:
            if stat.S_ISSOCK(Path(place, name).lstat().st_mode):
                reason = f"there is a socket in it, {place}/{name}, which code in a box could connect to"
                raise _packages_error(path, reason, "Remove it, and let no program listen there")


def _unreadable_packages(path: Path, error: OSError) -> SandboxError:
    remedy = "Make it readable for the account that runs the server"
    return _packages_error(path, f"it cannot be read: {error.strerror}", remedy)


def _packages_error(path: Path, reason: str, remedy: str) -> SandboxError:
    return SandboxError(key=PACKAGES_VARIABLE, origin=str(path), reason=reason, remedy=remedy)
