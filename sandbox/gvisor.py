"""A gVisor to run code with: found on this host, or installed into the private folder.

What was installed here is a folder that holds `runsc`, its sidecars and a list of both, put in place in one step after
`runsc --version` worked; one that lost a file counts as missing. Newer releases need the sidecars of `gvisor-bin`
beside `runsc`, and for a while fetched missing ones themselves. So `runsc` always gets an empty environment and, where
`runsc flags` knows them, the arguments that make it fail instead.
Source: https://github.com/google/gvisor, runsc/gvisorbinaries/gvisorbinaries.go.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path

from sandbox.debian import AptHost, unpack_debian
from sandbox.errors import InstallError
from sandbox.folders import UnsafeFolderError, folder_lock, partial_folder, publish_folder, trusted_path
from sandbox.release import (
    INSTALL_OTHERWISE,
    OutOfReachError,
    ReleaseSource,
    release_below_minimum,
    unpack_release,
    version_reaches,
)
from sandbox.runsc_program import HOW_TO_PRE_INSTALL, offline_arguments, runsc_flags, runsc_version, unusable_runsc

_INSTALLATION_NOTE = "installation.json"
_SYSTEM_PROGRAM_FOLDERS = ("/usr/local/bin", "/usr/bin")
_INSTALL_LOCK_SECONDS = 2400.0
_UPGRADE_ANSWER_SECONDS = 5.0  # where a gVisor is there already, a host without a way out shall not wait for long


class RunscOrigin(StrEnum):
    """Where a `runsc` came from."""

    RELEASE = "release"
    """gVisor's official archive, installed into the private folder."""
    DEBIAN = "debian"
    """Debian's package, unpacked into the private folder."""
    PREINSTALLED = "preinstalled"
    """Somebody put it on this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runsc:
    """A `runsc` that works on this host."""

    path: Path
    """The program, without symbolic links."""
    version: str
    """`YYYYMMDD` or `YYYYMMDD.N`; what it calls itself, where that is no date."""
    origin: RunscOrigin
    """Where it came from."""
    released: date | None
    """The date in its version, where there is one."""
    arguments: tuple[str, ...] = ()
    """What must stand before every subcommand, so that it never downloads anything."""

    def age_days(self, today: date) -> int | None:
        """How many days ago it was released, where that is known."""
        return None if self.released is None else (today - self.released).days


def find_runsc(
    folder: Path, path_env: str, source: ReleaseSource, *, machine: str, uid: int | None = None
) -> Runsc | None:
    """A usable `runsc` that reaches the minimum version: the wanted release, Debian's, then one put on this host.

    Args:
        folder: the private folder.
        path_env: value of `PATH`.
        source: which release is wanted, and the minimum.
        machine: as `uname -m` names it.
        uid: the running user; by default the effective one.

    Raises:
        InstallError: the `runsc` on this host does not start, or somebody else could have put it there.
    """
    own = _installed_runsc(folder / "gvisor", source, machine)
    return own or _preinstalled_runsc(path_env, source, os.geteuid() if uid is None else uid)


def install_runsc(folder: Path, source: ReleaseSource, host: AptHost, report: Callable[[str], None]) -> Runsc:
    """Install the official release; where its host is out of reach, Debian's package. Blocks, for minutes at worst.

    Args:
        folder: the private folder.
        source: the release.
        host: the machine, and what apt may know of it.
        report: gets a sentence at each step, for people.

    Raises:
        InstallError: neither could be installed, or neither would be new enough; nothing half-made is left behind.
    """
    too_old = release_below_minimum(source)
    if too_old is not None:
        raise too_old
    place = folder / "gvisor"
    with _installing_alone(place, report):
        made_meanwhile = _installed_runsc(place, source, host.machine)
        return made_meanwhile or _install_release_or_debian(place, source, host, report)


def upgraded_runsc(
    found: Runsc, folder: Path, source: ReleaseSource, machine: str, report: Callable[[str], None]
) -> Runsc:
    """The wanted release in place of an older gVisor that can be used; where it cannot be had, the older one.

    Args:
        found: what `find_runsc` found.
        folder: the private folder.
        source: the release; its host gets a few seconds to answer.
        machine: as `uname -m` names it.
        report: gets a sentence at each step, and one that says why the older one stays.
    """
    if version_reaches(found.version, source.version):
        return found
    place = folder / "gvisor"
    impatient = replace(source, limits=replace(source.limits, answer_seconds=_UPGRADE_ANSWER_SECONDS))
    try:
        with _installing_alone(place, report):
            made_meanwhile = _installed_runsc(place, source, machine)
            if made_meanwhile is not None and made_meanwhile.origin is RunscOrigin.RELEASE:
                return made_meanwhile
            return _install_release(place, impatient, machine, report)
    except InstallError as error:
        why = f"release {source.version} cannot be had: {error.key} ({error.origin}): {error.reason}"
        report(f"gVisor {found.version} stays, since {why}.")
        return found


def auto_install_refused(source: ReleaseSource, origin: str) -> InstallError:
    """The error for a host without gVisor where policy does not permit fetching one.

    Args:
        source: which gVisor is wanted.
        origin: who decided so, such as `environment`.
    """
    least = f" of at least version {source.min_version}" if source.min_version else ""
    return release_below_minimum(source) or InstallError(
        key="SANDBOX_AUTO_INSTALL",
        origin=origin,
        reason=f"there is no usable gVisor{least} on this host, and installing one automatically is not permitted",
        remedy=f"{HOW_TO_PRE_INSTALL}; or permit it with SANDBOX_AUTO_INSTALL=true",
    )


@contextmanager
def _installing_alone(place: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the folder of installations; what the disk says against it becomes an error of ours."""
    with _install_disk_errors(place):
        place.mkdir(mode=0o700, exist_ok=True)
        with folder_lock(
            place,
            wait_seconds=_INSTALL_LOCK_SECONDS,
            on_wait=lambda: report("Waiting for another process that is installing gVisor…"),
        ):
            yield


