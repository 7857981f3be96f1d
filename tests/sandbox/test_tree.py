"""The box's file tree holds what its lists name, nothing of the caller, and is believed only when complete."""

import json
import os
import platform
import secrets
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.equipment import found_runsc
from sandbox.errors import SandboxError
from sandbox.release import ReleaseSource
from sandbox.shared_libraries import gathered_libraries, parsed_ldd
from sandbox.tree import BOX_UID, REQUIRED_COMMANDS, FileTree, Interpreter, TreePlan, build_tree, planned_tree

IMPORTS = "import json, ssl, sqlite3, ctypes, lzma, bz2, zoneinfo, multiprocessing, asyncio, decimal"
CANARY = "canary-7e1f"


def silent(_text: str) -> None:
    """Ignore reports."""


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("private", numbered=True)


@pytest.fixture(scope="session")
def tree(private: Path) -> FileTree:
    return build_tree(private, Interpreter.current(), silent)


def copied_interpreter(folder: Path) -> Interpreter:
    """Copy the running interpreter's library in part, so that a test may spoil it."""
    current = Interpreter.current()
    home = folder / "lib" / current.standard_library.name
    for name in ("encodings", "json", "collections"):
        shutil.copytree(current.standard_library / name, home / name)
    for path in current.standard_library.glob("*.py"):
        if path.is_file() and not path.is_symlink():
            shutil.copy2(path, home / path.name)
    return replace(current, standard_library=home, platform_library=home)


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    return copied_interpreter(tmp_path)


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Interpreter, FileTree]:
    folder = tmp_path_factory.mktemp("spoilable")
    shared = copied_interpreter(folder)
    return shared, build_tree(folder / "private", shared, silent)


def destinations(plan: TreePlan) -> set[str]:
    return {one.destination for one in plan.sources}


def every_path(tree: FileTree) -> list[Path]:
    return [Path(folder, name) for folder, names, files in os.walk(tree.root) for name in (*names, *files)]


# What is in it


def test_tree_holds_interpreter_commands_and_mount_points(tree: FileTree) -> None:
    for path in (tree.python, tree.bash, "/bin/sh", "/lib64", "/etc/passwd", "/usr/bin/python", "/var/tmp"):
        assert (tree.root / path.lstrip("/")).exists(), path
    for name in REQUIRED_COMMANDS.split():
        assert os.access(tree.root / "usr/bin" / name, os.X_OK), name
    for folder in ("proc", "dev", "tmp"):
        assert list((tree.root / folder).iterdir()) == []
    assert (tree.root / "etc/resolv.conf").read_bytes() == b""
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


# Nothing of the caller


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


def test_command_of_the_callers_path_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ls"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    sources = {one.destination: one.source for one in planned_tree(Interpreter.current()).sources}

    assert sources["usr/bin/ls"] != str(fake)


# When it is built again


def test_ready_tree_is_used_without_a_word(private: Path, tree: FileTree) -> None:
    said: list[str] = []

    assert build_tree(private, Interpreter.current(), said.append) == tree
    assert said == []


def test_building_is_reported_once(tmp_path: Path, interpreter: Interpreter) -> None:
    said: list[str] = []
    for _ in range(2):
        build_tree(tmp_path / "private", interpreter, said.append)

    assert len(said) == 1


def touched_module(interpreter: Interpreter) -> None:
    os.utime(interpreter.standard_library / "json" / "decoder.py", ns=(1, 1))


