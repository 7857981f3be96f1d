"""The box's own file tree: a copy of interpreter, standard library and listed commands, built once and only read.

Everything in it comes from a list: modules that belong to the standard library, commands named below, the shared
libraries these need, and a few files written here. Nothing of the caller (site-packages, working directory, home)
is looked at, and no host path is in the box. A tree lies at `<private folder>/trees/<digest>/`, its completion marker
beside it at `<digest>.json`, where the box cannot see it. It is built in a temporary sibling under a lock and appears
by one rename; what a crash leaves begins with `.building-` and goes at the next build.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from sandbox.shared_libraries import file_tree_error, gathered_libraries, needed_libraries

TREE_FORMAT = 1
"""Raised with every change of what a tree holds."""
TREES_FOLDER = "trees"
BUILDING_PREFIX = ".building-"
BOX_UID = 1000
BOX_PYTHON = "/usr/bin/python3"
BOX_BASH = "/usr/bin/bash"
COMPILE_SECONDS = 300

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
SHELLS_OF_SCRIPTS = ("#!/bin/sh", "#!/bin/bash", "#!/usr/bin/sh", "#!/usr/bin/bash", "#!/usr/bin/env bash")

EXCLUDED_MODULES = frozenset(
    {"ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "tkinter", "turtle", "turtledemo"}
)
EXCLUDED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
EXCLUDED_EXTENSIONS = ("_test", "_ctypes_test", "_tkinter", "_xxtestfuzz", "xxlimited", "xxsubtype")
CERTIFICATE_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
BOX_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
ZONES = "/usr/share/zoneinfo"
EXCLUDED_ZONES = frozenset({"right", "posix"})
C_UTF8_LOCALES = ("/usr/lib/locale/C.utf8", "/usr/lib/locale/C.UTF-8")

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
TREE_FOLDERS = ("proc", "dev", "tmp", "usr/bin", "usr/lib/ssl", "etc/ssl/certs", "usr/share/zoneinfo", "var")
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
    ("etc/resolv.conf", ""),
)

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

    @property
    def digest(self) -> str:
        """SHA-256 over the format, the fixed parts and the identity of each file, in lower-case hexadecimal."""
        return _identity_digest(f"{TREE_FORMAT} {self.interpreter.executable.name}", self.sources)

    @property
    def required_destinations(self) -> frozenset[str]:
        """The programs without which there is no tree."""
        return frozenset(
            {_python_destination(self.interpreter), *(f"usr/bin/{name}" for name in REQUIRED_COMMANDS.split())}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTree:
    """A complete tree, to be mounted read-only as a box's root."""

    root: Path
    """Its folder on the host."""
    digest: str
    """Names everything in it: another interpreter, library or command gives another digest."""
    python: str
    """The interpreter's path in the box."""
    bash: str
    """Bash's path in the box."""
    file_count: int
    """Regular files in it."""
    size_bytes: int
    """Bytes of all files in it, each counted once."""
    omitted: tuple[str, ...]
    """Optional programs and modules of this host that could not be taken along, each with the reason."""


def planned_tree(interpreter: Interpreter) -> TreePlan:
    """List what goes into the tree, touching no file's content; takes a few milliseconds.

    Raises:
        SandboxError: the interpreter or a required command is not there in a form that can be copied.
    """
    sources = (
        *_interpreter_sources(interpreter),
        *_standard_library_sources(interpreter),
        *_command_sources(),
        *_data_sources(),
    )
    return TreePlan(interpreter=interpreter, sources=sources)


def build_tree(folder: Path, interpreter: Interpreter, report: Callable[[str], None]) -> FileTree:
    """Return the tree for an interpreter, building it if there is none yet; blocks while it does.

    Args:
        folder: the runner's private folder; made if it is not there.
        interpreter: whose standard library it is.
        report: told in a few words, only when a tree has to be built.

    Raises:
        SandboxError: the tree cannot be built, or the folder is open to others.
    """
    plan = planned_tree(interpreter)
    try:
        trees = _private_folder(folder) / TREES_FOLDER
        _private_folder(trees)
        if ready := _ready_tree(trees, plan):
            return ready
        with _tree_lock(trees):
            # Another process may have built it while this one waited.
            if ready := _ready_tree(trees, plan):
                return ready
            report("Building the sandbox's own file tree...")
            _remove_leftovers(trees)
            return _built_tree(trees, plan)
    except OSError as error:
        origin = str(error.filename or folder)
        raise file_tree_error(
            origin, error.strerror or str(error), "Give this account a writable folder with space in it"
        ) from error


# Planning


def _identity_digest(heading: str, sources: tuple[TreeSource, ...]) -> str:
    lines = (f"{one.destination}\0{one.size}\0{one.mtime_ns}\0{one.inode}" for one in sources)
    return hashlib.sha256("\n".join((heading, *lines)).encode(errors="surrogateescape")).hexdigest()


