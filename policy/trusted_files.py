"""Reading files whose content is believed, and writing files that others will believe.

A path is walked once, folder by folder and link by link, each opened without following; what was opened is checked,
never a name. Keys and unsigned policies must belong to root or the running user, and nobody else may write them,
their folders, or a folder that holds a link on the way; a read-only mount will do instead. What is written here is
whole or absent.
Source: the rules are those of OpenSSH (`safe_path`) and sudo (`visudo -P`), kept by descriptor as `openat(2)` advises.
"""

import errno
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from policy.errors import AuditError, DocumentError, Flaw, KeyFileError, PolicyError, Problem, StateError
from policy.settings import MAX_DOCUMENT_BYTES

KEY_FILE_MAX_BYTES = 64 * 1024
"""Size of one key file: far more than any number of keys that makes sense."""

FOLDER_MAX_FILES = 256
"""Files read from one folder."""

LONGEST_SHOWN_PATH = 600
"""Characters of a path that a message shows."""

MAX_LINKS = 40
"""Symbolic links followed on one path. Source: path_resolution(7)."""

POLICY_SUFFIXES = (".toml",)
"""What policy files are called in a folder of them."""

PUBLIC_KEY_SUFFIXES = (".pub", ".pem")
"""What public keys are called in a folder of them."""

CONFIGMAP_DATA = "..data"
"""The link by which Kubernetes swaps all files of a mounted ConfigMap at once."""

WALK_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How folders are passed: without permission to list them, where the system has `O_PATH`."""

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""How files are opened: a pipe without a writer or a terminal must not hold us up."""

LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a folder is opened to be listed."""

APPEND_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""How a file that grows is opened: read to find its end, and made where there is none."""

CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How files are made: never over another, never through a link."""

ERROR_WORDS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        errno.ENOENT: ("it does not exist", "Check the path"),
        errno.EACCES: ("the running user may not open it", "Permit the running user to open it and its folders"),
        errno.EPERM: ("the running user may not do this", "Do it as the file's owner"),
        errno.ENOTDIR: ("a part of its path is not a folder", "Check the path"),
        errno.EISDIR: ("it is a folder", "Name a file"),
        errno.ELOOP: ("a symbolic link in its path changed, or too many follow each other", "Name the real path"),
        errno.ENXIO: ("it is a pipe, a socket or a device", "Name a regular file"),
        errno.ENAMETOOLONG: ("its path is longer than the system permits", "Shorten it"),
        errno.EEXIST: ("it exists already, and is not overwritten", "Choose another name, or move it away"),
        errno.ENOSPC: ("the disk is full; nothing was changed", "Free some space and do it again"),
        errno.EDQUOT: ("the disk quota is used up; nothing was changed", "Free some space and do it again"),
        errno.EFBIG: ("the system permits no file of that size; nothing was changed", "Raise the limit (ulimit -f)"),
        errno.EROFS: ("it lies on a read-only file system", "Write elsewhere, or mount it writable"),
    }
)
"""What the system's errors mean here: reason and remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRule:
    """What a kind of file must be before its bytes are used."""

    kind: str
    """What messages call it."""
    max_bytes: int
    """The largest size that is read."""
    owner_checked: bool
    """Whether only root and the running user may have been able to write it."""
    secret: bool
    """Whether nobody but its owner may read it."""
    error: type[DocumentError] | type[KeyFileError] | type[AuditError] | type[StateError]
    """What is raised when it is refused."""


PUBLIC_KEY_FILE = FileRule(
    kind="public key file",
    max_bytes=KEY_FILE_MAX_BYTES,
    owner_checked=True,
    secret=False,
    error=KeyFileError,
)
"""A file of keys that are trusted because an administrator put them there."""

PRIVATE_KEY_FILE = FileRule(
    kind="private key file",
    max_bytes=KEY_FILE_MAX_BYTES,
    owner_checked=True,
    secret=True,
    error=KeyFileError,
)
"""A key that signs."""

