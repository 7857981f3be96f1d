"""Which shared libraries the programs of a box's file tree need, as the host's own loader resolves them.

All of them end up flat in one folder, so one name can mean one file only: a program that would bring another file of
the same name is left out where it is optional, and refused by name where it is required. Extension modules count as
programs here. Source: ldd(1), ld.so(8).
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path

from sandbox.errors import SandboxError

LDD_PLACES = (Path("/usr/bin/ldd"), Path("/bin/ldd"))
LDD_SECONDS = 120
LOADER_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
DLOPENED_LIBRARIES = ("libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
"""What glibc opens by name when a thread ends or a host name is looked up: no program lists them."""
C_LIBRARY = "libc.so.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatheredLibraries:
    """The libraries of a set of programs, at most one file under each name."""

    files: tuple[tuple[str, Path], ...]
    """Name in the box and file on the host, sorted by name."""
    omitted: tuple[tuple[Path, str], ...]
    """Optional programs that cannot be taken along, or libraries that are not there, each with the reason."""


def file_tree_error(origin: str, reason: str, remedy: str) -> SandboxError:
    """Name what keeps the box's own file tree from being built: without it nothing runs."""
    return SandboxError(key="file tree", origin=origin, reason=reason, remedy=remedy)


def needed_libraries(programs: Sequence[Path]) -> dict[Path, dict[str, Path | None]]:
    """Ask the host's loader what each program needs; a library it does not find is `None`.

    Raises:
        SandboxError: there is no `ldd`, or it does not answer.
    """
    ldd = next((place for place in LDD_PLACES if place.exists()), None)
    if ldd is None:
        raise file_tree_error(str(LDD_PLACES[0]), "not found", "Install the C library's tools (Debian: libc-bin)")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    try:
        # It exits 1 where any of the files is a script or static, which is no fault.
        answer = subprocess.run(
            [ldd, *programs],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LDD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise file_tree_error(str(ldd), f"does not answer: {error}", "See whether it works by hand") from error
    return parsed_ldd(answer.stdout.decode(errors="surrogateescape"), programs)


def parsed_ldd(text: str, programs: Sequence[Path]) -> dict[Path, dict[str, Path | None]]:
    """Read the answer of `ldd` about some programs; one alone has no heading."""
    needs: dict[Path, dict[str, Path | None]] = {program: {} for program in programs}
    current = programs[0]
    for line in text.splitlines():
        if not line.startswith("\t") and line.endswith(":"):
            current = Path(line[:-1])
            continue
        name, arrow, target = line.strip().rpartition(" (0x")[0].partition(" => ")
        if line.endswith("=> not found"):
            needs[current][line.strip().partition(" => ")[0]] = None
        elif arrow and target:
            needs[current][Path(name).name] = Path(target)
        elif name.startswith("/"):
            needs[current][Path(name).name] = Path(name)
    return needs


def gathered_libraries(
    required: Sequence[Path], optional: Sequence[Path], needs: Mapping[Path, Mapping[str, Path | None]]
) -> GatheredLibraries:
    """Bring together what all programs need, required ones first, so that they decide which file a name means.

    Raises:
        SandboxError: a required program lacks a library, needs another file of a name that is taken, or a loader that
            lies where the box has none.
    """
    files: dict[str, Path] = {}
    omitted: list[tuple[Path, str]] = []
    for program in required:
        if fault := _library_fault(files, needs[program]):
            remedy = "Install what is missing, or run under an interpreter of the system's own packages"
            raise file_tree_error(str(program), fault, remedy)
        files |= _found_libraries(needs[program])
    for program in optional:
        if fault := _library_fault(files, needs[program]):
            omitted.append((program, fault))
        else:
            files |= _found_libraries(needs[program])
    files = _dlopened_beside(files) | files
    return GatheredLibraries(files=tuple(sorted(files.items())), omitted=tuple(omitted))


def libraries_beside(
    taken: Mapping[str, Path],
    folder: Path,
    asking: Mapping[str, Path],
    needs: Mapping[Path, Mapping[str, Path | None]],
) -> GatheredLibraries:
    """Bring together what packages need besides what a box has already; a name that is taken stays as it is.

    Args:
        taken: what the box has, by name.
        folder: where the packages are: what the loader finds there comes with them.
        asking: by name of a library that packages ask for and do not bring along, one file of theirs that does.
        needs: the loader's answers for these files.
    """
    files = {
        name: path
        for program in asking.values()
        for name, path in needs[program].items()
        if path is not None and name not in taken and not Path(os.path.normpath(path)).is_relative_to(folder)
    }
    missing = tuple(
        (Path(name), f"{program.relative_to(folder)} asks for it, and the loader does not find it")
        for name, program in asking.items()
        if needs[program].get(name) is None
    )
    return GatheredLibraries(files=tuple(sorted(files.items())), omitted=missing)


def _found_libraries(needed: Mapping[str, Path | None]) -> dict[str, Path]:
    return {name: path for name, path in needed.items() if path is not None}


def _library_fault(taken: Mapping[str, Path], needed: Mapping[str, Path | None]) -> str:
    """Say why one program's libraries cannot join those already taken, or nothing."""
    for name, path in needed.items():
        if path is None:
            return f"its library {name} is not found"
        if name.startswith("ld") and str(path.parent) not in LOADER_FOLDERS:
            return f"its loader is {path}, which lies outside {', '.join(LOADER_FOLDERS)}"
        if name in taken and not _same_library(taken[name], path):
            return f"two different files are called {name}: {taken[name]} and {path}"
    return ""


def _same_library(first: Path, second: Path) -> bool:
    return first == second or first.samefile(second) or cmp(first, second, shallow=False)


def _dlopened_beside(files: Mapping[str, Path]) -> dict[str, Path]:
    """Find what glibc itself opens later, beside the C library that was taken."""
    if C_LIBRARY not in files:
        return {}
    folder = files[C_LIBRARY].parent
    return {name: folder / name for name in DLOPENED_LIBRARIES if (folder / name).exists()}
