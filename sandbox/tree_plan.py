"""Lists what goes into a box's file tree, touching no file's content: what it lists is also the tree's identity.

Everything in a tree comes from a list: modules that belong to the standard library, commands named below, a few files
of data. Nothing of the caller (site-packages, working directory, home) is looked at. Shared libraries are asked for
only when a tree is built.
"""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox.packages import Packages
from sandbox.shared_libraries import file_tree_error

TREE_FORMAT = 4
"""Raised with every change of what a tree holds."""

COMMAND_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
"""Where commands are taken from, whatever the caller's PATH says."""
REQUIRED_COMMANDS = (
    "bash sh basename cat chmod cp cut date dirname echo env expr false grep head id ln ls mkdir mktemp mv printf pwd "
    "readlink rm rmdir sed seq sleep sort stat tail tee test touch tr true uname uniq wc"
)
"""Without one of these there is no tree; separated by spaces."""
OPTIONAL_COMMANDS = (
    "[ arch awk b2sum base32 base64 bc bunzip2 bzcat bzip2 chgrp chown cksum cmp column comm csplit curl dc dd df diff "
    "diff3 dmesg du egrep expand factor fgrep find fmt fold free getent getopt gunzip gzip hexdump hostname install "
    "join jq kill link logname md5sum nice nl nohup nproc numfmt od paste patch pathchk pgrep pidof pkill printenv ps "
    "ptx realpath rev sdiff sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf split sum sync tac tar "
    "time timeout truncate tsort tty unexpand unlink unxz unzip uptime wget which whoami xargs xxd xz xzcat yes zcat "
    "zip"
)
"""Taken along where the host has them and they fit; separated by spaces."""

