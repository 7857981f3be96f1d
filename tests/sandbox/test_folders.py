import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.folders import (
    PARTIAL_PREFIX,
    UnsafeFolderError,
    folder_lock,
    partial_folder,
    private_folder,
    publish_folder,
    trusted_path,
)

_UID = os.geteuid()
_SOMEBODY_ELSE = 54321
_as_root = pytest.mark.skipif(_UID != 0, reason="only root can give folders to somebody else")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    return folder


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _nobody_waits() -> None:
    pytest.fail("the lock was not free")


def test_private_folder_stands_in_the_cache_of_the_home(home: Path) -> None:
    assert private_folder({"HOME": str(home)}, _UID) == home / ".cache" / "sandbox-lockdown"


def test_private_folder_stands_in_xdg_cache_home_where_set(home: Path) -> None:
    chosen = home / "chosen"

    assert private_folder({"HOME": "/nowhere", "XDG_CACHE_HOME": str(chosen)}, _UID) == chosen / "sandbox-lockdown"


def test_relative_xdg_cache_home_is_ignored(home: Path) -> None:
    found = private_folder({"HOME": str(home), "XDG_CACHE_HOME": "relative"}, _UID)

    assert found == home / ".cache" / "sandbox-lockdown"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_private_folder_is_0700_whatever_the_umask(home: Path, umask: int) -> None:
    with _umask(umask):
        found = private_folder({"HOME": str(home)}, _UID)

    assert found.stat().st_mode & 0o7777 == 0o700
    assert found.parent.stat().st_mode & 0o7777 == 0o700


def test_private_folder_readable_by_others_becomes_0700(home: Path) -> None:
    private_folder({"HOME": str(home)}, _UID).chmod(0o755)

    assert private_folder({"HOME": str(home)}, _UID).stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("home_variable", [None, "", "relative"], ids=["unset", "empty", "relative"])
def test_unknown_uid_without_home_is_told_what_to_set(home_variable: str | None) -> None:
    environ = {} if home_variable is None else {"HOME": home_variable}

    with pytest.raises(SandboxError, match="Set HOME or XDG_CACHE_HOME"):
        private_folder(environ, _SOMEBODY_ELSE)


def test_missing_home_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="does not exist"):
        private_folder({"HOME": str(tmp_path / "missing")}, _UID)

    assert not (tmp_path / "missing").exists()


def test_file_in_place_of_the_cache_is_refused(home: Path) -> None:
    (home / ".cache").touch()

    with pytest.raises(SandboxError, match="XDG_CACHE_HOME"):
        private_folder({"HOME": str(home)}, _UID)


def test_planted_symbolic_link_as_private_folder_is_refused(home: Path, tmp_path: Path) -> None:
    (home / ".cache").mkdir()
    (home / ".cache" / "sandbox-lockdown").symlink_to(tmp_path)

    with pytest.raises(UnsafeFolderError, match="symbolic link"):
        private_folder({"HOME": str(home)}, _UID)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
@pytest.mark.parametrize("which", ["", ".cache", ".cache/sandbox-lockdown"], ids=["home", "cache", "private"])
def test_folder_that_others_can_write_is_refused(home: Path, which: str, mode: int) -> None:
    private_folder({"HOME": str(home)}, _UID)
    (home / which).chmod(mode)

    with pytest.raises(UnsafeFolderError, match="others can write it"):
        private_folder({"HOME": str(home)}, _UID)


@_as_root
@pytest.mark.parametrize("which", ["", ".cache", ".cache/sandbox-lockdown"], ids=["home", "cache", "private"])
def test_folder_of_somebody_else_is_refused(home: Path, which: str) -> None:
    private_folder({"HOME": str(home)}, _UID)
    os.chown(home / which, _SOMEBODY_ELSE, -1)

    with pytest.raises(UnsafeFolderError, match=str(_SOMEBODY_ELSE)):
        private_folder({"HOME": str(home)}, _UID)


@_as_root
def test_private_folder_of_root_is_not_taken_by_another_user(home: Path) -> None:
    (home / ".cache" / "sandbox-lockdown").mkdir(parents=True)

    with pytest.raises(UnsafeFolderError):
        private_folder({"HOME": str(home)}, _SOMEBODY_ELSE)


