"""Whose runs a command looks at: the running user's, or for root another user's.

Root looks at another user's runs *as* that user: what lies in their folder is theirs to fill, with links and names of
other people's processes too, and so none of it can lead root anywhere that they could not go themselves.
Source: setresuid(2): the saved id leads back; kill(2): only the real and the effective one permit a signal.
"""

import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.folders import private_folder, private_folder_path
from sandbox.leases import RUNS_FOLDER


@contextmanager
def owned_runs(
    user: str | None,
    environ: Mapping[str, str],
    *,
    password_entry: Callable[[str], pwd.struct_passwd] = pwd.getpwnam,
) -> Iterator[Path]:
    """The folder of a user's runs, whether or not it exists; while the context lasts, this process is that user.

    Args:
        user: a name of the password database; the running user if absent.
        environ: where the running user's own private folder is looked up.
        password_entry: looks a name up, and raises a KeyError where there is none.

    Raises:
        SandboxError: there is no such user, they are not the running one and that is not root, or their folder is not
            theirs alone.
    """
    entry = None if user is None else _known_user(user, password_entry)
    if entry is None or entry.pw_uid == os.geteuid():
        yield _folder_if_there(environ, os.geteuid()) / RUNS_FOLDER
        return
    if os.geteuid() != 0:
        raise SandboxError(
            key=entry.pw_name,
            origin="--user",
            reason="only root may look at another user's runs",
            remedy="Leave --user out, or run it as root",
        )
    with _acting_as(entry):
        yield _folder_if_there({"HOME": entry.pw_dir}, entry.pw_uid) / RUNS_FOLDER


def _known_user(user: str, password_entry: Callable[[str], pwd.struct_passwd]) -> pwd.struct_passwd:
    try:
        return password_entry(user)
    except (KeyError, ValueError):
        raise SandboxError(
            key=user, origin="--user", reason="there is no such user here", remedy="`getent passwd` lists them"
        ) from None


def _folder_if_there(environ: Mapping[str, str], uid: int) -> Path:
    """The private folder, checked where there is one; who only looks makes none."""
    path = private_folder_path(environ, uid)
    return private_folder(environ, uid) if os.path.lexists(path) else path


@contextmanager
def _acting_as(entry: pwd.struct_passwd) -> Iterator[None]:
    """Be another user, with nothing of root's, until the context ends."""
    groups = os.getgroups()
    try:
        os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
        os.setresgid(entry.pw_gid, entry.pw_gid, 0)
        os.setresuid(entry.pw_uid, entry.pw_uid, 0)
    except PermissionError as error:
        raise SandboxError(
            key=entry.pw_name,
            origin="--user",
            reason=f"this process may not act as that user: {error.strerror}",
            remedy="Run it with the capabilities SETUID and SETGID, or as that user",
        ) from error
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)
