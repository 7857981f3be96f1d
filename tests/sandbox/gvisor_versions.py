"""The two releases of gVisor that Debian ships, for tests that hold each to the same.

They come from this host's own Debian sources with another suite in place of its own, signed as ever, and lie in
`build/gvisor-<suite>`; nothing is installed system-wide.
"""

import os
import platform
import re
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

from sandbox.debian import AptHost, apt_host, unpack_debian
from sandbox.folders import folder_lock, partial_folder, publish_folder
from sandbox.gvisor import Runsc, RunscOrigin
from sandbox.runsc_program import offline_arguments, runsc_flags, runsc_version

GVISOR_OF_SUITE = {"bookworm": "20221219", "trixie": "20240729"}
"""By Debian's suite, the version of gVisor in it."""
_BUILD = Path(__file__).parents[2] / "build"
_LOCK_SECONDS = 300.0


def debians_runsc(suite: str) -> Runsc:
    """The gVisor of a suite of Debian, fetched where it is not there yet."""
    folder = _BUILD / f"gvisor-{suite}"
    _BUILD.mkdir(exist_ok=True)
    with folder_lock(_BUILD, wait_seconds=_LOCK_SECONDS, on_wait=lambda: None):
        if not (folder / "runsc").exists():
            _fetch(suite, folder)
    version = runsc_version(folder / "runsc")
    return Runsc(
        path=folder / "runsc",
        version=version,
        origin=RunscOrigin.PREINSTALLED,
        released=date.fromisoformat(version[:8]),
        arguments=offline_arguments(runsc_flags(folder / "runsc")),
    )


def _fetch(suite: str, destination: Path) -> None:
    with partial_folder(_BUILD) as etc, partial_folder(_BUILD) as made:
        unpack_debian(_host_of(suite, etc / "apt"), made, print)
        made.chmod(0o755)  # root without CAP_DAC_OVERRIDE and others start it too
        publish_folder(made, destination)


def _host_of(suite: str, etc: Path) -> AptHost:
    """This host as apt shall see it, had it been installed with that suite."""
    shutil.copytree("/etc/apt", etc)
    own = next(
        line for line in Path("/etc/os-release").read_text().splitlines() if line.startswith("VERSION_CODENAME=")
    )
    for path in (etc / "sources.list", *(etc / "sources.list.d").glob("*")):
        if path.exists():
            path.write_text(with_suite(path.read_text(), own.partition("=")[2], suite))
    return replace(apt_host(platform.machine(), os.environ), etc=etc)


def with_suite(sources: str, own: str, wanted: str) -> str:
    """Apt's sources with one suite in place of the host's own, and without all others such as updates."""
    entries = [entry for entry in re.split(r"\n\s*\n", sources) if entry.strip()]
    kept = [
        re.sub(r"^Suites:.*$", f"Suites: {wanted}", entry, flags=re.MULTILINE)
        for entry in entries
        if own in next(iter(re.findall(r"^Suites:(.*)$", entry, re.MULTILINE)), "").split()
    ]
    lines = [line for line in sources.splitlines() if line.startswith("deb ") and f" {own} " in line]
    return "\n\n".join([*kept, *(line.replace(f" {own} ", f" {wanted} ") for line in lines)]) + "\n"
