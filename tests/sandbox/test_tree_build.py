"""A built tree holds what its lists name, and nothing of the caller or of the host's paths."""

import os
import stat
import sys
from pathlib import Path

import pytest

from sandbox.tree import FileTree, build_tree
from sandbox.tree_build import BOX_UID
from sandbox.tree_plan import REQUIRED_COMMANDS, Interpreter
from tests.sandbox.trees import every_path, silent

CANARY = "canary-7e1f"


def test_tree_holds_interpreter_commands_and_mount_points(tree: FileTree) -> None:
    for path in (tree.python, tree.bash, "/bin/sh", "/lib64", "/etc/passwd", "/usr/bin/python", "/var/tmp"):
        assert (tree.root / path.lstrip("/")).exists(), path
    for name in REQUIRED_COMMANDS.split():
        assert os.access(tree.root / "usr/bin" / name, os.X_OK), name
    for folder in ("proc", "dev", "tmp"):
        assert list((tree.root / folder).iterdir()) == []
    assert (tree.root / "etc/resolv.conf").read_text() == "nameserver 127.0.0.1\n"
    assert f"sandbox:x:{BOX_UID}:{BOX_UID}:" in (tree.root / "etc/passwd").read_text()


def test_tree_has_no_setuid_no_writable_and_no_special_file(tree: FileTree) -> None:
    for path in (tree.root, *every_path(tree)):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            continue
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), path
        assert stat.S_IMODE(mode) in ({0o755} if stat.S_ISDIR(mode) else {0o644, 0o755}), path
        assert not os.listxattr(path), path


def test_no_link_in_the_tree_points_anywhere_but_into_it(tree: FileTree) -> None:
    for path in (path for path in every_path(tree) if path.is_symlink()):
        target = path.readlink()
        inside = tree.root / str(target).lstrip("/") if target.is_absolute() else path.parent / target
        assert os.path.normpath(inside).startswith(f"{tree.root}/"), path


@pytest.mark.parametrize(
    "name", ["site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "pydoc_data"]
)
def test_excluded_package_is_nowhere_in_the_tree(tree: FileTree, name: str) -> None:
    assert [path for path in every_path(tree) if path.name == name and path.is_dir()] == []


def test_marker_lies_outside_what_the_box_sees(private: Path, tree: FileTree) -> None:
    assert tree.root == private / "trees" / tree.digest
    assert (private / "trees" / f"{tree.digest}.json").exists()
    assert not list(tree.root.rglob("*.json"))


def test_every_module_is_compiled_and_names_no_path_of_the_host(private: Path, tree: FileTree) -> None:
    library = tree.root / "usr/lib" / Interpreter.current().standard_library.name
    compiled = list(library.rglob("*.pyc"))
    home = str(Interpreter.current().standard_library).encode()
    known = b"/usr/lib/" + library.name.encode()

    assert len(compiled) >= 0.95 * len(list(library.rglob("*.py")))
    # `_sysconfigdata` tells where the interpreter was installed: that is what it is for.
    for path in (path for path in compiled if not path.name.startswith("_sysconfigdata")):
        content = path.read_bytes()
        assert str(private).encode() not in content, path
        assert home == known or home not in content, path
        assert known in content, path


def test_compiled_module_is_valid_for_its_source(tree: FileTree) -> None:
    library = tree.root / "usr/lib" / Interpreter.current().standard_library.name / "json"
    header = (library / "__pycache__" / f"decoder.{sys.implementation.cache_tag}.pyc").read_bytes()[:16]
    source = (library / "decoder.py").stat()

    assert int.from_bytes(header[8:12], "little") == int(source.st_mtime)
    assert int.from_bytes(header[12:16], "little") == source.st_size


def test_counts_of_the_tree_are_those_on_disk(tree: FileTree) -> None:
    files = [path for path in every_path(tree) if path.is_file() and not path.is_symlink()]

    assert tree.file_count == len(files)
    assert tree.size_bytes == sum({path.stat().st_ino: path.stat().st_size for path in files}.values())


def test_canaries_beside_the_library_never_reach_the_tree(
    tmp_path: Path, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = interpreter.standard_library
    outside = tmp_path / "secret.py"
    for path in (
        outside,
        home / "site-packages" / "owned.py",
        home / "site-packages" / "owned.pth",
        home / "sitecustomize.py",
        home / "usercustomize.py",
        home / "webui.db",
        home / f"{CANARY}.py",
        home / "json" / "notes.txt",
        home / "json" / "tests" / "owned.py",
        tmp_path / "cwd" / "json.py",
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"TOKEN = '{CANARY}'\n")
    (home / "json" / "stolen.py").symlink_to(outside)
    (home / "turtledemo").symlink_to(tmp_path / "cwd")
    (home / "curses").symlink_to(tmp_path / "cwd")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "cwd"))
    monkeypatch.setenv("PATH", str(tmp_path / "cwd"))

    tree = build_tree(tmp_path / "private", interpreter, silent)

    assert (tree.root / "usr/lib" / home.name / "json" / "decoder.py").exists()
    for path in every_path(tree):
        assert CANARY not in path.name
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