UNSIGNED_POLICY_FILE = FileRule(
    kind="unsigned policy file",
    max_bytes=MAX_DOCUMENT_BYTES,
    owner_checked=True,
    secret=False,
    error=DocumentError,
)
"""A policy that is believed because of where it lies."""

SIGNED_POLICY_FILE = FileRule(
    kind="policy file",
    max_bytes=MAX_DOCUMENT_BYTES,
    owner_checked=False,
    secret=False,
    error=DocumentError,
)
"""A policy whose proof is its signature, or one that somebody names only to look at it."""


def read_trusted(path: Path, rule: FileRule) -> bytes:
    """Read a regular file once, whole, after checking what was opened.

    Raises:
        DocumentError, KeyFileError: as the rule says, if it cannot be read, is too large, or others could write it.
    """
    try:
        descriptor, place = _open_walking(path, rule, READ_FLAGS)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            _check_file(descriptor, place, rule)
            data = _read_at_most(descriptor, rule.max_bytes + 1)
    except OSError as error:
        raise rule.error((_system_problem(rule.kind, path, error),)) from error
    return _no_larger(data, path, rule)


def read_to_review(path: Path, rule: FileRule) -> bytes:
    """Read a regular file only to tell what is in it: whoever wrote it, and whatever links lead to it.

    Raises:
        DocumentError, KeyFileError: as the rule says, if it cannot be read or is too large.
    """
    try:
        descriptor = os.open(path, READ_FLAGS & ~os.O_NOFOLLOW)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _distrusted(rule, path, _irregular_reason(status), "Name a regular file")
            data = _read_at_most(descriptor, rule.max_bytes + 1)
    except OSError as error:
        raise rule.error((_system_problem(rule.kind, path, error),)) from error
    return _no_larger(data, path, rule)


def _no_larger(data: bytes, path: Path, rule: FileRule) -> bytes:
    if len(data) > rule.max_bytes:
        reason = f"it is larger than {rule.max_bytes} bytes"
        raise _distrusted(rule, path, reason, "Split it into several files", Flaw.TOO_LARGE)
    return data


def list_folder(path: Path, suffixes: tuple[str, ...], rule: FileRule) -> tuple[Path, ...]:
    """List a folder's files of these suffixes, sorted, without those whose names begin with a dot.

    The files of a mounted Kubernetes ConfigMap are given by their real paths, so that all are of one generation.

    Raises:
        DocumentError, KeyFileError: as the rule says, if the folder cannot be listed, holds no such file or too
            many, or others could add to it.
    """
    try:
        generation = path / CONFIGMAP_DATA
        descriptor, place = _open_walking(generation if generation.is_symlink() else path, rule, LIST_FLAGS)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            _check_writers(descriptor, place, rule, sticky_will_do=False)
            with os.scandir(descriptor) as entries:
                names = sorted(entry.name for entry in entries)
    except OSError as error:
        raise rule.error((_system_problem(f"folder of {rule.kind}s", path, error),)) from error
    found = tuple(place / name for name in _names_to_read(names, suffixes, rule, path))
    if not 1 <= len(found) <= FOLDER_MAX_FILES:
        wanted = " or ".join(f"*{suffix}" for suffix in suffixes)
        reason = f"the folder holds {len(found)} files {wanted}, not 1 to {FOLDER_MAX_FILES}"
        raise _distrusted(rule, path, reason, "Put the files there, or name another folder")
    return found


def _names_to_read(names: Iterable[str], suffixes: tuple[str, ...], rule: FileRule, path: Path) -> Iterator[str]:
    """Names of these suffixes that are not hidden; none of them may be passed over, or write into a log."""
    for name in names:
        if name.startswith(".") or not name.lower().endswith(suffixes):
            continue
        reason = ""
        if not name.isprintable():
            # Names stand in messages, and whoever may write the folder need not be trusted with a terminal.
            reason = f"the name {name!a} holds characters that a terminal would obey"
        elif not name.endswith(suffixes):
            reason = f"{name} would be passed over, since its ending is not in lower case"
        if reason:
            raise _distrusted(rule, path, reason, "Rename it, or move it away")
        yield name


