"""What a file asks the loader for is read without running anything, and no damage to it makes reading fail."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.elf import needed_names, outside_needs
from sandbox.shared_libraries import needed_libraries
from sandbox.tree_plan import Interpreter

TABLE_OFFSET = 64 + 2 * 56
BASE_ADDRESS = 0x10_0000


def elf_asking_for(*names: str) -> bytes:
    """The smallest ELF file that asks for libraries: one loaded segment, and one that is the dynamic section."""
    texts = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    places = [texts.index(b"\0" + name.encode() + b"\0") + 1 for name in names]
    entries = [*((1, place) for place in places), (5, BASE_ADDRESS + TABLE_OFFSET), (10, len(texts)), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    whole = TABLE_OFFSET + len(texts)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    loaded = struct.pack("<IIQQQQQQ", 1, 4, 0, BASE_ADDRESS, BASE_ADDRESS, whole, whole, 4096)
    dynamic_segment = struct.pack("<IIQQQQQQ", 2, 4, whole, 0, 0, len(dynamic), len(dynamic), 8)
    return header + loaded + dynamic_segment + texts + dynamic


WELL = elf_asking_for("libone.so.1", "libtwo.so.2")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elf") / "file.so"


@pytest.mark.parametrize("names", [(), ("libc.so.6",), ("libz.so.1", "libm.so.6")], ids=len)
def test_names_are_read_in_their_order(tmp_path: Path, names: tuple[str, ...]) -> None:
    file = tmp_path / "module.so"
    file.write_bytes(elf_asking_for(*names))

    assert needed_names(file) == names


def test_what_a_real_module_asks_for_is_among_what_the_loader_finds_for_it() -> None:
    modules = sorted((Interpreter.current().platform_library / "lib-dynload").glob("_s*.so"))
    answers = needed_libraries(modules)

    for module in modules:
        assert set(needed_names(module)) <= answers[module].keys(), module
    assert any("libssl" in name or "libsqlite3" in name for module in modules for name in needed_names(module))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + WELL[6:], b"\x7fELF\x02\x02" + WELL[6:]],
    ids=["empty", "magic-alone", "script", "32-bit", "big-endian"],
)
def test_what_is_no_such_file_asks_for_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "module.so"
    file.write_bytes(content)

    assert needed_names(file) == ()


@given(length=st.integers(0, len(WELL) - 1))
def test_a_file_cut_short_is_read_without_fault(scratch: Path, length: int) -> None:
    scratch.write_bytes(WELL[:length])

    assert isinstance(needed_names(scratch), tuple)


@given(place=st.integers(0, len(WELL) - 8), value=st.binary(min_size=8, max_size=8))
def test_a_damaged_file_is_read_without_fault(scratch: Path, place: int, value: bytes) -> None:
    scratch.write_bytes(WELL[:place] + value + WELL[place + 8 :])

    assert isinstance(needed_names(scratch), tuple)


def test_only_libraries_that_lie_nowhere_in_the_folder_are_asked_for_outside(tmp_path: Path) -> None:
    (tmp_path / "numeric" / "inner").mkdir(parents=True)
    (tmp_path / "numeric.libs").mkdir()
    (tmp_path / "numeric" / "inner" / "core.so").write_bytes(elf_asking_for("libblas-1a2b.so", "libstdc++.so.6"))
    (tmp_path / "numeric.libs" / "libblas-1a2b.so").write_bytes(elf_asking_for("libgcc_s.so.1"))
    (tmp_path / "numeric" / "data.bin").write_bytes(elf_asking_for("libnever.so"))

    assert outside_needs(tmp_path) == {
        "libgcc_s.so.1": tmp_path / "numeric.libs" / "libblas-1a2b.so",
        "libstdc++.so.6": tmp_path / "numeric" / "inner" / "core.so",
    }


def test_a_link_that_leads_out_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside.so").write_bytes(elf_asking_for("libsecret.so"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.so").symlink_to(tmp_path / "outside.so")

    assert outside_needs(tmp_path / "folder") == {}
