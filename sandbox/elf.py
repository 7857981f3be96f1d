"""Reads from ELF files which shared libraries they ask for, without running anything.

Only 64-bit little-endian files are read: the machines that boxes run on. What is no such file, or is damaged, asks for
nothing. Source: elf(5), System V ABI chapter 5 (dynamic section).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAGIC_64_LITTLE = b"\x7fELF\x02\x01"
_HEADER_BYTES = 64
_SEGMENT = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 0, 1, 5, 10
_MOST_SEGMENTS = 1_024
_MOST_TABLE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _ElfSegment:
    kind: int
    offset: int
    address: int
    size: int


def needed_names(path: Path) -> tuple[str, ...]:
    """The names of the libraries that a file asks the loader for, in its own order."""
    try:
        with path.open("rb") as file:
            return tuple(_asked_names(file))
    except (struct.error, ValueError, PermissionError):
        return ()  # not one that a loader would take either


def outside_needs(folder: Path) -> dict[str, Path]:
    """For each library that is asked for below a folder and lies nowhere in it, one file that asks for it.

    Links are not followed: what lies behind one that leads out of the folder is not in a box either.
    """
    held: set[str] = set()
    asking: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if ".so" not in name:
                continue
            held.add(name)
            path = Path(place, name)
            for needed in () if path.is_symlink() or not path.is_file() else needed_names(path):
                asking.setdefault(needed, path)
    return {name: path for name, path in sorted(asking.items()) if name not in held}


def _asked_names(file: BinaryIO) -> Iterator[str]:
    segments = tuple(_elf_segments(file))
    for dynamic in (one for one in segments if one.kind == _PT_DYNAMIC):
        entries = tuple(_dynamic_entries(_elf_bytes_at(file, dynamic.offset, dynamic.size)))
        yield from _names_of_entries(file, entries, tuple(one for one in segments if one.kind == _PT_LOAD))


def _names_of_entries(
    file: BinaryIO, entries: tuple[tuple[int, int], ...], loaded: tuple[_ElfSegment, ...]
) -> Iterator[str]:
    """The names are in a table of texts that the entries give by its address in memory."""
    table = dict(entries)
    address = table.get(_DT_STRTAB, 0)
    offsets = [one.offset - one.address for one in loaded if one.address <= address < one.address + one.size]
    texts = _elf_bytes_at(file, offsets[0] + address, table.get(_DT_STRSZ, 0)) if offsets else b""
    for tag, value in entries:
        if tag == _DT_NEEDED:
            yield os.fsdecode(texts[value : texts.index(b"\0", value)])


def _elf_segments(file: BinaryIO) -> Iterator[_ElfSegment]:
    header = file.read(_HEADER_BYTES)
    if not header.startswith(_MAGIC_64_LITTLE):
        raise ValueError("it is no ELF file of this kind")
    (start,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    if size != _SEGMENT.size or count > _MOST_SEGMENTS:
        raise ValueError("its program header is of another size")
    for kind, _, offset, address, _, length, _, _ in _SEGMENT.iter_unpack(_elf_bytes_at(file, start, size * count)):
        yield _ElfSegment(kind=kind, offset=offset, address=address, size=length)


def _dynamic_entries(content: bytes) -> Iterator[tuple[int, int]]:
    for tag, value in struct.iter_unpack("<QQ", content):
        if tag == _DT_NULL:
            return
        yield tag, value


def _elf_bytes_at(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > _MOST_TABLE_BYTES or offset > os.fstat(file.fileno()).st_size:
        raise ValueError("it is cut short, or damaged")
    file.seek(offset)
    return file.read(size)