def read_files(path: Path, suffixes: tuple[str, ...], rule: FileRule) -> Mapping[str, bytes]:
    """Read a file, or all files of a folder, sorted: each one's path as a person knows it, with its bytes.

    Raises:
        DocumentError, KeyFileError: as the rule says, with a problem for each file that is refused.
    """
    # Unlike Path.is_dir, this says no where it may not look; reading then says why.
    paths = list_folder(path, suffixes, rule) if os.path.isdir(path) else (path,)  # noqa: PTH112
    contents: dict[str, bytes] = {}
    problems: list[Problem] = []
    for each in paths:
        try:
            contents[str(each if each == path else path / each.name)] = read_trusted(each, rule)
        except (DocumentError, KeyFileError) as error:
            problems.extend(error.problems)
    if problems:
        raise rule.error(tuple(problems))
    return MappingProxyType(contents)


def read_public_key_files(path: Path) -> Mapping[str, bytes]:
    """Read the public key file, or the folder of them, at this path.

    Raises:
        KeyFileError: if any cannot be read or trusted.
    """
    return read_files(path, PUBLIC_KEY_SUFFIXES, PUBLIC_KEY_FILE)


@contextmanager
def opened_to_append(path: Path, rule: FileRule) -> Iterator[tuple[int, Path]]:
    """Open a file that grows, after checking what was opened: its descriptor, and its real path.

    One that does not exist is made, for its owner alone. What the system refuses while it is open is the rule's error
    too.

    Raises:
        AuditError: as the rule says, if it cannot be opened, read or written, or others could write it.
    """
    try:
        descriptor, place = _open_walking(path, rule, APPEND_FLAGS)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            _check_file(descriptor, place, rule)
            if not os.fstat(descriptor).st_size:
                with suppress(PermissionError):  # where the folder may not be read, others made the file
                    _sync_file_folder(place.parent)
            yield descriptor, place
    except FileNotFoundError as error:
        raise _distrusted(rule, path, "its folder does not exist", "Make the folder") from error
    except OSError as error:
        raise rule.error((_system_problem(rule.kind, path, error),)) from error


def write_new_file(path: Path, data: bytes, mode: int) -> None:
    """Make a file that does not exist yet; when this fails, none is left.

    Raises:
        KeyFileError: if it exists or cannot be written.
    """
    write_new_files(((path, data, mode),))


def write_new_files(files: Iterable[tuple[Path, bytes, int]]) -> None:
    """Make files that do not exist yet, given as path, bytes and mode: all of them or none.

    Raises:
        KeyFileError: if one exists or cannot be written.
    """
    with ExitStack() as undo:
        for path, data, mode in files:
            try:
                _write_synced(path, data, mode)
                undo.callback(path.unlink, missing_ok=True)
                _sync_file_folder(path.parent)
            except FileNotFoundError as error:
                problem = Problem(
                    key="new file", origin=str(path), reason="its folder does not exist", remedy="Make the folder"
                )
                raise KeyFileError((problem,)) from error
            except OSError as error:
                raise KeyFileError((_system_problem("new file", path, error),)) from error
        undo.pop_all()


