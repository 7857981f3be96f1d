"""Builds a box's file tree in a folder of its own: copies what the plan lists, compiles it, and gives it its rights.

No host path is in the box: compiled modules are made anew under the names that they have there. Rights, owners and
attributes of the host's files are never taken over.
"""

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.elf import outside_needs
from sandbox.forwarder import EGRESS_FOLDER
from sandbox.packages import BOX_PACKAGES
from sandbox.shared_libraries import file_tree_error, gathered_libraries, libraries_beside, needed_libraries
from sandbox.tree_plan import ZONES, Interpreter, TreePlan, TreeSource, first_bytes, tree_source

BOX_UID = 1000
COMPILE_SECONDS = 300
EXCLUDED_ZONES = frozenset({"right", "posix"})
SHELLS_OF_SCRIPTS = ("#!/bin/sh", "#!/bin/bash", "#!/usr/bin/sh", "#!/usr/bin/bash", "#!/usr/bin/env bash")

TREE_LINKS = (
    ("bin", "usr/bin"),
    ("sbin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib"),
    ("usr/sbin", "bin"),
    ("usr/lib64", "lib"),
    ("usr/lib/ssl/certs", "/etc/ssl/certs"),
    ("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
    ("etc/mtab", "../proc/self/mounts"),
    ("var/tmp", "../tmp"),
    ("etc/localtime", "../usr/share/zoneinfo/Etc/UTC"),
)
TREE_FOLDERS = (
    "proc",
    "dev",
    "tmp",
    "usr/bin",
    "usr/lib/ssl",
    "etc/ssl/certs",
    "usr/share/zoneinfo",
    "var",
    BOX_PACKAGES.lstrip("/"),
    EGRESS_FOLDER.lstrip("/"),
)
BOX_ACCOUNTS = (
    "root:x:0:0:root:/:/bin/false\n"
    f"sandbox:x:{BOX_UID}:{BOX_UID}:sandbox:/tmp:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/:/bin/false\n"
)
TREE_TEXTS = (
    ("etc/passwd", BOX_ACCOUNTS),
    ("etc/group", f"root:x:0:\nsandbox:x:{BOX_UID}:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/os-release", 'NAME="Sandbox"\nID=sandbox\nPRETTY_NAME="Sandbox"\n'),
    ("etc/resolv.conf", "nameserver 127.0.0.1\n"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeChoice:
    """What of a plan goes into a tree, once programs and packages were asked for their shared libraries."""

    files: tuple[TreeSource, ...]
    """Everything else."""
    libraries: tuple[TreeSource, ...]
    """Shared libraries, those that packages need included."""
    omitted: tuple[str, ...]
    """Optional programs and modules that cannot come along, each with the reason."""
    missing: tuple[str, ...]
    """Libraries that packages ask for and nobody here has, each with the file that asks."""


def chosen_sources(plan: TreePlan) -> TreeChoice:
    """Decide which optional programs can come along, and with which shared libraries.

    Raises:
        SandboxError: a required program cannot come along.
    """
    unusable = {one.destination: fault for one in plan.sources if one.is_command and (fault := _command_fault(one))}
    needed = plan.required_destinations
    for destination in sorted(needed & unusable.keys()):
        raise file_tree_error(f"/{destination}", unusable[destination], "Install the distribution's own package")
    programs = [one for one in plan.sources if (one.is_command or one.is_extension) and one.destination not in unusable]
    folder = plan.packages.folder if plan.packages else Path(os.devnull)
    asking = outside_needs(folder)
    needs = needed_libraries(sorted({*(Path(one.source) for one in programs), *asking.values()}))
    gathered = gathered_libraries(
        [Path(one.source) for one in programs if one.destination in needed],
        [Path(one.source) for one in programs if one.destination not in needed],
        needs,
    )
    added = libraries_beside(dict(gathered.files), folder, asking, needs)
    faults = {str(path): reason for path, reason in gathered.omitted}
    unusable |= {one.destination: faults[one.source] for one in programs if one.source in faults}
    return TreeChoice(
        files=tuple(one for one in plan.sources if one.destination not in unusable),
        libraries=tuple(
            tree_source(f"usr/lib/{name}", os.path.realpath(path))
            for name, path in sorted((*gathered.files, *added.files))
        ),
        omitted=tuple(f"{name.rpartition('/')[2]}: {fault}" for name, fault in sorted(unusable.items())),
        missing=tuple(f"{path.name}: {reason}" for path, reason in added.omitted),
    )


def fill_tree(building: Path, interpreter: Interpreter, choice: TreeChoice) -> tuple[int, int]:
    """Make the whole tree in an empty folder; returns the number of its files and their bytes.

    Raises:
        SandboxError: a file changed meanwhile, or the interpreter does not compile.
        OSError: this host did not let it be made.
    """
    _lay_out(building, interpreter)
    _copy_sources(building, (*choice.files, *choice.libraries))
    _copy_zones(building)
    _compile_library(building, interpreter)
    return _sealed(building)


def _command_fault(command: TreeSource) -> str:
    """Say why a command could not run in the box, or nothing."""
    head = first_bytes(Path(command.source))
    if head.startswith(b"\x7fELF"):
        return ""
    line = head.partition(b"\n")[0].decode(errors="replace").replace("#! ", "#!")
    return "" if line.startswith(SHELLS_OF_SCRIPTS) else "is a script for an interpreter that the box lacks"


def _lay_out(building: Path, interpreter: Interpreter) -> None:
    """Make folders, links and the files written here."""
    for folder in (*TREE_FOLDERS, f"usr/lib/{interpreter.library_name}/lib-dynload"):
        (building / folder).mkdir(parents=True, exist_ok=True)
    binary = interpreter.library_name
    for link, target in (*TREE_LINKS, ("usr/bin/python3", binary), ("usr/bin/python", binary)):
        (building / link).symlink_to(target)
    for name, text in TREE_TEXTS:
        (building / name).write_text(text)


def _copy_sources(building: Path, sources: tuple[TreeSource, ...]) -> None:
    """Copy content and time, never rights, owners or attributes; one program under several names is kept once."""
    copies: dict[str, Path] = {}
    for one in sources:
        target = building / one.destination
        target.parent.mkdir(parents=True, exist_ok=True)
        if one.source in copies:
            target.hardlink_to(copies[one.source])
            continue
        _copy_file(one.source, target)
        target.chmod(0o755 if one.is_command or one.destination.startswith("usr/lib/ld") else 0o644)
        if one != tree_source(one.destination, one.source):
            raise file_tree_error(one.source, "changed while it was being copied", "Try again")
        copies[one.source] = target


def _copy_file(source: str, target: Path) -> None:
    status = Path(source).stat()
    shutil.copyfile(source, target)
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _compile_library(building: Path, interpreter: Interpreter) -> None:
    """Compile the standard library under the names that it has in the box: the host's own files tell host paths."""
    command = [str(interpreter.executable), "-I", "-S", "-X", "utf8", "-m", "compileall", "-q"]
    library = building / "usr/lib" / interpreter.library_name
    try:
        # Its exit code tells only that some module stays uncompiled, which costs time and nothing else.
        subprocess.run(
            [*command, "-s", str(building), "-p", "/", str(library)],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMPILE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise file_tree_error(str(interpreter.executable), f"does not compile: {error}", "Try it by hand") from error


def _copy_zones(building: Path) -> None:
    """Copy the time zones: plain files, and links that stay among them."""
    for folder, names, files in os.walk(ZONES):
        names[:] = [name for name in names if name not in EXCLUDED_ZONES]
        target_folder = building / "usr/share/zoneinfo" / Path(folder).relative_to(ZONES)
        target_folder.mkdir(exist_ok=True)
        for path in (Path(folder, name) for name in files):
            target = target_folder / path.name
            if path.is_symlink():
                if not path.readlink().is_absolute() and path.resolve().is_relative_to(ZONES) and path.is_file():
                    target.symlink_to(path.readlink())
            elif path.is_file() and not target.exists():
                _copy_file(str(path), target)


def _sealed(building: Path) -> tuple[int, int]:
    """Give every file and folder the rights it has in the box; returns the number of files and their bytes."""
    seen: dict[int, int] = {}
    count = 0
    for folder, _, files in os.walk(building):
        Path(folder).chmod(0o755)
        for path in (Path(folder, name) for name in files):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                path.chmod(0o755 if status.st_mode & stat.S_IXUSR else 0o644)
                seen[status.st_ino] = status.st_size
                count += 1
    return count, sum(seen.values())
