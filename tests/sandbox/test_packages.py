"""A folder of packages is offered only where nothing speaks against it, and a change of it is noticed."""

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sandbox.elf import needed_names
from sandbox.errors import SandboxError
from sandbox.off_limits import NamedFolder, named_folder
from sandbox.packages import PackagesOrder, found_packages, offered_packages
from sandbox.tree import build_tree
from sandbox.tree_marker import MOST_PACKAGES_REMEMBERED, believed_marker
from sandbox.tree_plan import Interpreter, planned_tree
from tests.sandbox.test_elf import elf_asking_for
from tests.sandbox.trees import silent

LIBRARY = Interpreter.current().library_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as `pip install --target` makes one."""
    made = tmp_path / "packages"
    (made / "greeting").mkdir(parents=True)
    (made / "greeting" / "__init__.py").write_text("WORDS = 'good day'\n")
    (made / "json.py").write_text("raise ImportError('the standard library comes first')\n")
    for place in (made, made / "greeting"):
        place.chmod(0o755)
    return made


def offered(path: Path, *off_limits: NamedFolder, uid: int | None = None) -> Path:
    order = PackagesOrder(path=path, off_limits=off_limits[:1])
    return offered_packages(order, LIBRARY, off_limits[1:], os.geteuid() if uid is None else uid).folder


def environment_of(folder: Path, library: str = LIBRARY) -> Path:
    """Lay packages out as a virtual environment has them."""
    site = folder / "lib" / library / "site-packages"
    site.mkdir(parents=True)
    site.chmod(0o755)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    return site


# What is offered


def test_plain_folder_is_offered_itself(folder: Path) -> None:
    assert offered(folder) == folder


def test_of_a_virtual_environment_its_packages_are_offered(tmp_path: Path) -> None:
    site = environment_of(tmp_path / "venv")

    assert offered(tmp_path / "venv") == site


def test_link_to_the_folder_is_followed_once_and_its_target_is_mounted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)

    assert offered(tmp_path / "current") == folder


# What is refused


def missing(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def a_file(folder: Path) -> None:
    missing(folder)
    folder.write_text("")


def closed_to_code(folder: Path) -> None:
    folder.chmod(0o700)


def open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def open_to_all_but_sticky(folder: Path) -> None:
    folder.chmod(0o1777)


def open_to_a_group(folder: Path) -> None:
    folder.chmod(0o775)


def open_below(folder: Path) -> None:
    (folder / "greeting").chmod(0o777)


def open_above(folder: Path) -> None:
    folder.parent.chmod(0o777)


def for_another_python(folder: Path) -> None:
    missing(folder)
    environment_of(folder, "python2.7")


def for_no_python(folder: Path) -> None:
    (folder / "pyvenv.cfg").write_text("")


@pytest.mark.parametrize(
    ("spoiled", "reason", "remedy"),
    [
        (missing, "there is no such folder", "mount it"),
        (a_file, "it is a file", "Name a folder"),
        (closed_to_code, "code in a box cannot read", "chmod -R a+rX"),
        (open_to_all, "others can write it", "chmod go-w"),
        (open_to_all_but_sticky, "others can change", "chmod -R go-w"),
        (open_to_a_group, "others can write it", "chmod go-w"),
        (open_below, "others can change .*greeting", "chmod -R go-w"),
        (open_above, "others can write it", "chmod go-w"),
        (for_another_python, "a virtual environment of python2.7, and boxes run python3", "-m venv"),
        (for_no_python, "a virtual environment of no Python", "-m venv"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_unfit_folder_is_refused_with_reason_and_remedy(
    folder: Path, spoiled: Callable[[Path], None], reason: str, remedy: str
) -> None:
    spoiled(folder)

    with pytest.raises(SandboxError, match=reason) as refusal:
        offered(folder)

    assert (refusal.value.key, refusal.value.origin) == ("SANDBOX_PACKAGES_PATH", str(folder))
    assert remedy in refusal.value.remedy


@pytest.mark.parametrize("path", ["/" + "x" * 300, "/etc/passwd/packages", "/opt/" + "../" * 3 + "x" * 256])
def test_path_that_no_folder_can_have_is_refused_and_not_an_internal_error(path: str) -> None:
    with pytest.raises(SandboxError, match=r"SANDBOX_PACKAGES_PATH .*(cannot be read|no such folder)"):
        offered(Path(path))


def test_folder_of_another_account_is_refused(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a folder away needs root")
    os.chown(folder / "greeting", 4242, -1)

    with pytest.raises(SandboxError, match=r"others can change .*greeting \(uid 4242"):
        offered(folder)


@pytest.mark.parametrize(
    ("secret", "words"),
    [("packages", "it is"), ("packages/greeting/keys", "it contains"), (".", "it lies within")],
)
def test_overlap_is_refused_naming_what_it_overlaps(folder: Path, secret: str, words: str) -> None:
    kept = named_folder("named by SANDBOX_POLICY_KEYS", folder.parent / secret)
    elsewhere = named_folder("nothing", "/etc")

    for off_limits in ((kept, elsewhere), (elsewhere, kept)):
        with pytest.raises(SandboxError, match=rf"{words} {kept.path}, named by SANDBOX_POLICY_KEYS"):
            offered(folder, *off_limits)


def test_socket_of_the_host_among_packages_is_refused(folder: Path) -> None:
    (folder / "greeting" / "deep").mkdir()
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(folder / "greeting" / "deep" / "service"))

        with pytest.raises(SandboxError, match=r"a socket in it, .*/greeting/deep/service, .*Remove it"):
            offered(folder)


def test_overlap_is_told_before_anybody_is_advised_to_change_modes(folder: Path) -> None:
    folder.chmod(0o777)

    with pytest.raises(SandboxError, match=r"it is .*, data, which code must not see"):
        offered(folder, named_folder("data", folder))


def test_overlap_through_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to(folder)

    with pytest.raises(SandboxError, match="it is "):
        offered(tmp_path / "innocent", named_folder("data", folder))


def test_packages_of_an_environment_that_lead_into_data_are_refused(tmp_path: Path) -> None:
    environment_of(tmp_path / "venv").rmdir()
    (tmp_path / "data").mkdir(mode=0o755)
    (tmp_path / "venv" / "lib" / LIBRARY / "site-packages").symlink_to(tmp_path / "data")

    with pytest.raises(SandboxError, match=r"it is .*data"):
        offered(tmp_path / "venv", named_folder("data", tmp_path / "data"))


# When they change


def installed_more(folder: Path) -> None:
    (folder / "more.py").write_text("")


def removed_some(folder: Path) -> None:
    (folder / "json.py").unlink()


def replaced_one(folder: Path) -> None:
    os.utime(folder / "greeting", ns=(1, 1))


def moved_away(folder: Path) -> None:
    folder.rename(folder.with_name("old"))


def switched(folder: Path) -> None:
    moved_away(folder)
    (folder.parent / "new").mkdir()
    folder.symlink_to("new")


@pytest.mark.parametrize("changed", [installed_more, removed_some, replaced_one, moved_away, switched])
def test_change_of_packages_is_noticed(folder: Path, changed: Callable[[Path], None]) -> None:
    packages = found_packages(folder, LIBRARY)
    assert packages.unchanged()

    changed(folder)

    assert not packages.unchanged()


def test_modules_compiled_by_somebody_who_imports_are_no_change(folder: Path) -> None:
    packages = found_packages(folder, LIBRARY)

    (folder / "__pycache__").mkdir()

    assert packages.unchanged()


# The tree beside them


@pytest.fixture
def asking(folder: Path) -> Path:
    """Packages with a real module that asks for a library that is nowhere, and for what they bring along."""
    library = Interpreter.current().platform_library / "lib-dynload"
    module = next(path for path in sorted(library.glob("*.so")) if "libc.so.6" in needed_names(path))
    (folder / "fast.so").write_bytes(module.read_bytes().replace(b"libc.so.6\0", b"libq.so.9\0"))
    (folder / "other.so").write_bytes(elf_asking_for("libown.so"))
    (folder / "libown.so").write_bytes(elf_asking_for())
    return folder


def test_tree_is_shared_by_packages_that_need_no_more_libraries(
    tmp_path: Path, folder: Path, interpreter: Interpreter
) -> None:
    said: list[str] = []
    private = tmp_path / "private"

    plain = build_tree(private, interpreter, said.append)
    for _ in range(MOST_PACKAGES_REMEMBERED + 2):
        (folder / f"more{len(list(folder.iterdir()))}.py").write_text("")
        packages = found_packages(folder, LIBRARY)
        assert build_tree(private, interpreter, said.append, packages) == plain

    marker = believed_marker(plain.root.with_suffix(".json"), planned_tree(interpreter).digest)
    assert marker is not None
    assert len(marker.packages) == MOST_PACKAGES_REMEMBERED
    assert marker.packages[-1] == (packages.digest, ())
    assert len(said) == 1


def test_libraries_that_nobody_has_are_named_with_the_file_that_asks(
    tmp_path: Path, asking: Path, interpreter: Interpreter
) -> None:
    private = tmp_path / "private"

    first = build_tree(private, interpreter, silent, found_packages(asking, LIBRARY))
    again = build_tree(private, interpreter, pytest.fail, found_packages(asking, LIBRARY))

    assert first == again
    assert [line for line in first.omitted if line.startswith("lib")] == [
        "libq.so.9: fast.so asks for it, and the loader does not find it"
    ]