def replace_file(path: Path, data: bytes) -> None:
    """Put new bytes in a policy file's place, at once: who reads it finds the old ones or the new ones.

    Mode and owner stay. A symbolic link is followed, once, and what it names is replaced.

    Raises:
        DocumentError: if it is not a regular file or cannot be replaced; then it is as before.
    """
    try:
        target = _real_path(path)
        before = target.lstat()
        if not stat.S_ISREG(before.st_mode):
            raise _distrusted(SIGNED_POLICY_FILE, path, _irregular_reason(before), "Name a regular file")
        # Ends in no suffix that a folder of policies is read by, and begins with a dot.
        temporary = target.with_name(f".signing-{secrets.token_hex(8)}")
        with ExitStack() as undo:
            _write_synced(temporary, data, stat.S_IMODE(before.st_mode), (before.st_uid, before.st_gid))
            undo.callback(temporary.unlink, missing_ok=True)
            temporary.replace(target)
        _sync_file_folder(target.parent)
    except OSError as error:
        raise DocumentError((_system_problem("policy file", path, error),)) from error


def make_private_folder(path: Path, rule: FileRule) -> None:
    """Make a folder for its owner alone where there is none, and refuse one that is not.

    Raises:
        StateError: as the rule says, if it cannot be made, opened or written, or others could use it.
    """
    if private_folder_exists(path, rule):
        return
    try:
        with suppress(FileExistsError):  # another process made it meanwhile
            path.mkdir(0o700)
        with suppress(PermissionError):  # the folder around it may be one that we may not read
            _sync_file_folder(path.parent)
    except OSError as error:
        raise rule.error((_system_problem(_folder_kind(rule), path, error),)) from error
    private_folder_exists(path, rule)


def private_folder_exists(path: Path, rule: FileRule) -> bool:
    """Whether there is a folder that its owner alone can use; where there is none, one could be made.

    Raises:
        StateError: as the rule says, if it cannot be made, opened or written, or others could use it.
    """
    exists = os.path.lexists(path)
    try:
        descriptor, place = _open_walking(path if exists else path.parent, rule, WALK_FLAGS)
        with ExitStack() as opened:
            opened.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if exists:
                _check_private(status, place, rule)
            else:
                _check_writers(descriptor, place, rule, sticky_will_do=True)
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
                reason = "the running user may not write it, or it is mounted read-only"
                raise _distrusted(rule, place, reason, "Permit that, or name another folder")
    except OSError as error:
        raise rule.error((_system_problem(_folder_kind(rule), path, error),)) from error
    return exists


def replace_private_file(path: Path, data: bytes, rule: FileRule) -> None:
    """Put bytes in a file's place, at once and for its owner alone; the caller holds the lock of its folder.

    Raises:
        StateError: as the rule says, if it cannot be written; then it is as it was.
    """
    if len(data) > rule.max_bytes:
        # It could be written, and never be read again.
        raise _distrusted(rule, path, f"it would be larger than {rule.max_bytes} bytes", "Use fewer or smaller files")
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was ended while it wrote
        with ExitStack() as undo:
            _write_synced(temporary, data, 0o600)
            undo.callback(temporary.unlink, missing_ok=True)
            temporary.replace(path)
        _sync_file_folder(path.parent)
    except OSError as error:
        raise rule.error((_system_problem(rule.kind, path, error),)) from error


def _open_walking(path: Path, rule: FileRule, last_flags: int) -> tuple[int, Path]:
    """Open a path from the root downwards, link by link, checking each folder by what was opened.

    The flags are for what the path names; a file that they make is for its owner alone. Returns the descriptor, which
    the caller closes, and the real path.
    """
    absolute = path if path.is_absolute() else Path.cwd() / path  # the working folder may be gone
    names, place, links = deque(absolute.parts), Path("/"), 0
    here = os.open("/", WALK_FLAGS)
    with ExitStack() as undo:
        undo.callback(lambda: os.close(here))
        while names:
            name = names.popleft()
            target = _link_target(name, here, may_be_missing=not names and bool(last_flags & os.O_CREAT))
            # In a sticky folder such as /tmp others may plant files and links, but cannot swap a folder of ours.
            is_folder = target is None and bool(names or last_flags & os.O_DIRECTORY)
            _check_writers(here, place, rule, sticky_will_do=is_folder)
            if target is not None:
                links += 1
                names.extendleft(reversed(target.parts))
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                continue
            opened = os.open(name, WALK_FLAGS if names else last_flags, 0o600, dir_fd=here)
            os.close(here)
            here, place = opened, place.parent if name == ".." else place / name
        undo.pop_all()
    return here, place


