"""What the tests of file trees share: an interpreter that a test may spoil, and a look at everything in a tree."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from sandbox.tree import FileTree
from sandbox.tree_plan import Interpreter, TreePlan


def silent(_text: str) -> None:
    """Ignore reports."""


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


def destinations(plan: TreePlan) -> set[str]:
    return {one.destination for one in plan.sources}


def every_path(tree: FileTree) -> list[Path]:
    return [Path(folder, name) for folder, names, files in os.walk(tree.root) for name in (*names, *files)]
