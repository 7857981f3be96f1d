"""The private folder of the running user, and folders that appear whole or not at all.

What is run from here was checked once, so nobody else may be able to swap it afterwards: every folder on the way,
symbolic links included, must belong to root or to the running user and be writable by nobody else. `/tmp` and its like
are refused as a place to create anything, since a cleaner may remove what stood there and let somebody else put
theirs. Half-made things live beside their destination under one prefix; whoever holds the lock removes the leftovers.
Source: XDG Base Directory Specification 0.8.
"""

import fcntl
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sandbox.errors import SandboxError

PARTIAL_PREFIX = ".partial-"

_PRIVATE_FOLDER_NAME = "sandbox-lockdown"
_MOST_SYMBOLIC_LINKS = 40  # as the kernel's own ELOOP limit
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_LOCK_POLL_SECONDS = 0.2


class UnsafeFolderError(SandboxError):
    """Somebody other than root and the running user could replace what stands at a path."""


def private_folder(environ: Mapping[str, str] | None = None, uid: int | None = None) -> Path:
    """The running user's own cache folder for this project, created 0700 where missing, free of symbolic links.

    Args:
        environ: where `XDG_CACHE_HOME` and `HOME` are looked up; by default this process's.
        uid: the user it must belong to; by default the effective one.

    Raises:
        UnsafeFolderError: somebody else could replace the folder or what it holds.
        SandboxError: there is no home, or the folder cannot be made.
    """
    owner = os.geteuid() if uid is None else uid
    wanted = private_folder_path(os.environ if environ is None else environ, owner)
    try:
        folder = _made_folder(wanted, owner)
    except OSError as error:
        raise SandboxError(
            key="private folder",
            origin=str(wanted),
            reason=f"it cannot be made or read: {error.strerror}",
            remedy="Set XDG_CACHE_HOME to an absolute path that this user can write",
        ) from error
    _refuse_shared_folder(folder, owner)
    return folder


def private_folder_path(environ: Mapping[str, str], uid: int) -> Path:
    """Where the private folder of a user is or would be; nothing is made, and nothing there is trusted yet.

    Raises:
        SandboxError: there is no home.
    """
    return _cache_home(environ, uid) / _PRIVATE_FOLDER_NAME


def trusted_path(path: Path, uid: int, *, group_may_write: bool = False) -> Path:
    """The path with every symbolic link followed, none of whose folders anybody but root and `uid` can alter.

    Args:
        path: absolute; its last component may be missing, as may folders before it.
        uid: the running user.
        group_may_write: accept root's folders that a group can write, as Debian's `/usr/local` once was.

    Raises:
        UnsafeFolderError: a folder or link on the way is somebody else's, or writable by others.
    """
    here, rest, links = Path("/"), list(reversed(path.parts[1:])), 0
    while rest:
        part = rest.pop()
        following = here.parent if part == ".." else here / part
        try:
            found = following.lstat()
        except FileNotFoundError:
            return following.joinpath(*reversed(rest))
        if not stat.S_ISLNK(found.st_mode):
            _refuse_replaceable(following, found, uid, group_may_write=group_may_write)
            here = following
            continue
        links += 1
        if links > _MOST_SYMBOLIC_LINKS or found.st_uid not in {0, uid}:
            raise _unsafe_folder(following, f"it is a symbolic link of uid {found.st_uid}, or one of too many")
        target = following.readlink()
        here = Path("/") if target.is_absolute() else here
        rest.extend(reversed([part for part in target.parts if part != "/"]))
    return here