def _link_target(name: str, folder: int, *, may_be_missing: bool) -> Path | None:
    """Read a symbolic link in an open folder; nothing if it is none."""
    try:
        return Path(os.readlink(name, dir_fd=folder))
    except OSError as error:
        if error.errno == errno.EINVAL or (error.errno == errno.ENOENT and may_be_missing):
            return None
        raise


def _real_path(path: Path) -> Path:
    """Follow a path's links; Python before 3.13 has an error of its own for links in a circle."""
    try:
        return path.resolve(strict=True)
    except RuntimeError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error


def _read_at_most(descriptor: int, limit: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(limit)


def _check_file(descriptor: int, place: Path, rule: FileRule) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _distrusted(rule, place, _irregular_reason(status), "Name a regular file")
    _check_writers(descriptor, place, rule, sticky_will_do=False)
    if rule.secret and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        reason = f"others than its owner may use it (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _distrusted(rule, place, reason, f"Take that away: chmod 600 {place}")


def _check_private(status: os.stat_result, place: Path, rule: FileRule) -> None:
    """Refuse a folder that is not the running user's alone."""
    if status.st_uid != os.geteuid():
        reason = f"it belongs to uid {status.st_uid}, and the running user is {os.geteuid()}"
        raise _distrusted(rule, place, reason, f"Run this as uid {status.st_uid}, or chown {os.geteuid()} {place}")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        reason = f"others than its owner may use it (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _distrusted(rule, place, reason, f"Take that away: chmod 700 {place}")


def _check_writers(descriptor: int, place: Path, rule: FileRule, *, sticky_will_do: bool) -> None:
    """Refuse what others than root and the running user can change, unless it is mounted read-only."""
    if not rule.owner_checked or os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        return
    status = os.fstat(descriptor)
    what = "its folder" if stat.S_ISDIR(status.st_mode) else "it"
    if status.st_uid not in {0, os.geteuid()}:
        reason = f"{what} belongs to uid {status.st_uid}, which is neither root nor the running user"
        raise _distrusted(rule, place, reason, f"Run chown root {place}, or mount it read-only")
    if sticky_will_do and status.st_mode & stat.S_ISVTX:
        return
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"others than its owner may write {what} (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _distrusted(rule, place, reason, f"Run chmod go-w {place}, or mount it read-only")


def _irregular_reason(status: os.stat_result) -> str:
    return "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is a pipe, a socket or a device"


def _write_synced(path: Path, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Make a file that does not exist yet, down to the disk; when this fails, none is left."""
    with ExitStack() as undo:
        descriptor = os.open(path, CREATE_FLAGS, 0o600)
        undo.callback(path.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            status = os.fstat(descriptor)
            if owner and owner != (status.st_uid, status.st_gid):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        undo.pop_all()


def _sync_file_folder(path: Path) -> None:
    """Make the folder's own entries last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder_kind(rule: FileRule) -> str:
    return f"folder of the {rule.kind}"


def _distrusted(rule: FileRule, place: Path, reason: str, remedy: str, flaw: Flaw | None = None) -> PolicyError:
    return rule.error((Problem(key=rule.kind, origin=str(place), reason=reason, remedy=remedy, flaw=flaw),))


def _system_problem(kind: str, path: Path, error: OSError) -> Problem:
    unknown = (f"the system says: {error.strerror}", "")
    reason, remedy = ERROR_WORDS.get(error.errno or 0, unknown)
    shown = str(path) if len(str(path)) <= LONGEST_SHOWN_PATH else f"{str(path)[:LONGEST_SHOWN_PATH]}…"
    return Problem(key=kind, origin=shown, reason=reason, remedy=remedy)