def _install_release_or_debian(
    place: Path, source: ReleaseSource, host: AptHost, report: Callable[[str], None]
) -> Runsc:
    try:
        return _install_release(place, source, host.machine, report)
    except OutOfReachError as unreachable:
        report("The official gVisor release is out of reach, so Debian's package is tried…")
        try:
            return _install_debian(place, source, host, report)
        except InstallError as refusal:
            raise InstallError(
                key="gVisor",
                origin="this host",
                reason=f"{unreachable.origin}: {unreachable.reason}; {refusal.key}: {refusal.reason}",
                remedy=INSTALL_OTHERWISE,
            ) from refusal


def _install_release(place: Path, source: ReleaseSource, machine: str, report: Callable[[str], None]) -> Runsc:
    with partial_folder(place) as folder:
        unpack_release(source, machine, folder, report)
        made = _verified_runsc(folder, RunscOrigin.RELEASE, source.version)
        return _published_runsc(made, place / f"{source.version}-{machine}", report)


def _install_debian(place: Path, source: ReleaseSource, host: AptHost, report: Callable[[str], None]) -> Runsc:
    with partial_folder(place) as folder:
        package_version = unpack_debian(host, folder, report)
        made = _verified_runsc(folder, RunscOrigin.DEBIAN, None)
        if not version_reaches(made.version, source.min_version):
            raise InstallError(
                key="Debian's package runsc",
                origin="apt",
                reason=f"it is gVisor {made.version}, and SANDBOX_GVISOR_MIN_VERSION is {source.min_version}",
                remedy=INSTALL_OTHERWISE,
            )
        return _published_runsc(made, place / f"debian-{package_version}", report)