@contextmanager
def folder_lock(folder: Path, *, wait_seconds: float, on_wait: Callable[[], None]) -> Iterator[bool]:
    """Hold the folder's lock, and say whether somebody else held it before; leftovers of crashes are removed.

    Raises:
        TimeoutError: it stayed held for `wait_seconds`.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        waited = _flocked(descriptor, wait_seconds, on_wait)
        for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield waited
    finally:
        os.close(descriptor)  # which also unlocks


@contextmanager
def partial_folder(beside: Path) -> Iterator[Path]:
    """Lend a new empty folder (0700) in `beside`, gone again at the end unless it was published."""
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=beside))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_folder(made: Path, destination: Path) -> None:
    """Put a finished folder in its place in one step, on disk before it shows; an older one there is removed."""
    for folder, _, names in os.walk(made):
        for name in names:
            _flush_to_disk(Path(folder, name))
        _flush_to_disk(Path(folder))
    if destination.exists():
        outgoing = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=destination.parent))
        destination.rename(outgoing / "replaced")
        shutil.rmtree(outgoing, ignore_errors=True)
    made.rename(destination)
    _flush_to_disk(destination.parent)


def _cache_home(environ: Mapping[str, str], uid: int) -> Path:
    chosen = environ.get("XDG_CACHE_HOME", "")
    if chosen.startswith("/"):  # the specification has relative ones ignored
        return Path(chosen)
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        home = _home_of(uid)
    if not Path(home).is_dir():
        raise SandboxError(
            key="private folder",
            origin=home,
            reason="the running user's home does not exist",
            remedy="Set HOME or XDG_CACHE_HOME to a folder of this user",
        )
    return Path(home, ".cache")


def _home_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise SandboxError(
            key="private folder",
            origin="this host",
            reason=f"HOME is not set and uid {uid} is not in the password database",
            remedy="Set HOME or XDG_CACHE_HOME to a folder of this user",
        ) from None


def _made_folder(wanted: Path, uid: int) -> Path:
    if wanted.is_symlink():
        raise _unsafe_folder(wanted, "it is a symbolic link")
    folder = trusted_path(wanted, uid)
    missing = [folder, *folder.parents]
    for parent in reversed([path for path in missing if not path.exists()]):
        if parent.parent.stat().st_mode & stat.S_ISVTX:
            raise _unsafe_folder(parent, "it would be made in a folder where everybody makes things")
        # somebody else may be making it at this moment; whose it is gets checked below
        parent.mkdir(mode=0o700, exist_ok=True)
    return trusted_path(folder, uid)


def _refuse_shared_folder(folder: Path, uid: int) -> None:
    found = folder.lstat()
    if found.st_uid != uid:
        raise _unsafe_folder(folder, f"it belongs to uid {found.st_uid}, not to the running uid {uid}")
    if stat.S_IMODE(found.st_mode) != stat.S_IRWXU:
        folder.chmod(stat.S_IRWXU)


def _refuse_replaceable(path: Path, found: os.stat_result, uid: int, *, group_may_write: bool) -> None:
    if found.st_uid not in {0, uid}:
        raise _unsafe_folder(path, f"it belongs to uid {found.st_uid}, who could replace what is in it")
    if group_may_write and found.st_uid == 0 and not found.st_mode & stat.S_IWOTH:
        return
    if not found.st_mode & _OTHERS_MAY_WRITE:
        _refuse_visitor(path, found, uid)
    elif not (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        raise _unsafe_folder(path, f"others can write it (mode {stat.S_IMODE(found.st_mode):04o})")


def _refuse_visitor(path: Path, found: os.stat_result, uid: int) -> None:
    """Refuse what stands in a sticky folder, unless it is a private folder that this user put there on purpose."""
    if not path.parent.lstat().st_mode & stat.S_ISVTX:
        return
    if found.st_uid != uid or stat.S_IMODE(found.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise _unsafe_folder(path, "it stands where everybody makes things, and is not a 0700 folder of this user")


def _unsafe_folder(path: Path, reason: str) -> UnsafeFolderError:
    return UnsafeFolderError(
        key="folder",
        origin=str(path),
        reason=reason,
        remedy="Mend its owner and mode, or set XDG_CACHE_HOME to a folder that only root and this user can write",
    )


def _flocked(descriptor: int, wait_seconds: float, on_wait: Callable[[], None]) -> bool:
    deadline, waited = time.monotonic() + wait_seconds, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"somebody else held the lock for {wait_seconds:.0f} seconds") from None
        else:
            return waited
        if not waited:
            waited = True
            on_wait()
        time.sleep(_LOCK_POLL_SECONDS)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
