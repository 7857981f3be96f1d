"""What `--base` holds files against: revisions of real repositories, files and folders."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from policy.lint.base import changes
from policy.lint.files import policy_file
from policy.lint.inputs import UnknownInputError, named_files
from policy.lint.subjects import SetChange
from tests.policy.lint.linting import written
from tests.policy.lint.repository import Repository, new_repository

ACME = written("")
ACME_8 = written("serial = 8\n\n[limits]\nmax_cpus = 2\n")
LEGAL = written('id = "legal"\n')


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return new_repository(tmp_path / "repository")


def shown(change: SetChange) -> list[tuple[str | None, str | None]]:
    """Each changed file by name, before and after."""
    return [tuple(file and Path(file.name).name for file in (pair.old, pair.new)) for pair in change.changes]  # type: ignore[misc]


def ids(change: SetChange) -> tuple[list[str], list[str]]:
    old, new = ([file.document.policy_id for file in side] for side in (change.old, change.new))
    return sorted(old), sorted(new)


# Revisions.


def test_a_changed_file_is_held_against_what_the_revision_has(repository: Repository) -> None:
    repository.commit(acme=ACME, legal=LEGAL)
    repository.write("policies/acme.toml", ACME_8)

    (change,) = changes("HEAD", [repository.path("acme"), repository.path("legal")])

    assert shown(change) == [("acme.toml", "acme.toml")]
    assert [(pair.old and pair.old.text, pair.new and pair.new.text) for pair in change.changes] == [(ACME, ACME_8)]
    assert (change.base, change.comparable) == ("HEAD", True)
    assert ids(change) == (["acme-prod", "legal"], ["acme-prod", "legal"])


@pytest.mark.parametrize("revision", ["HEAD~1", "first", "main~1", "@{upstream}"])
def test_any_spelling_of_a_revision_will_do(repository: Repository, revision: str) -> None:
    first = repository.commit(acme=ACME)
    repository.git("branch", "--move", "main")
    repository.git("tag", "--annotate", "first", "--message", "first")
    repository.commit(acme=ACME_8)
    repository.git("branch", "upstream", first)
    repository.git("branch", "--set-upstream-to", "upstream")

    assert changes(revision, [repository.path("acme")])
    assert changes(first, [repository.path("acme")])


def test_what_did_not_change_is_no_change(repository: Repository) -> None:
    repository.commit(acme=ACME)

    assert changes("HEAD", [repository.path("acme")]) == ()


def test_a_renamed_file_is_known_by_its_id(repository: Repository) -> None:
    repository.commit(acme=ACME)
    repository.git("mv", "policies/acme.toml", "policies/prod.toml")
    name = repository.write("policies/prod.toml", ACME_8)

    (change,) = changes("HEAD", [name])

    assert shown(change) == [("acme.toml", "prod.toml")]


def test_two_files_that_swap_names_are_known_by_their_ids(repository: Repository) -> None:
    repository.commit(one=ACME, two=LEGAL)
    repository.write("policies/one.toml", LEGAL)
    repository.write("policies/two.toml", ACME_8)

    (change,) = changes("HEAD", [repository.path("one"), repository.path("two")])

    assert shown(change) == [("one.toml", "two.toml")]


def test_a_new_file_has_no_past_and_one_that_is_gone_no_present(repository: Repository) -> None:
    repository.commit(acme=ACME)
    Path(repository.path("acme")).unlink()
    name = repository.write("policies/legal.toml", LEGAL)

    (change,) = changes("HEAD", [name])

    assert shown(change) == [(None, "legal.toml"), ("acme.toml", None)]
    assert ids(change) == (["acme-prod"], ["legal"])


def test_a_folder_that_the_revision_lacks_has_no_past(repository: Repository) -> None:
    repository.commit(acme=ACME)
    name = repository.write("policies/eu/legal.toml", LEGAL)

    (change,) = changes("HEAD", [name])

    assert (shown(change), change.old) == ([(None, "legal.toml")], ())


def test_files_at_the_root_of_the_repository_are_found_too(repository: Repository) -> None:
    name = repository.write("acme.toml", ACME)
    repository.commit(other=LEGAL)
    repository.write("acme.toml", ACME_8)

    (change,) = changes("HEAD", [name])

    assert ids(change) == (["acme-prod"], ["acme-prod"])


def test_each_folder_is_a_set_of_its_own(repository: Repository) -> None:
    names = [repository.write(f"{folder}/acme.toml", ACME) for folder in ("eu", "us")]
    repository.commit()
    for name in names:
        Path(name).write_text(ACME_8)

    assert [Path(change.folder).name for change in changes("HEAD", names)] == ["eu", "us"]


def test_what_was_not_linted_counts_on_both_sides_as_it_lies_there(repository: Repository) -> None:
    repository.commit(acme=ACME, legal=LEGAL)
    repository.write("policies/acme.toml", ACME_8)
    changed = LEGAL.replace("serial = 7", "serial = 8")
    repository.write("policies/legal.toml", changed)

    (change,) = changes("HEAD", [repository.path("acme")])

    assert shown(change) == [("acme.toml", "acme.toml")]
    assert [file.text for side in (change.old, change.new) for file in side if "legal" in file.name] == [changed] * 2


def test_paths_may_be_relative_and_of_the_folder_one_is_in(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(acme=ACME)
    repository.write("policies/acme.toml", ACME_8)
    for folder, name in ((repository.root, "policies/acme.toml"), (repository.root / "policies", "acme.toml")):
        monkeypatch.chdir(folder)

        (change,) = changes("HEAD", [name])

        assert shown(change) == [("acme.toml", "acme.toml")]


def test_names_that_git_would_quote_are_matched(repository: Repository) -> None:
    name = repository.write("policies/größe :(top)\t*.toml", ACME)
    repository.commit()
    Path(name).write_text(ACME_8)

    (change,) = changes("HEAD", [name])

    assert change.changes[0].old


@pytest.mark.parametrize("broken", ["id = ", f"{ACME}\r\n"])
def test_what_was_no_policy_before_has_no_past_and_the_sets_cannot_be_compared(
    repository: Repository, broken: str
) -> None:
    repository.commit(acme=broken)
    repository.write("policies/acme.toml", ACME)

    (change,) = changes("HEAD", [repository.path("acme")])

    assert (shown(change), change.comparable) == ([(None, "acme.toml")], False)


def test_what_is_no_policy_now_is_neither_changed_nor_gone(repository: Repository) -> None:
    repository.commit(acme=ACME, legal=LEGAL)
    repository.write("policies/acme.toml", "id = ")
    repository.write("policies/legal.toml", f"{LEGAL}# more\n")

    (change,) = changes("HEAD", [repository.path("acme"), repository.path("legal")])

    assert (shown(change), change.comparable) == ([("legal.toml", "legal.toml")], False)
    assert change.doubtful == ()  # what is wrong with the file itself is told


def test_a_link_or_a_giant_file_of_the_past_is_no_policy_there(repository: Repository) -> None:
    repository.commit(big="#" * 70_000)
    (repository.root / "policies" / "link.toml").symlink_to("big.toml")
    repository.commit()
    (repository.root / "policies" / "link.toml").unlink()
    for name in ("big", "link"):
        repository.write(f"policies/{name}.toml", written(f'id = "{name}"\n'))

    (change,) = changes("HEAD", [repository.path("big"), repository.path("link")])

    assert shown(change) == [(None, "big.toml"), (None, "link.toml")]
    assert not change.comparable
    assert [Path(name).name for name in change.doubtful] == ["big.toml", "link.toml"]


@pytest.mark.parametrize("revision", ["no-such", "HEAD:policies", "", "HEAD~9", "-h", "--all", "a\nb", "\0", "\ud800"])
def test_what_is_no_revision_is_refused_with_its_name(repository: Repository, revision: str) -> None:
    repository.commit(acme=ACME)

    with pytest.raises(UnknownInputError):
        changes(revision, [repository.path("acme")])


def test_outside_a_repository_no_revision_is_known(tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    file.write_text(ACME)

    with pytest.raises(UnknownInputError, match="git knows no such revision: not a git repository"):
        changes("HEAD", [str(file)])


def test_without_git_no_revision_is_known(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.commit(acme=ACME)
    monkeypatch.setenv("PATH", str(repository.root))

    with pytest.raises(UnknownInputError, match="no git to ask"):
        changes("HEAD", [repository.path("acme")])


def test_what_the_caller_set_for_git_leads_it_nowhere_else(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit(acme=ACME)
    repository.write("policies/acme.toml", ACME_8)
    other = new_repository(tmp_path / "other")
    other.commit(acme=ACME_8)
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.root))

    (change,) = changes("HEAD", [repository.path("acme")])

    assert [file.document.serial for file in change.old] == [7]


def test_no_program_that_a_repository_names_is_run(repository: Repository) -> None:
    marker = repository.root / "ran"
    script = repository.root / "script"
    script.write_text(f"#!/bin/sh\ntouch {marker}\nexec cat\n")
    script.chmod(stat.S_IRWXU)
    repository.write(".gitattributes", "*.toml filter=planted diff=planted\n")
    repository.commit(acme=ACME)
    for key in (
        "filter.planted.smudge",
        "filter.planted.clean",
        "diff.planted.textconv",
        "core.fsmonitor",
        "core.pager",
    ):
        repository.git("config", key, str(script))
    marker.unlink(missing_ok=True)
    repository.write("policies/acme.toml", ACME_8)

    (change,) = changes("HEAD", [repository.path("acme")])

    assert change.changes[0].old
    assert not marker.exists()


# What whoever wrote the change may have put where the base is looked for.


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("revision", ["main", "origin/main"])
def test_a_change_cannot_stand_in_for_a_revision_by_a_path_of_its_name(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, kind: str, revision: str
) -> None:
    repository.commit(acme=ACME)
    repository.git("branch", "--force", "--move", "main")
    repository.git("update-ref", "refs/remotes/origin/main", "HEAD")
    name = repository.write("policies/acme.toml", ACME_8)
    repository.write(revision if kind == "file" else f"{revision}/acme.toml", ACME_8)
    monkeypatch.chdir(repository.root)

    with pytest.raises(UnknownInputError, match="both a path here and a revision"):
        changes(revision, [name])

    assert changes(f"refs/{'remotes' if '/' in revision else 'heads'}/{revision}", [name])
    assert changes(f"./{revision}", [name]) == () or kind == "file"


def test_a_path_that_no_revision_is_called_needs_no_dot(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(acme=ACME)
    repository.write("old.toml", ACME)
    monkeypatch.chdir(repository.root)

    assert changes("old.toml", [repository.write("policies/acme.toml", ACME_8)])


@pytest.mark.parametrize("name", ["policies/acme.toml", "{root}/policies/acme.toml", "{link}/policies/acme.toml"])
def test_a_folder_that_became_a_link_is_held_against_the_folder_of_its_name(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    repository.commit(acme=ACME)
    repository.write("loose/acme.toml", ACME_8)
    Path(repository.path("acme")).unlink()
    (repository.root / "policies").rmdir()
    (repository.root / "policies").symlink_to("loose")
    (tmp_path / "link").symlink_to(repository.root)
    monkeypatch.chdir(repository.root)

    (change,) = changes("HEAD", [name.format(root=repository.root, link=tmp_path / "link")])

    assert ids(change) == (["acme-prod"], ["acme-prod"])


def test_a_link_of_the_past_is_what_it_led_to_then(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.write("shared/acme.toml", ACME)
    (repository.root / "policies").mkdir()
    Path(repository.path("acme")).symlink_to("../shared/acme.toml")
    (repository.root / "current").symlink_to("policies")
    repository.commit()
    repository.write("shared/acme.toml", ACME_8)
    monkeypatch.chdir(repository.root)

    for name in ("policies/acme.toml", "current/acme.toml"):
        (change,) = changes("HEAD", [name])

        assert [file.document.serial for file in (*change.old, *change.new)] == [7, 8]
        assert (change.comparable, change.doubtful) == (True, ())


def test_a_folder_that_looks_like_a_bare_repository_brings_no_history(repository: Repository, tmp_path: Path) -> None:
    repository.commit(acme=ACME)
    name = repository.write("policies/acme.toml", ACME_8)
    other = new_repository(tmp_path / "other")
    other.write("acme.toml", ACME_8)
    other.commit()
    (other.root / ".git").rename(tmp_path / "bare")
    for entry in (tmp_path / "bare").iterdir():
        entry.rename(repository.root / "policies" / entry.name)
    repository.git("config", "--file", str(repository.root / "policies" / "config"), "core.bare", "true")

    with pytest.raises(UnknownInputError, match=r"bare repository|work tree"):
        changes("HEAD", [name])


@pytest.mark.parametrize("here", ["", "policies"])
def test_a_repository_within_the_one_where_we_are_brings_no_history(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    repository.commit(acme=ACME)
    inner = new_repository(repository.root / "policies")
    inner.write("acme.toml", ACME_8)
    inner.commit()
    monkeypatch.chdir(repository.root / here)

    if here:  # who stands in it means it
        assert changes("HEAD", [repository.path("acme")]) == ()
        return
    with pytest.raises(UnknownInputError, match="within another"):
        changes("HEAD", ["policies/acme.toml"])


def test_a_submodule_brings_no_history_from_wherever_it_is_linted(repository: Repository, tmp_path: Path) -> None:
    other = new_repository(tmp_path / "other")
    other.write("acme.toml", ACME_8)
    other.commit()
    repository.commit()
    repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.root), "policies")

    with pytest.raises(UnknownInputError, match="within another"):
        changes("HEAD", [repository.path("acme")])


@pytest.mark.parametrize("place", ["policies", "policies/eu"])
def test_a_folder_that_a_partial_clone_lacks_is_not_taken_for_a_new_one(repository: Repository, place: str) -> None:
    name = repository.write(f"{place}/acme.toml", ACME)
    repository.commit()
    repository.write(f"{place}/acme.toml", ACME_8)
    tree = repository.git("rev-parse", "HEAD:policies").strip()
    (repository.root / ".git" / "objects" / tree[:2] / tree[2:]).unlink()

    with pytest.raises(UnknownInputError):
        changes("HEAD", [name])


@pytest.mark.parametrize("pattern", ["**/*.toml", "sets/*/acme.toml", "sets/**", "{root}/sets/**/*.toml"])
def test_a_folder_that_moved_is_missed_where_it_was(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    for folder in ("eu", "us", ".hidden"):
        repository.write(f"sets/{folder}/acme.toml", ACME)
    repository.commit()
    (repository.root / "sets" / "eu").rename(repository.root / "sets" / "new")
    repository.write("sets/new/acme.toml", ACME_8)
    shutil.rmtree(repository.root / "sets" / ".hidden")
    monkeypatch.chdir(repository.root)
    pattern = pattern.format(root=repository.root)

    moved, gone = changes("HEAD", named_files([pattern]), None, [pattern])

    assert shown(moved) == [(None, "acme.toml")]
    assert (Path(gone.folder).parts[-2:], shown(gone), gone.new) == (("sets", "eu"), [("acme.toml", None)], ())


def test_folders_that_the_pattern_does_not_mean_are_not_missed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("sets/eu/acme.toml", "sets/us/notes.txt", "other/acme.toml"):
        repository.write(place, ACME)
    repository.write("sets/us/acme.toml", ACME)
    repository.commit()
    (repository.root / "other" / "acme.toml").unlink()
    (repository.root / "sets" / "us" / "notes.txt").unlink()
    monkeypatch.chdir(repository.root)

    assert changes("HEAD", ["sets/eu/acme.toml"], None, ["sets/eu/*.toml", "sets/**/*.toml"]) == ()


# Files and folders.


def test_a_file_is_held_against_the_one_file_whatever_their_names(tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "acme.toml"
    old.write_text(LEGAL)
    new.write_text(ACME_8)

    (change,) = changes(str(old), [str(new)])

    assert shown(change) == [("old.toml", "acme.toml")]
    assert ids(change) == (["legal"], ["acme-prod"])


def test_a_file_is_the_past_of_the_standard_input_too(tmp_path: Path) -> None:
    old = tmp_path / "old.toml"
    old.write_text(ACME)

    (change,) = changes(str(old), ["-"], policy_file("-", None, ACME_8.encode()))

    assert shown(change) == [("old.toml", "-")]


def test_a_file_is_no_past_of_two(tmp_path: Path) -> None:
    old = tmp_path / "old.toml"
    old.write_text(ACME)

    with pytest.raises(UnknownInputError, match="one file, and 2 are linted"):
        changes(str(old), ["a.toml", "b.toml"])


def test_a_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    for folder, acme in (("before", ACME), ("after", ACME_8)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "acme.toml").write_text(acme)
        (tmp_path / folder / "legal.toml").write_text(LEGAL)
    (tmp_path / "before" / "gone.toml").write_text(written('id = "gone"\n'))

    (change,) = changes(
        str(tmp_path / "before"), [str(tmp_path / "after" / name) for name in ("acme.toml", "legal.toml")]
    )

    assert shown(change) == [("acme.toml", "acme.toml"), ("gone.toml", None)]


def test_a_folder_is_no_past_of_two(tmp_path: Path) -> None:
    with pytest.raises(UnknownInputError, match="files of 2 are linted"):
        changes(str(tmp_path), ["a/a.toml", "b/b.toml"])


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_base_that_cannot_be_read_is_refused(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "old.toml"
    if kind == "link":
        base.symlink_to(base)
    else:
        os.mkfifo(base)

    with pytest.raises(UnknownInputError, match=r"old\.toml"):
        changes(str(base), ["acme.toml"])


@pytest.mark.parametrize("base", ["HEAD", "."])
def test_the_standard_input_alone_has_no_place_in_a_revision_or_folder(base: str) -> None:
    with pytest.raises(UnknownInputError, match="standard input"):
        changes(base, ["-"])