EXCLUDED_MODULES = frozenset(
    {"ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "tkinter", "turtle", "turtledemo"}
)
EXCLUDED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
EXCLUDED_EXTENSIONS = ("_test", "_ctypes_test", "_tkinter", "_xxtestfuzz", "xxlimited", "xxsubtype")
CERTIFICATE_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
BOX_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
ZONES = "/usr/share/zoneinfo"
C_UTF8_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")

STANDARD_LIBRARY_REMEDY = "Run under a CPython whose standard library is installed as files beside it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A CPython on the host, as far as a box needs it."""

    executable: Path
    """The program itself: no link, no virtual environment's copy."""
    standard_library: Path
    """The folder of the pure modules; its name is the one that the program looks for (`python3.11`)."""
    platform_library: Path
    """The folder that holds `lib-dynload`; mostly the same."""
    cache_tag: str
    """What its compiled files are named by (`cpython-311`)."""
    module_names: frozenset[str]
    """Top-level names of its standard library, as it lists them itself."""

    @property
    def library_name(self) -> str:
        """What its folders of modules are called (`python3.11`), in a box and in virtual environments."""
        return self.standard_library.name

    @classmethod
    def current(cls) -> Self:
        """Describe the interpreter that runs this, or the one behind the virtual environment it runs in."""
        base = {"installed_base": sys.base_prefix, "base": sys.base_prefix}
        base |= {"installed_platbase": sys.base_exec_prefix, "platbase": sys.base_exec_prefix}
        executable = getattr(sys, "_base_executable", None) or sys.executable
        return cls(
            executable=Path(os.path.realpath(executable)),
            standard_library=Path(os.path.realpath(sysconfig.get_path("stdlib", vars=base))),
            platform_library=Path(os.path.realpath(sysconfig.get_path("platstdlib", vars=base))),
            cache_tag=sys.implementation.cache_tag or "",
            module_names=sys.stdlib_module_names,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSource:
    """One file of the host that goes into the tree, and what tells that it is still the same."""

    destination: str
    """Where it goes, relative to the tree's root."""
    source: str
    """The file on the host: no link."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, in nanoseconds."""
    inode: int
    """Tells a replaced file that kept its size and time."""

    @property
    def is_command(self) -> bool:
        """Whether it is a program to start."""
        return self.destination.startswith("usr/bin/")

    @property
    def is_extension(self) -> bool:
        """Whether it is a module of the interpreter in machine code."""
        return self.destination.endswith(".so") and "/lib-dynload/" in self.destination


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePlan:
    """What a tree will hold, shared libraries apart: those are asked for only when it is built."""

    interpreter: Interpreter
    """Whose tree it is."""
    sources: tuple[TreeSource, ...]
    """All files of the host except shared libraries, compiled modules and time zones."""
    packages: Packages | None
    """The packages offered beside it, whose shared libraries it holds too."""

    @property
    def digest(self) -> str:
        """SHA-256 over the format, the fixed parts and the identity of each file, in lower-case hexadecimal.

        Packages are not in it: they change a tree only by the libraries that they need.
        """
        return identity_digest(f"{TREE_FORMAT} {self.interpreter.executable.name}", self.sources)

    @property
    def required_destinations(self) -> frozenset[str]:
        """The programs without which there is no tree."""
        return frozenset(
            {_python_destination(self.interpreter), *(f"usr/bin/{name}" for name in REQUIRED_COMMANDS.split())}
        )


def planned_tree(interpreter: Interpreter, packages: Packages | None = None) -> TreePlan:
    """List what goes into the tree; takes a few milliseconds.

    Raises:
        SandboxError: the interpreter or a required command is not there in a form that can be copied.
    """
    sources = (
        *_interpreter_sources(interpreter),
        *_standard_library_sources(interpreter),
        *_command_sources(),
        *_data_sources(),
    )
    return TreePlan(interpreter=interpreter, sources=sources, packages=packages)


def identity_digest(heading: str, sources: tuple[TreeSource, ...]) -> str:
    """SHA-256 over a heading and the identity of some files, in lower-case hexadecimal."""
    lines = (f"{one.destination}\0{one.size}\0{one.mtime_ns}\0{one.inode}" for one in sources)
    return hashlib.sha256("\n".join((heading, *lines)).encode(errors="surrogateescape")).hexdigest()


def tree_source(destination: str, source: str, status: os.stat_result | None = None) -> TreeSource:
    """Describe a file of the host as it is now."""
    status = status or os.stat(source)  # noqa: PTH116 - hundreds of these at each start
    return TreeSource(
        destination=destination, source=source, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino
    )


def _python_destination(interpreter: Interpreter) -> str:
    return f"usr/bin/{interpreter.library_name}"


def _interpreter_sources(interpreter: Interpreter) -> Iterator[TreeSource]:
    if not _is_elf(interpreter.executable):
        raise file_tree_error(str(interpreter.executable), "is not a program in machine code", STANDARD_LIBRARY_REMEDY)
    yield tree_source(_python_destination(interpreter), str(interpreter.executable))


def _is_elf(path: Path) -> bool:
    return first_bytes(path).startswith(b"\x7fELF")


def first_bytes(path: Path) -> bytes:
    """Read as much of a file as tells what kind of program it is."""
    with path.open("rb") as file:
        return file.read(64)


def _standard_library_sources(interpreter: Interpreter) -> Iterator[TreeSource]:
    home, base = interpreter.standard_library, f"usr/lib/{interpreter.library_name}"
    for required in ("os.py", "encodings/__init__.py"):
        if not (home / required).is_file():
            raise file_tree_error(str(home / required), "not found", STANDARD_LIBRARY_REMEDY)
    with os.scandir(home) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _belongs(entry.name, interpreter.module_names):
                yield from _module_sources(entry, f"{base}/{entry.name}", str(home))
    dynamic = interpreter.platform_library / "lib-dynload"
    if dynamic.is_dir():
        with os.scandir(dynamic) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.name.startswith(EXCLUDED_EXTENSIONS):
                    yield from _module_sources(entry, f"{base}/lib-dynload/{entry.name}", str(dynamic))


def _belongs(name: str, module_names: frozenset[str]) -> bool:
    """Tell whether a top-level entry is of the standard library: by its own list, not by lying in its folder."""
    module = name.partition(".")[0]
    return (module in module_names and module not in EXCLUDED_MODULES) or module.startswith("_sysconfigdata_")


def _module_sources(entry: os.DirEntry[str], destination: str, home: str) -> Iterator[TreeSource]:
    """List one module, or all modules of a package; links count only if they stay inside the library."""
    if entry.is_dir(follow_symlinks=False):
        if entry.name not in EXCLUDED_FOLDERS:
            with os.scandir(entry) as entries:
                for inner in sorted(entries, key=lambda inner: inner.name):
                    yield from _module_sources(inner, f"{destination}/{inner.name}", home)
        return
    if not entry.name.endswith((".py", ".so")) or not entry.is_file():
        return
    source = os.path.realpath(entry) if entry.is_symlink() else entry.path
    if source.startswith(f"{home}/"):
        yield tree_source(destination, source, entry.stat())


def _command_sources() -> Iterator[TreeSource]:
    required = frozenset(REQUIRED_COMMANDS.split())
    for name in sorted(required.union(OPTIONAL_COMMANDS.split())):
        found = next((f"{place}/{name}" for place in COMMAND_FOLDERS if os.access(f"{place}/{name}", os.X_OK)), None)
        if found is not None:
            yield tree_source(f"usr/bin/{name}", os.path.realpath(found))
        elif name in required:
            remedy = "Install it (Debian: bash, coreutils, grep and sed hold all that are needed)"
            raise file_tree_error(name, f"not found in {', '.join(COMMAND_FOLDERS)}", remedy)


def _data_sources() -> Iterator[TreeSource]:
    """List certificates, the C.UTF-8 locale, and of the time zones the file that names their version."""
    bundle = next((path for path in CERTIFICATE_BUNDLES if os.access(path, os.R_OK)), None)
    if bundle is not None:
        yield tree_source(BOX_CERTIFICATES, os.path.realpath(bundle))
    for version_file in ("tzdata.zi", "zone.tab"):
        if Path(ZONES, version_file).is_file():
            yield tree_source(f"usr/share/zoneinfo/{version_file}", os.path.realpath(f"{ZONES}/{version_file}"))
    locale = next((Path(path) for path in C_UTF8_LOCALES if Path(path).is_dir()), None)
    for path in sorted(locale.rglob("*")) if locale else ():
        if path.is_file() and not path.is_symlink():
            yield tree_source(f"usr/lib/locale/C.utf8/{path.relative_to(locale or path)}", str(path))