def _tree_source(destination: str, source: str, status: os.stat_result | None = None) -> TreeSource:
    status = status or os.stat(source)  # noqa: PTH116 - hundreds of these at each start
    return TreeSource(
        destination=destination, source=source, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino
    )


def _python_destination(interpreter: Interpreter) -> str:
    return f"usr/bin/{interpreter.standard_library.name}"


def _interpreter_sources(interpreter: Interpreter) -> Iterator[TreeSource]:
    if not _is_elf(interpreter.executable):
        raise file_tree_error(str(interpreter.executable), "is not a program in machine code", STANDARD_LIBRARY_REMEDY)
    yield _tree_source(_python_destination(interpreter), str(interpreter.executable))


def _is_elf(path: Path) -> bool:
    return _first_bytes(path).startswith(b"\x7fELF")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _standard_library_sources(interpreter: Interpreter) -> Iterator[TreeSource]:
    home, base = interpreter.standard_library, f"usr/lib/{interpreter.standard_library.name}"
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
        yield _tree_source(destination, source, entry.stat())


def _command_sources() -> Iterator[TreeSource]:
    required = frozenset(REQUIRED_COMMANDS.split())
    for name in sorted(required.union(OPTIONAL_COMMANDS.split())):
        found = next((f"{place}/{name}" for place in COMMAND_FOLDERS if os.access(f"{place}/{name}", os.X_OK)), None)
        if found is not None:
            yield _tree_source(f"usr/bin/{name}", os.path.realpath(found))
        elif name in required:
            remedy = "Install it (Debian: bash, coreutils, grep and sed hold all that are needed)"
            raise file_tree_error(name, f"not found in {', '.join(COMMAND_FOLDERS)}", remedy)


def _data_sources() -> Iterator[TreeSource]:
    """List certificates, the C.UTF-8 locale, and of the time zones the file that names their version."""
    bundle = next((path for path in CERTIFICATE_BUNDLES if os.access(path, os.R_OK)), None)
    if bundle is not None:
        yield _tree_source(BOX_CERTIFICATES, os.path.realpath(bundle))
    for version_file in ("tzdata.zi", "zone.tab"):
        if Path(ZONES, version_file).is_file():
            yield _tree_source(f"usr/share/zoneinfo/{version_file}", os.path.realpath(f"{ZONES}/{version_file}"))
    locale = next((Path(path) for path in C_UTF8_LOCALES if Path(path).is_dir()), None)
    for path in sorted(locale.rglob("*")) if locale else ():
        if path.is_file() and not path.is_symlink():
            yield _tree_source(f"usr/lib/locale/C.utf8/{path.relative_to(locale or path)}", str(path))


# Reusing


def _private_folder(folder: Path) -> Path:
    """Make a folder of this account's alone, or refuse the one that is there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_own(folder.lstat(), stat.S_IFDIR):
        raise file_tree_error(
            str(folder), "is not a folder that belongs to this account alone", f"Chown it and `chmod 700 {folder}`"
        )
    return folder


def _is_own(status: os.stat_result, kind: int) -> bool:
    """Tell whether something is of one kind, this account's, and nobody else can write it."""
    mine = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return mine and stat.S_IFMT(status.st_mode) == kind


def _ready_tree(trees: Path, plan: TreePlan) -> FileTree | None:
    """Find the complete tree of a plan whose shared libraries are still those of the host."""
    digest = plan.digest
    for marker in sorted(trees.glob("*.json")):
        tree = _marked_tree(marker, digest)
        if tree is not None:
            return tree
    return None


def _marked_tree(marker: Path, plan_digest: str) -> FileTree | None:
    root = marker.with_suffix("")
    try:
        if not (_is_own(marker.lstat(), stat.S_IFREG) and _is_own(root.lstat(), stat.S_IFDIR)):
            return None
        marked = json.loads(marker.read_text())
        libraries = tuple(TreeSource(**one) for one in marked["libraries"])
        unchanged = all(one == _tree_source(one.destination, one.source) for one in libraries)
        if marked["plan"] != plan_digest or not unchanged:
            return None
        if marker.stem != _identity_digest(plan_digest, libraries):
            return None
        return _file_tree(root, marked["file_count"], marked["size_bytes"], tuple(marked["omitted"]))
    except (OSError, ValueError, KeyError, TypeError):
        # Not a marker of this version, or not of this host any more: then there is no tree yet.
        return None


def _file_tree(root: Path, file_count: int, size_bytes: int, omitted: tuple[str, ...]) -> FileTree:
    return FileTree(
        root=root,
        digest=root.name,
        python=BOX_PYTHON,
        bash=BOX_BASH,
        file_count=file_count,
        size_bytes=size_bytes,
        omitted=omitted,
    )


# Building


