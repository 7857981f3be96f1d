from pathlib import Path

import pytest

from policy.lint.inputs import UnknownInputError, named_files


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("set/b.toml", "set/a.toml", "set/notes.txt", "set/.hidden.toml", "set/below/c.toml", "one.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["one.toml"], ["one.toml"]),
        (["set/notes.txt"], ["set/notes.txt"]),
        (["set"], ["set/a.toml", "set/b.toml"]),
        (["set/"], ["set/a.toml", "set/b.toml"]),
        (["**/*.toml"], ["one.toml", "set/a.toml", "set/b.toml", "set/below/c.toml"]),
        (["set/?.toml"], ["set/a.toml", "set/b.toml"]),
        (["-"], ["-"]),
        (["one.toml", "set", "one.toml"], ["one.toml", "set/a.toml", "set/b.toml"]),
        (["one.toml", "./one.toml"], ["one.toml"]),
        (["./set/a.toml", "set", "set/below/../b.toml"], ["./set/a.toml", "./set/b.toml"]),
        (["set/**/*.toml"], ["set/a.toml", "set/b.toml", "set/below/c.toml"]),
        (["**/below/**/?.toml"], ["set/below/c.toml"]),
        (["set/**"], ["set/a.toml", "set/b.toml", "set/below/c.toml", "set/notes.txt"]),
    ],
    ids=[
        *("file", "any file", "folder", "folder with slash", "tree", "pattern", "standard input", "twice"),
        *("twice in two ways", "a folder in three ways", "below a folder", "two trees", "all files"),
    ],
)
def test_names_stand_for_files(names: list[str], files: list[str]) -> None:
    assert list(named_files(names)) == files


@pytest.mark.parametrize("name", ["none.toml", "set/below/none", "no*.toml"])
def test_a_name_of_nothing_is_told(name: str) -> None:
    with pytest.raises(UnknownInputError, match="no"):
        named_files([name])


def test_a_folder_without_policies_names_the_pattern_that_would_do() -> None:
    Path("empty").mkdir()

    with pytest.raises(UnknownInputError, match=r"policies/\*\*/\*\.toml"):
        named_files(["empty"])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file() -> None:
    Path("odd[1].toml").write_text("")

    assert named_files(["odd[1].toml"]) == ("odd[1].toml",)


def test_a_link_that_leads_nowhere_is_left_to_whoever_reads_it() -> None:
    Path("link.toml").symlink_to("gone")

    assert named_files(["link.toml"]) == ("link.toml",)


def test_one_folder_is_one_however_it_is_named() -> None:
    Path("again").symlink_to("set")

    assert named_files(["set/a.toml", str(Path("set/a.toml").absolute()), "again"]) == ("set/a.toml", "set/b.toml")


def test_two_links_in_a_circle_do_not_hold_a_pattern_up() -> None:
    for name in ("one", "two"):
        Path("set", name).symlink_to(".")
        Path("set/below", name).symlink_to("..")

    assert named_files(["**/*.toml"]) == ("one.toml", "set/a.toml", "set/b.toml", "set/below/c.toml")


def test_a_folder_behind_a_link_is_not_hidden_from_a_pattern_unless_it_lies_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    for place in (elsewhere / "x.toml", Path(".hidden/deep/h.toml")):
        place.parent.mkdir(parents=True)
        place.write_text("")
    Path("set/shown").symlink_to("../.hidden")
    Path("set/away").symlink_to(elsewhere)

    assert named_files(["set/**/*.toml"])[-1] == "set/shown/deep/h.toml"
    assert not any("away" in name for name in named_files(["**/*.toml"]))
