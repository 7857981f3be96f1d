"""The first file system of the virtual machine: busybox, the modules that reach the host's files, and a script.

It is an uncompressed archive in memory's own order of bytes, written here, so that no program for it is needed.
Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst (newc) and modules.dep(5).
"""

import lzma
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("bin", "dev", "host", "memory", "modules", "proc", "root")
MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay")
"""What Debian's kernels do not have built in; each comes with those it needs."""

_MAGIC = "070701"
_END = "TRAILER!!!"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveEntry:
    """One file or folder of the archive."""

    name: str
    """Path without a slash before it."""
    mode: int
    """Kind and rights, as `st_mode`."""
    content: bytes = b""
    """What a file holds."""


def initramfs(modules: Path, busybox: Path, init: str, then: str) -> bytes:
    """Make the archive.

    Args:
        modules: the folder of the kernel's modules.
        busybox: a busybox without shared libraries.
        init: the script that the kernel starts.
        then: the script that it leaves in the new root folder.
    """
    names = modules_in_order(modules / "modules.dep", MODULES)
    entries = (
        *(ArchiveEntry(name=name, mode=stat.S_IFDIR | 0o755) for name in FOLDERS),
        _program("bin/busybox", busybox.read_bytes()),
        _program("init", init.encode()),
        _program("then", then.encode()),
        *(_program(f"modules/{_plain_name(name)}", _unpacked(modules / name)) for name in names),
        _program("modules/order", "\n".join(map(_plain_name, names)).encode()),
    )
    return archive(entries)


def modules_in_order(dependencies: Path, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """List modules by their paths, each after those it needs; one that the kernel has built in is left out."""
    needs = dict(_dependency_lines(dependencies))
    paths = {_plain_name(path).removesuffix(".ko").replace("-", "_"): path for path in needs}
    ordered: dict[str, None] = {}

    def add(path: str) -> None:
        for needed in reversed(needs[path]):
            add(needed)
        ordered[path] = None

    for name in wanted:
        if name in paths:
            add(paths[name])
    return tuple(ordered)


def archive(entries: tuple[ArchiveEntry, ...]) -> bytes:
    """Write entries, and the mark of the end, in the `newc` format."""
    marked = (*entries, ArchiveEntry(name=_END, mode=0))
    return b"".join(_entry_bytes(number, entry) for number, entry in enumerate(marked, start=1))


def _entry_bytes(number: int, entry: ArchiveEntry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
    head = (_MAGIC + "".join(f"{field:08X}" for field in fields)).encode() + name
    return _padded(head) + _padded(entry.content)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def _program(name: str, content: bytes) -> ArchiveEntry:
    return ArchiveEntry(name=name, mode=stat.S_IFREG | 0o755, content=content)


def _dependency_lines(dependencies: Path) -> Iterator[tuple[str, list[str]]]:
    for line in dependencies.read_text().splitlines():
        path, _, needed = line.partition(":")
        yield path, needed.split()


def _plain_name(path: str) -> str:
    return Path(path).name.removesuffix(".xz")


def _unpacked(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
