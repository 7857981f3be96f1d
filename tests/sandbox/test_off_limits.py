"""A folder that is to be offered to code overlaps nothing that code must not see, under whatever name."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.off_limits import GATHERING_FOLDERS, SYSTEM_FOLDERS, NamedFolder, host_off_limits, named_folder, overlapped

PARTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4)


def folder_of(path: str, *identities: tuple[int, int], inside_allowed: bool = False) -> NamedFolder:
    return NamedFolder(name="made up", path=Path(path), identities=identities, inside_allowed=inside_allowed)


@pytest.mark.parametrize(
    ("offered", "secret", "verb"),
    [
        ("/data", "/data", "is"),
        ("/srv", "/srv/data", "contains"),
        ("/srv", "/srv/open/data", "contains"),
        ("/data/packages", "/data", "lies within"),
        ("/data/packages", "/", "lies within"),
        ("/data2", "/data", None),
        ("/opt/packages", "/opt/keys", None),
        ("/opt/packages", "/opt/packages.key", None),
    ],
)
def test_folder_that_is_contains_or_lies_within_another_overlaps_it(
    offered: str, secret: str, verb: str | None
) -> None:
    named = folder_of(secret)

    assert overlapped(folder_of(offered), (folder_of("/other"), named)) == (verb and (named, verb))


@pytest.mark.parametrize(("offered", "found"), [("/work/packages", False), ("/work", True), ("/", True)])
def test_folder_whose_inside_is_allowed_may_not_be_offered_as_a_whole(offered: str, found: bool) -> None:  # noqa: FBT001
    working = folder_of("/work", inside_allowed=True)

    assert bool(overlapped(folder_of(offered), (working,))) is found


@pytest.mark.parametrize(
    ("offered", "secret", "verb"),
    [
        pytest.param([(1, 7), (1, 2)], [(1, 7), (5, 2)], "is", id="mounted-twice"),
        pytest.param([(1, 7), (1, 2)], [(1, 9), (1, 7), (5, 2)], "contains", id="its-parent-mounted-elsewhere"),
        pytest.param([(1, 9), (1, 7), (1, 2)], [(1, 7), (5, 2)], "lies within", id="its-child-mounted-elsewhere"),
        pytest.param([(1, 7), (1, 2)], [(2, 7), (1, 2)], None, id="same-inode-of-another-device"),
        pytest.param([], [], None, id="neither-is-there"),
    ],
)
def test_one_folder_under_two_names_is_one_folder(
    offered: list[tuple[int, int]], secret: list[tuple[int, int]], verb: str | None
) -> None:
    found = overlapped(folder_of("/packages", *offered), (folder_of("/app/data", *secret),))

    assert (found and found[1]) == verb


@given(offered=PARTS, secret=PARTS, others=st.lists(PARTS, max_size=3))
def test_whatever_holds_a_secret_folder_or_lies_in_it_is_found(
    offered: list[str], secret: list[str], others: list[list[str]]
) -> None:
    kept = tuple(folder_of("/".join(("", "z", *parts))) for parts in others)
    length = min(len(offered), len(secret))
    within = offered[:length] == secret[:length]

    found = overlapped(folder_of("/".join(("", *offered)) or "/"), (folder_of("/".join(("", *secret)) or "/"), *kept))

    assert not within or found is not None


def test_links_of_a_named_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    named = named_folder("x", tmp_path / "link")
    status = (tmp_path / "real").stat()

    assert (named.path, named.identities[0]) == (tmp_path / "real", (status.st_dev, status.st_ino))


def off_limits_of(**environ: str) -> dict[Path, NamedFolder]:
    return {one.path: one for one in host_off_limits(environ, Path("/srv/private"))}


@pytest.mark.parametrize("path", GATHERING_FOLDERS)
def test_folder_that_holds_much_else_is_no_folder_of_packages_but_may_hold_one(path: str) -> None:
    found = tuple(one for one in off_limits_of().values() if one.path == Path(path))

    assert overlapped(named_folder("packages", path), found) == (found[0], "is")
    assert overlapped(folder_of(f"{path}/packages"), found) is None


def test_system_folders_the_private_folder_and_roots_home_are_off_limits() -> None:
    found = off_limits_of()

    assert found.keys() >= {Path(os.path.realpath(path)) for path in SYSTEM_FOLDERS} | {Path("/srv/private")}
    assert overlapped(named_folder("packages", "/"), tuple(found.values())) == (found[Path("/")], "is")
    assert overlapped(named_folder("packages", "/usr/local/packages"), tuple(found.values())) is None


@pytest.mark.parametrize(
    ("variable", "value", "path"),
    [
        ("DATA_DIR", "/srv/webui", "/srv/webui"),
        ("DATABASE_URL", "sqlite:////srv/db/webui.db", "/srv/db/webui.db"),
        ("DATABASE_URL", "sqlite+sqlcipher:////srv/db/webui.db", "/srv/db/webui.db"),
        ("WEBUI_SECRET_KEY_FILE", "/srv/key", "/srv/key"),
        ("HOME", "/srv/me", "/srv/me"),
    ],
)
def test_what_open_webui_and_this_process_call_theirs_is_off_limits(variable: str, value: str, path: str) -> None:
    assert variable in off_limits_of(**{variable: value})[Path(path)].name


def test_database_elsewhere_than_in_a_file_names_no_folder() -> None:
    assert off_limits_of(DATABASE_URL="postgresql://u:p@db/data").keys() == off_limits_of().keys()


def test_a_home_that_is_the_root_folder_does_not_put_everything_off_limits() -> None:
    found = off_limits_of(HOME="/")

    assert overlapped(named_folder("packages", "/usr/local/packages"), tuple(found.values())) is None


def test_open_webui_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "open_webui"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.delitem(sys.modules, "open_webui", raising=False)
    monkeypatch.syspath_prepend(package.parent)

    found = off_limits_of()

    assert found.keys() >= {package, package.parent / "data"}
    assert overlapped(named_folder("packages", package.parent), tuple(found.values())) == (found[package], "contains")
    assert "open_webui" not in sys.modules


def test_open_webui_that_hides_where_it_came_from_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_webui", type(sys)("open_webui"))

    assert Path("/etc") in off_limits_of()
