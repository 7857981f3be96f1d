"""A tree is built once, believed only when complete, built again when spoiled, and runs Python and Bash for real."""

import json
import os
import platform
import secrets
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.equipment import found_runsc
from sandbox.errors import SandboxError
from sandbox.release import ReleaseSource
from sandbox.tree import FileTree, build_tree
from sandbox.tree_build import BOX_UID
from sandbox.tree_plan import Interpreter
from tests.sandbox.trees import copied_interpreter, silent

IMPORTS = "import json, ssl, sqlite3, ctypes, lzma, bz2, zoneinfo, multiprocessing, asyncio, decimal"


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Interpreter, FileTree]:
    folder = tmp_path_factory.mktemp("spoilable")
    shared = copied_interpreter(folder)
    return shared, build_tree(folder / "private", shared, silent)


def test_ready_tree_is_used_without_a_word(private: Path, tree: FileTree) -> None:
    said: list[str] = []

    assert build_tree(private, Interpreter.current(), said.append) == tree
    assert said == []


def test_building_is_reported_once(tmp_path: Path, interpreter: Interpreter) -> None:
    said: list[str] = []
    for _ in range(2):
        build_tree(tmp_path / "private", interpreter, said.append)

    assert len(said) == 1


def marker_of(tree: FileTree) -> Path:
    return tree.root.with_suffix(".json")


def without_marker(tree: FileTree) -> None:
    marker_of(tree).unlink()


def with_another_library(tree: FileTree) -> None:
    marked = json.loads(marker_of(tree).read_text())
    marked["libraries"][0]["mtime_ns"] += 1
    marker_of(tree).write_text(json.dumps(marked))


def with_a_library_left_out(tree: FileTree) -> None:
    marked = json.loads(marker_of(tree).read_text())
    del marked["libraries"][0]
    marker_of(tree).write_text(json.dumps(marked))


def with_a_broken_marker(tree: FileTree) -> None:
    marker_of(tree).write_text("{")


def with_a_marker_others_can_write(tree: FileTree) -> None:
    marker_of(tree).chmod(0o666)


def with_a_root_others_can_write(tree: FileTree) -> None:
    tree.root.chmod(0o777)


def with_a_link_for_a_root(tree: FileTree) -> None:
    tree.root.rename(tree.root.with_name("elsewhere"))
    tree.root.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "spoiled",
    [
        without_marker,
        with_another_library,
        with_a_library_left_out,
        with_a_broken_marker,
        with_a_marker_others_can_write,
        with_a_root_others_can_write,
        with_a_link_for_a_root,
    ],
)
def test_spoiled_tree_is_not_believed_and_built_again(
    tmp_path: Path, built_once: tuple[Interpreter, FileTree], spoiled: Callable[[FileTree], None]
) -> None:
    interpreter, original = built_once
    private = tmp_path / "private"
    shutil.copytree(original.root.parents[1], private, symlinks=True)
    first = build_tree(private, interpreter, pytest.fail)
    spoiled(first)
    said: list[str] = []

    again = build_tree(private, interpreter, said.append)

    assert (len(said), again) == (1, first)
    assert again.root.is_dir()
    assert not again.root.is_symlink()
    assert stat.S_IMODE(again.root.stat().st_mode) == 0o755
    assert [path.name for path in private.joinpath("trees").glob(".building-*")] == []


def test_leftover_of_a_crash_is_removed_by_the_next_build(tmp_path: Path, interpreter: Interpreter) -> None:
    leftover = tmp_path / "private" / "trees" / ".building-0123"
    (leftover / "usr").mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)

    build_tree(tmp_path / "private", interpreter, silent)

    assert not leftover.exists()


def test_two_builders_at_once_share_one_tree(tmp_path: Path, interpreter: Interpreter) -> None:
    built: list[FileTree] = []
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda: built.append(build_tree(tmp_path / "private", interpreter, said.append)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(built) == 3
    assert len(set(built)) == len(said) == 1


def test_folder_that_others_can_write_is_refused(tmp_path: Path, interpreter: Interpreter) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    with pytest.raises(SandboxError, match="chmod 700"):
        build_tree(tmp_path / "open", interpreter, silent)


def test_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path, interpreter: Interpreter) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SandboxError, match="file"):
        build_tree(tmp_path / "file" / "below", interpreter, silent)


# For real


def test_interpreter_and_shell_start_with_the_tree_as_their_root(tree: FileTree) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing the root needs root")
    code = f"{IMPORTS}; print(json.__file__)"

    python = subprocess.run(
        [shutil.which("chroot") or "/usr/sbin/chroot", tree.root, tree.python, "-I", "-S", "-X", "utf8", "-c", code],
        env={},
        capture_output=True,
        check=True,
        text=True,
    )

    assert python.stdout == f"/usr/lib/{Interpreter.current().standard_library.name}/json/__init__.py\n"


def box_spec(tree: FileTree, command: list[str]) -> dict[str, object]:
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": BOX_UID, "gid": BOX_UID},
            "args": command,
            "env": ["PATH=/usr/bin", "HOME=/tmp", "LANG=C.UTF-8"],
            "cwd": "/tmp",
            "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "noNewPrivileges": True,
        },
        "root": {"path": str(tree.root), "readonly": True},
        "hostname": "sandbox",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=1777"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def run_in_box(folder: Path, tree: FileTree, *command: str) -> subprocess.CompletedProcess[str]:
    runsc = found_runsc(ReleaseSource(), os.environ)
    if runsc is None or os.geteuid() != 0:
        pytest.skip(f"gVisor is not installed, or this is not root ({platform.machine()})")
    (folder / "config.json").write_text(json.dumps(box_spec(tree, list(command))))
    flags = ["--rootless=false", "--network=none", "--ignore-cgroups", f"--root={folder / 'state'}"]
    return subprocess.run(
        ["/usr/bin/timeout", "20", runsc.path, *flags, "run", f"-bundle={folder}", f"tree-{secrets.token_hex(8)}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.mark.gvisor
def test_python_runs_in_a_box_of_the_tree(tmp_path: Path, tree: FileTree) -> None:
    code = f"{IMPORTS}; import os; print(os.getuid(), zoneinfo.__name__, ssl.OPENSSL_VERSION_INFO[0] >= 1)"

    ended = run_in_box(tmp_path, tree, tree.python, "-I", "-S", "-X", "utf8", "-c", code)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{BOX_UID} zoneinfo True\n", "")


@pytest.mark.gvisor
def test_bash_in_a_box_can_write_nowhere_but_in_its_tmp(tmp_path: Path, tree: FileTree) -> None:
    script = "for d in / /etc /usr /usr/bin /var /dev /proc /tmp /var/tmp; do touch $d/x 2>&- && echo $d; done; id -un"

    ended = run_in_box(tmp_path, tree, tree.bash, "-c", script)

    assert ended.stdout.split() == ["/tmp", "/var/tmp", "sandbox"], ended.stderr


@pytest.mark.gvisor
def test_box_of_the_tree_sees_no_path_of_the_host(tmp_path: Path, tree: FileTree) -> None:
    ended = run_in_box(
        tmp_path, tree, tree.bash, "-c", "cat /proc/self/mounts /proc/self/environ /etc/passwd; find /etc"
    )

    assert ended.returncode == 0
    assert str(tree.root) not in ended.stdout
    assert str(Path.home()) not in ended.stdout