def test_nothing_is_made_in_a_sticky_folder(tmp_path: Path) -> None:
    everybodys = tmp_path / "everybodys"
    everybodys.mkdir()
    everybodys.chmod(0o1777)

    with pytest.raises(UnsafeFolderError, match="everybody"):
        private_folder({"XDG_CACHE_HOME": str(everybodys)}, _UID)
    with pytest.raises(UnsafeFolderError, match="everybody"):
        private_folder({"XDG_CACHE_HOME": str(everybodys / "mine")}, _UID)
    assert not list(everybodys.iterdir())


def test_own_0700_folder_in_a_sticky_folder_is_accepted(tmp_path: Path) -> None:
    mine = tmp_path / "everybodys" / "mine"
    mine.mkdir(parents=True, mode=0o700)
    mine.parent.chmod(0o1777)

    assert private_folder({"XDG_CACHE_HOME": str(mine)}, _UID) == mine / "sandbox-lockdown"


def test_open_folder_in_a_sticky_folder_is_refused(tmp_path: Path) -> None:
    planted = tmp_path / "everybodys" / "planted"
    planted.mkdir(parents=True, mode=0o755)
    planted.parent.chmod(0o1777)

    with pytest.raises(UnsafeFolderError, match="0700"):
        private_folder({"XDG_CACHE_HOME": str(planted)}, _UID)


def test_trusted_path_follows_own_links_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("absolute/deep")

    assert trusted_path(tmp_path / "relative" / "new", _UID) == (tmp_path / "real" / "deep" / "new").resolve()


def test_link_through_a_folder_of_everybody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "inner").mkdir()
    (tmp_path / "link").symlink_to("open/inner")

    with pytest.raises(UnsafeFolderError, match="others can write it"):
        trusted_path(tmp_path / "link" / "file", _UID)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")

    with pytest.raises(UnsafeFolderError, match="too many"):
        trusted_path(tmp_path / "one", _UID)


@_as_root
def test_link_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    os.chown(tmp_path / "link", _SOMEBODY_ELSE, -1, follow_symlinks=False)

    with pytest.raises(UnsafeFolderError, match="symbolic link"):
        trusted_path(tmp_path / "link" / "file", _UID)


def _half_made(beside: Path) -> None:
    with partial_folder(beside) as folder:
        (folder / "half").write_text("half")
        raise OSError("disk full")


def test_partial_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"):
        _half_made(tmp_path)

    assert not list(tmp_path.iterdir())


def test_published_folder_replaces_an_older_one_whole(tmp_path: Path) -> None:
    destination = tmp_path / "done"
    destination.mkdir()
    (destination / "old").touch()

    with partial_folder(tmp_path) as folder:
        (folder / "new").touch()
        publish_folder(folder, destination)

    assert [path.name for path in tmp_path.iterdir()] == ["done"]
    assert [path.name for path in destination.iterdir()] == ["new"]


def test_lock_removes_what_a_crash_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL_PREFIX}crashed" / "deep").mkdir(parents=True)
    (tmp_path / "installed").mkdir()

    with folder_lock(tmp_path, wait_seconds=1, on_wait=_nobody_waits) as waited:
        assert not waited

    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "installed"]


def test_second_holder_waits_for_the_first_and_knows_it(tmp_path: Path) -> None:
    waiting, seen = threading.Event(), list[bool]()

    def second() -> None:
        with folder_lock(tmp_path, wait_seconds=20, on_wait=waiting.set) as waited:
            seen.append(waited)

    thread = threading.Thread(target=second)
    with folder_lock(tmp_path, wait_seconds=1, on_wait=_nobody_waits):
        thread.start()
        assert waiting.wait(10)
        assert not seen
    thread.join(10)

    assert seen == [True]


def test_lock_that_stays_held_ends_in_a_timeout(tmp_path: Path) -> None:
    with (
        folder_lock(tmp_path, wait_seconds=1, on_wait=_nobody_waits),
        pytest.raises(TimeoutError),
        folder_lock(tmp_path, wait_seconds=0, on_wait=lambda: None),
    ):
        pytest.fail("two hold the lock")
