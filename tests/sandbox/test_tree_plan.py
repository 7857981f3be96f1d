"""What goes into a tree follows from lists, and every change of the host's files is noticed."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.tree_plan import Interpreter, planned_tree
from tests.sandbox.trees import destinations


def test_command_of_the_callers_path_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ls"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    sources = {one.destination: one.source for one in planned_tree(Interpreter.current()).sources}

    assert sources["usr/bin/ls"] != str(fake)


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