def _verified_runsc(folder: Path, origin: RunscOrigin, wanted: str | None) -> Runsc:
    """Start what was unpacked, check that it is what it should be, and note beside it what belongs to it."""
    path = folder / "runsc"
    version = runsc_version(path)
    if wanted is not None and version != wanted and not version.startswith(f"{wanted}."):
        raise unusable_runsc(path, f"it says that it is version {version}, not {wanted}")
    made = Runsc(
        path=path,
        version=version,
        origin=origin,
        released=_release_date(version),
        arguments=offline_arguments(runsc_flags(path)),
    )
    files = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    note = {"version": version, "origin": origin, "arguments": made.arguments, "files": files}
    (folder / _INSTALLATION_NOTE).write_text(json.dumps(note, indent=1, sort_keys=True), encoding="utf-8")
    return made


def _published_runsc(made: Runsc, destination: Path, report: Callable[[str], None]) -> Runsc:
    publish_folder(made.path.parent, destination)
    report(f"Installed gVisor {made.version} ({made.origin}).")
    return replace(made, path=destination / "runsc")


def _installed_runsc(place: Path, source: ReleaseSource, machine: str) -> Runsc | None:
    """The wanted release where it is complete, else the newest package of Debian's."""
    candidates = [place / f"{source.version}-{machine}", *place.glob("debian-*")]
    complete = [found for found in map(_read_installation, candidates) if found is not None]
    usable = [found for found in complete if version_reaches(found.version, source.min_version)]
    return max(usable, key=lambda found: (found.origin is RunscOrigin.RELEASE, found.version), default=None)


def _read_installation(folder: Path) -> Runsc | None:
    """What was installed in a folder, where each of its files is still there as it was."""
    try:
        note = json.loads((folder / _INSTALLATION_NOTE).read_text(encoding="utf-8"))
        if not all(_is_intact_program(folder / name, size) for name, size in note["files"].items()):
            return None
        return Runsc(
            path=folder / "runsc",
            version=note["version"],
            origin=RunscOrigin(note["origin"]),
            released=_release_date(note["version"]),
            arguments=tuple(note["arguments"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # whatever happened to it, it gets installed anew


def _is_intact_program(path: Path, size: int) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_size == size and bool(found.st_mode & stat.S_IXUSR)


def _preinstalled_runsc(path_env: str, source: ReleaseSource, uid: int) -> Runsc | None:
    for path in _runsc_programs(path_env):
        try:
            trusted = trusted_path(path, uid, group_may_write=True)
        except UnsafeFolderError as error:
            raise unusable_runsc(
                path, f"somebody else could have put it there: {error.origin}: {error.reason}"
            ) from error
        if trusted.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise unusable_runsc(path, "others can write it")
        version = runsc_version(trusted)
        if version_reaches(version, source.min_version):
            return Runsc(
                path=trusted,
                version=version,
                origin=RunscOrigin.PREINSTALLED,
                released=_release_date(version),
                arguments=offline_arguments(runsc_flags(trusted)),
            )
    return None


def _runsc_programs(path_env: str) -> Iterator[Path]:
    """Each executable file called runsc on the way, once; relative entries depend on our folder and do not count."""
    for folder in dict.fromkeys([*path_env.split(":"), *_SYSTEM_PROGRAM_FOLDERS]):
        path = Path(folder, "runsc")
        if folder.startswith("/") and path.is_file() and os.access(path, os.X_OK):
            yield path


def _release_date(version: str) -> date | None:
    try:
        return datetime.strptime(version[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


@contextmanager
def _install_disk_errors(place: Path) -> Iterator[None]:
    """Say of a full or read-only disk what it is."""
    try:
        yield
    except TimeoutError as error:
        raise InstallError(
            key="gVisor",
            origin=str(place),
            reason=f"another process is installing it and does not end ({error})",
            remedy="End that process, or pre-install gVisor",
        ) from error
    except OSError as error:
        raise InstallError(
            key="gVisor",
            origin=str(error.filename or place),
            reason=f"it cannot be written: {error.strerror or error}",
            remedy="Free space there, or set XDG_CACHE_HOME to a folder with 1 GB free that permits programs",
        ) from error
