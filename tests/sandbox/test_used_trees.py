"""A file tree that nobody used for a week goes; one in use, or used lately, stays, and none is used half removed."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.errors import StartError
from sandbox.tree import build_tree
from sandbox.tree_plan import Interpreter
from sandbox.used_trees import UNUSED_TREE_SECONDS, remove_unused_trees, used_tree
from tests.sandbox.conftest import Place, linked
from tests.sandbox.pooled import pooled_runner
from tests.sandbox.trees import silent

OLD, OTHER = "0" * 64, "1" * 64
LONG_AGO_SECONDS = UNUSED_TREE_SECONDS + 3_600
USER = """
import pathlib, sys
from sandbox.used_trees import used_tree
with used_tree(pathlib.Path(sys.argv[1])):
    print("in use", flush=True)
    sys.stdin.read()
"""


def tree_at(trees: Path, name: str = OLD, *, unused_seconds: float = LONG_AGO_SECONDS, marked: bool = True) -> Path:
    """A tree that was last used so long ago."""
    root = trees / name
    (root / "usr" / "bin").mkdir(parents=True)
    when = time.time() - unused_seconds
    if marked:
        root.with_suffix(".json").write_text("{}")
        os.utime(root.with_suffix(".json"), (when, when))
    os.utime(root, (when, when))
    return root


def tidied(trees: Path) -> set[str]:
    """What is left there."""
    remove_unused_trees(trees, now=time.time())
    return {path.name for path in trees.iterdir()}


def test_tree_that_nobody_used_for_a_week_goes_with_its_marker_and_others_stay(tmp_path: Path) -> None:
    tree_at(tmp_path)
    tree_at(tmp_path, OTHER, unused_seconds=UNUSED_TREE_SECONDS - 3_600)
    (tmp_path / "notes").mkdir()
    os.utime(tmp_path / "notes", (0, 0))

    assert tidied(tmp_path) == {OTHER, f"{OTHER}.json", "notes"}


def test_tree_without_a_marker_goes_a_week_after_it_was_built(tmp_path: Path) -> None:
    tree_at(tmp_path, marked=False)
    tree_at(tmp_path, OTHER, unused_seconds=60, marked=False)

    assert tidied(tmp_path) == {OTHER}


def test_tree_in_use_by_another_process_stays_however_long_that_lasts(tmp_path: Path) -> None:
    root = tree_at(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "in use\n"
        os.utime(root.with_suffix(".json"), (0, 0))  # as if it had begun long ago
        assert tidied(tmp_path) == {OLD, f"{OLD}.json"}
        user.kill()

    assert tidied(tmp_path) == set()


def test_use_keeps_a_tree_for_another_week(tmp_path: Path) -> None:
    root = tree_at(tmp_path)
    with used_tree(root):
        pass

    assert tidied(tmp_path) == {OLD, f"{OLD}.json"}


def test_link_named_as_a_tree_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    os.utime(tmp_path / "precious", (0, 0))
    (tmp_path / OLD).symlink_to("precious")
    os.utime(tmp_path / OLD, (0, 0), follow_symlinks=False)

    assert tidied(tmp_path) == {OLD, "precious"}


def test_tree_renamed_before_its_lock_was_had_is_not_used(tmp_path: Path) -> None:
    root = tree_at(tmp_path)
    descriptor = os.open(root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as user:
        with pytest.raises(subprocess.TimeoutExpired):
            user.wait(timeout=1.5)  # it has opened the tree by now, and waits
        root.rename(tmp_path / ".building-0")
        os.close(descriptor)
        said = user.communicate(timeout=20)

    assert user.returncode == 1
    assert said[0] == b""
    assert b"the file tree is gone" in said[1]


def test_preparing_removes_old_trees_and_renews_its_own(tmp_path: Path, interpreter: Interpreter) -> None:
    trees = tmp_path / "private" / "trees"
    own = build_tree(tmp_path / "private", interpreter, silent)
    old = tree_at(trees)
    os.utime(own.root.with_suffix(".json"), (0, 0))

    assert build_tree(tmp_path / "private", interpreter, pytest.fail) == own

    assert not old.exists()
    assert own.root.is_dir()
    assert own.root.with_suffix(".json").stat().st_mtime > time.time() - 3_600


def test_preparing_while_somebody_builds_waits_for_nobody(tmp_path: Path, interpreter: Interpreter) -> None:
    own = build_tree(tmp_path / "private", interpreter, silent)
    old = tree_at(own.root.parent)
    descriptor = os.open(own.root.parent / ".lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    assert build_tree(tmp_path / "private", interpreter, pytest.fail) == own

    assert old.exists()
    os.close(descriptor)


def lock_is_free(root: Path) -> bool:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def with_a_tree_of_its_own(place: Place, trees: Path) -> Place:
    """The same place, with a copy of the tree that nobody else uses."""
    tree = place.equipment.tree
    shutil.copytree(tree.root, trees / tree.digest, symlinks=True, copy_function=linked)
    return replace(place, equipment=replace(place.equipment, tree=replace(tree, root=trees / tree.digest)))


@pytest.mark.gvisor
async def test_box_that_waits_or_runs_keeps_its_tree_and_none_does_later(place: Place, tmp_path: Path) -> None:
    here = with_a_tree_of_its_own(place, tmp_path / "trees")
    root = here.equipment.tree.root
    async with pooled_runner(here):
        os.utime(root, (0, 0))
        assert not lock_is_free(root)
        assert tidied(root.parent) == {root.name}

    assert lock_is_free(root)
    assert tidied(root.parent) == set()


@pytest.mark.gvisor
async def test_run_whose_tree_was_removed_is_an_error_that_says_so_and_leaves_nothing(
    place: Place, tmp_path: Path
) -> None:
    here = with_a_tree_of_its_own(place, tmp_path / "trees")
    os.utime(here.equipment.tree.root, (0, 0))
    tidied(tmp_path / "trees")

    with pytest.raises(StartError, match=f"{here.equipment.tree.digest}"):
        await here.run("print(1)")

    assert not here.equipment.intact()
    assert here.leftovers() == []
