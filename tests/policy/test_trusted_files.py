"""Files: what is read is what was checked, and what is written is whole or absent."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policy.errors import DocumentError, KeyFileError
from policy.settings import MAX_DOCUMENT_BYTES
from policy.trusted_files import (
    FOLDER_MAX_FILES,
    PRIVATE_KEY_FILE,
    PUBLIC_KEY_FILE,
    SIGNED_POLICY_FILE,
    UNSIGNED_POLICY_FILE,
    FileRule,
    list_folder,
    read_files,
    read_public_key_files,
    read_trusted,
    replace_file,
    write_new_file,
    write_new_files,
)

TOML = (".toml",)
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
STRANGER = 12345
BOTH_RULES = pytest.mark.parametrize("rule", [SIGNED_POLICY_FILE, UNSIGNED_POLICY_FILE], ids=["signed", "unsigned"])


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def file(path: Path, data: bytes = b"a = 1\n", mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def folder(path: Path, mode: int = 0o755) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def configmap(path: Path, mode: int = 0o755) -> Path:
    """Lay out files as the kubelet does: each a link through `..data` into a folder for this generation."""
    generation = folder(path) / "..2026_11_01_00_00_00.123"
    generation.mkdir()
    for name in ("b.toml", "a.toml"):
        file(generation / name, name.encode(), 0o644)
        (path / name).symlink_to(f"..data/{name}")
    (path / "..data").symlink_to(generation.name)
    path.chmod(mode)
    return path


@contextmanager
def without_root() -> Iterator[None]:
    """Be somebody whom permissions stop."""
    before = os.geteuid()
    os.seteuid(before or STRANGER)
    try:
        yield
    finally:
        os.seteuid(before)


def open_descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let every write beyond a size fail, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "rule",
    [SIGNED_POLICY_FILE, UNSIGNED_POLICY_FILE, PUBLIC_KEY_FILE, PRIVATE_KEY_FILE],
    ids=lambda rule: rule.kind,
)
def test_own_file_is_read(tmp_path: Path, rule: FileRule) -> None:
    assert read_trusted(file(tmp_path / "a"), rule) == b"a = 1\n"


def test_relative_path_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "a")
    folder(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")

    assert read_trusted(Path("../a"), UNSIGNED_POLICY_FILE) == b"a = 1\n"


@BOTH_RULES
@pytest.mark.parametrize("extra", [0, 1])
def test_size_limit_is_exact(tmp_path: Path, rule: FileRule, extra: int) -> None:
    path = file(tmp_path / "a", b"#" * (MAX_DOCUMENT_BYTES + extra))

    if not extra:
        assert len(read_trusted(path, rule)) == MAX_DOCUMENT_BYTES
        return
    with pytest.raises(DocumentError, match="larger than 65536 bytes"):
        read_trusted(path, rule)


@BOTH_RULES
@pytest.mark.timeout(10)
def test_policy_swapped_for_a_fifo_is_refused(tmp_path: Path, rule: FileRule) -> None:
    os.mkfifo(tmp_path / "a.toml", 0o600)

    with pytest.raises(DocumentError, match="a pipe, a socket or a device"):
        read_trusted(tmp_path / "a.toml", rule)


@BOTH_RULES
def test_policy_swapped_for_a_device_is_refused(rule: FileRule) -> None:
    with pytest.raises(DocumentError, match=r"a pipe, a socket or a device|others than its owner"):
        read_trusted(Path("/dev/zero"), rule)


@BOTH_RULES
def test_folder_instead_of_a_file_is_refused(tmp_path: Path, rule: FileRule) -> None:
    with pytest.raises(DocumentError, match="it is a folder"):
        read_trusted(tmp_path, rule)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("absent", "does not exist", id="missing"),
        pytest.param("a/b", "not a folder", id="file as folder"),
        pytest.param("circle", "too many follow each other", id="links in a circle"),
        pytest.param("dangling", "does not exist", id="dangling link"),
        pytest.param("x" * 300, "longer than the system permits", id="name too long"),
    ],
)
def test_path_that_leads_nowhere_is_a_problem_with_the_path(tmp_path: Path, name: str, reason: str) -> None:
    file(tmp_path / "a")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("absent")

    with pytest.raises(KeyFileError, match=reason) as caught:
        read_trusted(tmp_path / name, PUBLIC_KEY_FILE)

    assert caught.value.problems[0].origin == str(tmp_path / name)


def test_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    path = file(tmp_path / "a", mode=0o000)

    with without_root(), pytest.raises(KeyFileError, match="may not open it"):
        read_trusted(path, PUBLIC_KEY_FILE)


@AS_ROOT
def test_file_of_root_is_trusted_by_another_user() -> None:
    path = Path("/etc/passwd")

    with without_root():
        data = read_trusted(path, PUBLIC_KEY_FILE)

    assert data == path.read_bytes()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = file(tmp_path / "a", mode=mode)

    with pytest.raises(KeyFileError, match=f"others than its owner may write it .mode {mode:04o}") as caught:
        read_trusted(path, PUBLIC_KEY_FILE)

    assert f"chmod go-w {path}" in caught.value.problems[0].remedy
    assert read_trusted(path, SIGNED_POLICY_FILE) == b"a = 1\n"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_group_writable_parent_folder_is_refused(tmp_path: Path, mode: int) -> None:
    inner = folder(folder(tmp_path / "outer") / "inner")
    path = file(inner / "a")
    inner.parent.chmod(mode)

    with pytest.raises(DocumentError, match="may write its folder") as caught:
        read_trusted(path, UNSIGNED_POLICY_FILE)

    assert caught.value.problems[0].origin == str(inner.parent)
    assert read_trusted(path, SIGNED_POLICY_FILE) == b"a = 1\n"


@AS_ROOT
@pytest.mark.parametrize("given_away", ["outer", "outer/inner", "outer/inner/a"])
def test_file_or_folder_of_somebody_else_is_refused(tmp_path: Path, given_away: str) -> None:
    path = file(folder(folder(tmp_path / "outer") / "inner") / "a")
    os.chown(tmp_path / given_away, STRANGER, STRANGER)

    with pytest.raises(KeyFileError, match=f"belongs to uid {STRANGER}") as caught:
        read_trusted(path, PUBLIC_KEY_FILE)

    assert caught.value.problems[0].origin == str(tmp_path / given_away)
    assert read_trusted(path, SIGNED_POLICY_FILE) == b"a = 1\n"


def test_own_folder_inside_a_sticky_one_is_accepted(tmp_path: Path) -> None:
    path = file(folder(folder(tmp_path / "sticky", 0o1777) / "own", 0o700) / "a")

    assert read_trusted(path, PUBLIC_KEY_FILE) == b"a = 1\n"
    assert list_folder(path.parent, ("a",), PUBLIC_KEY_FILE) == (path,)


def test_file_lying_in_a_sticky_folder_is_refused(tmp_path: Path) -> None:
    sticky = folder(tmp_path / "sticky", 0o1777)
    file(sticky / "a.toml")

    with pytest.raises(DocumentError, match="may write its folder"):
        read_trusted(sticky / "a.toml", UNSIGNED_POLICY_FILE)
    with pytest.raises(DocumentError, match="may write its folder"):
        list_folder(sticky, TOML, UNSIGNED_POLICY_FILE)


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_link_planted_in_an_open_folder_is_refused(tmp_path: Path, mode: int) -> None:
    # The file is trusted, but whoever made the link chose it: an old policy, a key since revoked.
    good = file(tmp_path / "good")
    link = folder(tmp_path / "open", mode) / "a"
    link.symlink_to(good)

    with pytest.raises(KeyFileError, match="may write its folder") as caught:
        read_trusted(link, PUBLIC_KEY_FILE)

    assert caught.value.problems[0].origin == str(link.parent)


def test_links_in_trusted_folders_are_followed(tmp_path: Path) -> None:
    file(folder(tmp_path / "real") / "a")
    (folder(tmp_path / "one") / "relative").symlink_to("../real")
    (tmp_path / "absolute").symlink_to(tmp_path / "one")

    assert read_trusted(tmp_path / "absolute" / "relative" / "a", PUBLIC_KEY_FILE) == b"a = 1\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o611])
def test_private_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyFileError, match="others than its owner may use it") as caught:
        read_trusted(file(tmp_path / "a.key", mode=mode), PRIVATE_KEY_FILE)

    assert "chmod 600" in caught.value.problems[0].remedy


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    bad = file(tmp_path / "bad", mode=0o666)
    before = open_descriptors()

    read_trusted(file(tmp_path / "a"), PUBLIC_KEY_FILE)
    list_folder(tmp_path, ("a",), PUBLIC_KEY_FILE)
    for path in (bad, tmp_path, tmp_path / "absent"):
        with pytest.raises(KeyFileError):
            read_trusted(path, PUBLIC_KEY_FILE)

    assert open_descriptors() == before


def test_folder_is_listed_sorted_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", ".c.toml", "d.toml.bak", "README"):
        file(tmp_path / name)

    assert list_folder(tmp_path, TOML, UNSIGNED_POLICY_FILE) == (tmp_path / "a.toml", tmp_path / "b.toml")


@pytest.mark.parametrize("count", [0, FOLDER_MAX_FILES + 1])
def test_folder_with_no_or_too_many_files_is_refused(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number}.toml").touch()

    with pytest.raises(DocumentError, match=rf"holds {count} files \*\.toml, not 1 to {FOLDER_MAX_FILES}"):
        list_folder(tmp_path, TOML, SIGNED_POLICY_FILE)


def test_missing_folder_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="does not exist"):
        list_folder(tmp_path / "absent", TOML, SIGNED_POLICY_FILE)


def test_files_of_a_folder_are_read_and_all_bad_ones_listed(tmp_path: Path) -> None:
    file(tmp_path / "a.toml", b"1")
    file(tmp_path / "b.toml", b"2")

    assert dict(read_files(tmp_path, TOML, SIGNED_POLICY_FILE)) == {
        str(tmp_path / "a.toml"): b"1",
        str(tmp_path / "b.toml"): b"2",
    }

    folder(tmp_path / "c.toml")
    (tmp_path / "d.toml").symlink_to("absent")
    with pytest.raises(DocumentError) as caught:
        read_files(tmp_path, TOML, SIGNED_POLICY_FILE)
    assert [Path(problem.origin).name for problem in caught.value.problems] == ["c.toml", "d.toml"]


def test_one_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    path = file(tmp_path / "policy")

    assert dict(read_files(path, TOML, SIGNED_POLICY_FILE)) == {str(path): b"a = 1\n"}


@BOTH_RULES
def test_kubernetes_configmap_is_accepted(tmp_path: Path, rule: FileRule) -> None:
    path = configmap(tmp_path / "policy")

    assert dict(read_files(path, TOML, rule)) == {
        str(path / "a.toml"): b"a.toml",
        str(path / "b.toml"): b"b.toml",
    }
    assert read_trusted(path / "a.toml", rule) == b"a.toml"


def test_kubernetes_configmap_swapped_after_listing_stays_one_generation(tmp_path: Path) -> None:
    path = configmap(tmp_path / "policy")
    listed = list_folder(path, TOML, UNSIGNED_POLICY_FILE)
    newer = folder(path / "..2026_11_02_00_00_00.456")
    file(newer / "a.toml", b"newer")

    (path / "..data_tmp").symlink_to(newer.name)
    (path / "..data_tmp").replace(path / "..data")

    assert [read_trusted(each, UNSIGNED_POLICY_FILE) for each in listed] == [b"a.toml", b"b.toml"]
    assert [each.read_bytes() for each in list_folder(path, TOML, UNSIGNED_POLICY_FILE)] == [b"newer"]


def test_writable_folder_laid_out_like_a_configmap_is_refused(tmp_path: Path) -> None:
    path = configmap(tmp_path / "policy", mode=0o777)

    with pytest.raises(DocumentError, match="may write its folder"):
        read_files(path, TOML, UNSIGNED_POLICY_FILE)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (util-linux) is not installed")
@pytest.mark.parametrize("mount", ["ro", "rw"])
def test_kubernetes_configmap_open_to_all_is_accepted_where_mounted_read_only(tmp_path: Path, mount: str) -> None:
    path = configmap(tmp_path / "policy", mode=0o777)
    script = (
        "import sys; from pathlib import Path; from policy.errors import DocumentError\n"
        "from policy.trusted_files import UNSIGNED_POLICY_FILE, read_files\n"
        "try: print(*read_files(Path(sys.argv[1]), ('.toml',), UNSIGNED_POLICY_FILE).values())\n"
        "except DocumentError as error: print(error)\n"
    )
    isolated = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    mounting = 'mount --bind "$1" "$1" && mount -o "remount,bind,$2" "$1"'
    allowed = subprocess.run([*isolated, "sh", "-c", mounting, "sh", path, mount], check=False, capture_output=True)
    if allowed.returncode:
        pytest.skip(f"this host permits no mounts: {allowed.stderr.decode().strip()}")

    told = subprocess.run(
        [*isolated, "sh", "-c", f'{mounting} && exec "$3" -c "$4" "$1"', "sh", path, mount, sys.executable, script],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert ("b'a.toml' b'b.toml'" in told) == (mount == "ro")
    assert ("may write its folder" in told) == (mount == "rw")


def test_new_file_is_written_with_its_mode(tmp_path: Path) -> None:
    os.umask(0o077)

    write_new_file(tmp_path / "a.pub", b"x", 0o644)
    write_new_file(tmp_path / "a.key", b"y", 0o600)

    assert [(p.read_bytes(), p.stat().st_mode & 0o7777) for p in sorted(tmp_path.iterdir())] == [
        (b"y", 0o600),
        (b"x", 0o644),
    ]


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_new_file_never_overwrites_or_follows(tmp_path: Path, kind: str) -> None:
    file(tmp_path / "a", b"old")
    if kind != "file":
        (tmp_path / "b").symlink_to("a" if kind == "link" else "absent")
    path = tmp_path / ("a" if kind == "file" else "b")

    with pytest.raises(KeyFileError, match="exists already"):
        write_new_file(path, b"new", 0o600)

    assert (tmp_path / "a").read_bytes() == b"old"
    assert not (tmp_path / "absent").exists()


def test_key_pair_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file(tmp_path / "a.pub", b"old")

    with pytest.raises(KeyFileError, match=r"a\.pub: new file: it exists already"):
        write_new_files([(tmp_path / "a.key", b"k", 0o600), (tmp_path / "a.pub", b"p", 0o644)])

    assert [path.name for path in tmp_path.iterdir()] == ["a.pub"]
    assert (tmp_path / "a.pub").read_bytes() == b"old"


def test_new_file_in_a_missing_folder_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="does not exist"):
        write_new_file(tmp_path / "absent" / "a.key", b"x", 0o600)


def test_new_file_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with files_limited_to(10), pytest.raises(KeyFileError, match="nothing was changed"):
        write_new_file(tmp_path / "a.key", b"x" * 100, 0o600)

    assert list(tmp_path.iterdir()) == []


def test_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = file(tmp_path / "a.toml", b"old", 0o640)

    replace_file(path, b"new")

    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"new", 0o640)
    assert [each.name for each in tmp_path.iterdir()] == ["a.toml"]


@AS_ROOT
def test_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    path = file(tmp_path / "a.toml", b"old")
    os.chown(path, STRANGER, STRANGER)

    replace_file(path, b"new")

    assert (path.stat().st_uid, path.stat().st_gid) == (STRANGER, STRANGER)


def test_replacing_a_link_replaces_what_it_names(tmp_path: Path) -> None:
    path = file(tmp_path / "a.toml", b"old")
    (tmp_path / "link.toml").symlink_to("a.toml")

    replace_file(tmp_path / "link.toml", b"new")

    assert (tmp_path / "link.toml").is_symlink()
    assert path.read_bytes() == b"new"


def test_replacing_on_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    path = file(tmp_path / "a.toml", b"old")

    with files_limited_to(10), pytest.raises(DocumentError, match="nothing was changed"):
        replace_file(path, b"x" * 100)

    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.toml"]


def test_replacing_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")

    for name, reason in {".": "it is a folder", "absent": "does not exist", "circle": "too many follow"}.items():
        with pytest.raises(DocumentError, match=reason):
            replace_file(tmp_path / name, b"new")

    assert [each.name for each in tmp_path.iterdir()] == ["circle"]


def test_path_longer_than_the_system_permits_is_a_problem_and_no_crash() -> None:
    with pytest.raises(KeyFileError, match="longer than the system permits") as refused:
        read_public_key_files(Path("/" + "x" * 5_000))

    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("name", ["B.TOML", "b.Toml"])
def test_file_whose_ending_differs_in_case_is_not_passed_over(tmp_path: Path, name: str) -> None:
    for each in ("a.toml", name):
        (tmp_path / each).write_text("")

    with pytest.raises(DocumentError, match=rf"{name} would be passed over"):
        list_folder(tmp_path, (".toml",), SIGNED_POLICY_FILE)