@contextmanager
def _tree_lock(trees: Path) -> Iterator[None]:
    """Let one process build at a time; the kernel frees the lock of one that dies."""
    descriptor = os.open(trees / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(trees: Path) -> None:
    """Remove what a crashed build left: under the lock nobody else is building."""
    for leftover in trees.glob(f"{BUILDING_PREFIX}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _built_tree(trees: Path, plan: TreePlan) -> FileTree:
    """Build into a temporary sibling and rename it once it is complete and on disk."""
    sources, libraries, omitted = _chosen_sources(plan)
    root = trees / _identity_digest(plan.digest, libraries)
    building = trees / f"{BUILDING_PREFIX}{secrets.token_hex(8)}"
    building.mkdir(mode=0o700)
    try:
        _lay_out(building, plan.interpreter)
        _copy_sources(building, (*sources, *libraries))
        _copy_zones(building)
        _compile_library(building, plan.interpreter)
        file_count, size_bytes = _sealed(building)
        tree = _file_tree(root, file_count, size_bytes, omitted)
        os.sync()
        _write_marker(plan, libraries, tree)
        if root.exists() or root.is_symlink():
            # A tree without its marker is not believed.
            root.rename(trees / f"{BUILDING_PREFIX}{secrets.token_hex(8)}")
        building.rename(root)
        _sync_folder(trees)
    finally:
        _remove_leftovers(trees)
    return tree


def _chosen_sources(plan: TreePlan) -> tuple[tuple[TreeSource, ...], tuple[TreeSource, ...], tuple[str, ...]]:
    """Decide which optional programs can come along; returns files, shared libraries, and what was left out."""
    unusable = {one.destination: fault for one in plan.sources if one.is_command and (fault := _command_fault(one))}
    needed = plan.required_destinations
    for destination in sorted(needed & unusable.keys()):
        raise file_tree_error(f"/{destination}", unusable[destination], "Install the distribution's own package")
    programs = [one for one in plan.sources if (one.is_command or one.is_extension) and one.destination not in unusable]
    gathered = gathered_libraries(
        [Path(one.source) for one in programs if one.destination in needed],
        [Path(one.source) for one in programs if one.destination not in needed],
        needed_libraries(sorted({Path(one.source) for one in programs})),
    )
    faults = {str(path): reason for path, reason in gathered.omitted}
    unusable |= {one.destination: faults[one.source] for one in programs if one.source in faults}
    files = tuple(one for one in plan.sources if one.destination not in unusable)
    libraries = tuple(_tree_source(f"usr/lib/{name}", os.path.realpath(path)) for name, path in gathered.files)
    return files, libraries, tuple(f"{name.rpartition('/')[2]}: {fault}" for name, fault in sorted(unusable.items()))


def _command_fault(command: TreeSource) -> str:
    """Say why a command could not run in the box, or nothing."""
    head = _first_bytes(Path(command.source))
    if head.startswith(b"\x7fELF"):
        return ""
    line = head.partition(b"\n")[0].decode(errors="replace").replace("#! ", "#!")
    return "" if line.startswith(SHELLS_OF_SCRIPTS) else "is a script for an interpreter that the box lacks"


def _lay_out(building: Path, interpreter: Interpreter) -> None:
    """Make folders, links and the files written here."""
    for folder in (*TREE_FOLDERS, f"usr/lib/{interpreter.standard_library.name}/lib-dynload"):
        (building / folder).mkdir(parents=True, exist_ok=True)
    binary = interpreter.standard_library.name
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
        if one != _tree_source(one.destination, one.source):
            raise file_tree_error(one.source, "changed while it was being copied", "Try again")
        copies[one.source] = target


def _copy_file(source: str, target: Path) -> None:
    status = Path(source).stat()
    shutil.copyfile(source, target)
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _compile_library(building: Path, interpreter: Interpreter) -> None:
    """Compile the standard library under the names that it has in the box: the host's own files tell host paths."""
    command = [str(interpreter.executable), "-I", "-S", "-X", "utf8", "-m", "compileall", "-q"]
    library = building / "usr/lib" / interpreter.standard_library.name
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


def _write_marker(plan: TreePlan, libraries: tuple[TreeSource, ...], tree: FileTree) -> None:
    """Write the completion marker beside the tree, on disk before the tree gets its name."""
    marked = {
        "plan": plan.digest,
        "libraries": [asdict(one) for one in libraries],
        "file_count": tree.file_count,
        "size_bytes": tree.size_bytes,
        "omitted": tree.omitted,
    }
    temporary = tree.root.parent / f"{BUILDING_PREFIX}{secrets.token_hex(8)}"
    temporary.mkdir(mode=0o700)
    with (temporary / "marker").open("x") as file:
        json.dump(marked, file, indent=1)
        os.fchmod(file.fileno(), 0o600)
        file.flush()
        os.fsync(file.fileno())
    (temporary / "marker").rename(tree.root.with_suffix(".json"))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