def replaced_module(interpreter: Interpreter) -> None:
    path = interpreter.standard_library / "json" / "decoder.py"
    status = path.stat()
    shutil.copy2(path, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def new_module(interpreter: Interpreter) -> None:
    (interpreter.standard_library / "json" / "new.py").write_text("")


@pytest.mark.parametrize("changed", [touched_module, replaced_module, new_module])
def test_changed_library_gives_another_plan(interpreter: Interpreter, changed: Callable[[Interpreter], None]) -> None:
    before = planned_tree(interpreter).digest
    assert planned_tree(interpreter).digest == before

    changed(interpreter)

    assert planned_tree(interpreter).digest != before


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


# Other interpreters


def test_interpreter_is_the_one_behind_a_virtual_environment() -> None:
    current = Interpreter.current()

    assert current.executable.read_bytes()[:4] == b"\x7fELF"
    assert Path(sys.prefix) not in current.executable.parents or sys.prefix == sys.base_prefix
    assert (current.standard_library / "os.py").is_file()
    assert (current.platform_library / "lib-dynload").is_dir()


def test_interpreter_without_its_library_is_refused(tmp_path: Path) -> None:
    bare = replace(Interpreter.current(), standard_library=tmp_path)

    with pytest.raises(SandboxError, match=r"os\.py"):
        planned_tree(bare)


def test_interpreter_that_is_a_script_is_refused(tmp_path: Path) -> None:
    shim = tmp_path / "python"
    shim.write_text("#!/bin/sh\nexec python3\n")

    with pytest.raises(SandboxError, match="machine code"):
        planned_tree(replace(Interpreter.current(), executable=shim))


def test_debug_build_keeps_its_own_folder_name(interpreter: Interpreter) -> None:
    home = interpreter.standard_library
    odd = home.rename(home.with_name(f"{home.name}t"))
    planned = destinations(planned_tree(replace(interpreter, standard_library=odd, platform_library=odd)))

    assert f"usr/lib/{home.name}t/os.py" in planned
    assert f"usr/bin/{home.name}t" in planned


# Shared libraries


LDD_ANSWER = """/usr/bin/one:
\tlinux-vdso.so.1 (0x00007f34b225b000)
\tlibfirst.so.1 => /lib/libfirst.so.1 (0x00007f34b1c00000)
\tlibgone.so.2 => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f34b225d000)
/usr/bin/static:
\tstatically linked
/usr/bin/script:
\tnot a dynamic executable
"""


def test_ldd_answer_about_several_programs_is_read() -> None:
    programs = [Path("/usr/bin/one"), Path("/usr/bin/static"), Path("/usr/bin/script")]

    assert parsed_ldd(LDD_ANSWER, programs) == {
        programs[0]: {
            "libfirst.so.1": Path("/lib/libfirst.so.1"),
            "libgone.so.2": None,
            "ld-linux-x86-64.so.2": Path("/lib64/ld-linux-x86-64.so.2"),
        },
        programs[1]: {},
        programs[2]: {},
    }


@pytest.fixture
def two_libraries(tmp_path: Path) -> dict[Path, dict[str, Path | None]]:
    needs: dict[Path, dict[str, Path | None]] = {}
    for name, content in (("a", "one"), ("b", "two"), ("c", "one")):
        library = tmp_path / name / "libx.so.1"
        library.parent.mkdir()
        library.write_text(content)
        needs[Path(f"/usr/bin/{name}")] = {"libx.so.1": library}
    return needs


def test_two_different_libraries_of_one_name_are_refused_naming_both(
    two_libraries: dict[Path, dict[str, Path | None]],
) -> None:
    with pytest.raises(SandboxError, match=r"a/libx\.so\.1 and .*b/libx\.so\.1"):
        gathered_libraries([Path("/usr/bin/a"), Path("/usr/bin/b")], [], two_libraries)


def test_optional_program_with_another_library_of_a_taken_name_is_left_out(
    two_libraries: dict[Path, dict[str, Path | None]],
) -> None:
    gathered = gathered_libraries([Path("/usr/bin/a")], [Path("/usr/bin/b"), Path("/usr/bin/c")], two_libraries)

    assert [str(program) for program, _ in gathered.omitted] == ["/usr/bin/b"]
    assert [name for name, _ in gathered.files] == ["libx.so.1"]


@pytest.mark.parametrize(
    ("needed", "reason"),
    [
        pytest.param({"liby.so": None}, "liby.so is not found", id="missing-library"),
        pytest.param({"ld-linux.so.2": Path("/nix/store/x/ld-linux.so.2")}, "its loader is", id="loader-elsewhere"),
    ],
)
def test_required_program_that_could_not_start_in_the_box_is_refused(
    needed: dict[str, Path | None], reason: str
) -> None:
    with pytest.raises(SandboxError, match=reason):
        gathered_libraries([Path("/usr/bin/a")], [], {Path("/usr/bin/a"): needed})


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
