"""Folders of the host that no box may see, and whether a folder that is to be offered overlaps one of them.

Deciding is a pure function over values. Gathering them (password database, environment, where Open WebUI lies) is at
the end of this module; the settings that name folders are read by the session. One folder under two names, as bind
mounts make it, is one folder: device and inode tell.

Source: Open WebUI 0.12, `env.py` (`DATA_DIR`, `DATABASE_URL`) and `__init__.py` (`WEBUI_SECRET_KEY_FILE`).
"""

import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

SYSTEM_FOLDERS = ("/boot", "/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/var")
"""What a host keeps there is state, secrets or devices, and never packages."""
GATHERING_FOLDERS = ("/", "/media", "/mnt", "/opt", "/srv", "/tmp", "/usr", "/usr/local")  # noqa: S108 -- nothing is made in it
"""Packages may have a folder of their own in one of these; the whole holds much else, and what others put there."""
FIRST_PERSONS_UID = 1_000
NOBODY_UID = 65_534
"""Accounts of people lie between these two, and root's is 0. Source: Debian policy 9.2.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFolder:
    """A folder, or a file, and what people call it."""

    name: str
    """For the one who reads why something was refused."""
    path: Path
    """Absolute, symbolic links followed."""
    identities: tuple[tuple[int, int], ...] = ()
    """Device and inode of it and of each folder above it, nearest first; empty where it is not there."""
    inside_allowed: bool = False
    """Whether a folder within it may be offered all the same, so long as it does not hold the whole."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """It and each folder above it, nearest first."""
        return (self.path, *self.path.parents)


def overlapped(offered: NamedFolder, off_limits: tuple[NamedFolder, ...]) -> tuple[NamedFolder, str] | None:
    """The first of some folders that a folder overlaps, and how: a verb that stands between the two."""
    for named in off_limits:
        if offered.path == named.path or offered.identities[:1] == named.identities[:1] != ():
            return named, "is"
        if offered.path in named.paths or _stands_in(offered.identities[:1], named.identities):
            return named, "contains"
        within = named.path in offered.paths or _stands_in(named.identities[:1], offered.identities)
        if within and not named.inside_allowed:
            return named, "lies within"
    return None


def _stands_in(first: tuple[tuple[int, int], ...], chain: tuple[tuple[int, int], ...]) -> bool:
    return bool(first) and first[0] in chain


def named_folder(name: str, path: str | Path, *, inside_allowed: bool = False) -> NamedFolder:
    """Name a folder or file as it stands on this host; it may be missing."""
    real = Path(os.path.realpath(path))
    identities: list[tuple[int, int]] = []
    for place in (real, *real.parents):
        try:
            status = place.stat()
        except OSError:
            identities.clear()
            break
        identities.append((status.st_dev, status.st_ino))
    return NamedFolder(name=name, path=real, identities=tuple(identities), inside_allowed=inside_allowed)


def host_off_limits(environ: Mapping[str, str], private: Path) -> tuple[NamedFolder, ...]:
    """Everything that no box may see on this host, besides what settings name.

    Args:
        environ: this process's environment, where Open WebUI's own variables may name its data.
        private: the runner's own folder.
    """
    return (
        *(named_folder("where much else lies", path, inside_allowed=True) for path in GATHERING_FOLDERS),
        *(named_folder("one of the system's own folders", path) for path in SYSTEM_FOLDERS),
        named_folder("the sandbox's private folder", private),
        *_open_webui_folders(environ),
        *_homes(environ),
        named_folder("the folder that this process works in", Path.cwd(), inside_allowed=True),
    )


def _open_webui_folders(environ: Mapping[str, str]) -> Iterator[NamedFolder]:
    """Where Open WebUI keeps its data, or keeps it where nothing else is said; it is found without importing it."""
    for variable in ("DATA_DIR", "WEBUI_SECRET_KEY_FILE"):
        if path := environ.get(variable):
            yield named_folder(f"Open WebUI's own ({variable})", path)
    database = urlsplit(environ.get("DATABASE_URL", ""))
    if database.scheme.startswith("sqlite") and len(database.path) > 1:
        yield named_folder("Open WebUI's own (DATABASE_URL)", database.path[1:])
    for place in _open_webui_places():
        yield named_folder("Open WebUI itself, which holds its data", place)
        yield named_folder("Open WebUI's data", place.parent / "data")


def _open_webui_places() -> tuple[Path, ...]:
    try:
        found = find_spec("open_webui")
    except ValueError:  # loaded in a way that hides where it came from
        return ()
    return tuple(map(Path, found.submodule_search_locations or ())) if found else ()


def _homes(environ: Mapping[str, str]) -> Iterator[NamedFolder]:
    """The homes of root, of people, and of this process; an account whose home is `/` has none."""
    if environ.get("HOME", "").startswith("/"):
        yield named_folder("this process's home (HOME)", environ["HOME"], inside_allowed=environ["HOME"] == "/")
    for account in pwd.getpwall():
        person = account.pw_uid == 0 or FIRST_PERSONS_UID <= account.pw_uid < NOBODY_UID
        if person and account.pw_dir.startswith("/") and os.path.realpath(account.pw_dir) != "/":
            yield named_folder(f"the home of {account.pw_name}", account.pw_dir)
