from pathlib import Path

from policy.lint.files import judged_path
from policy.lint.run import linted
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, of_rule, written

REQUIRES = 'requires = [\n  "acme-base",\n  "acme-gone",\n]\n'
BASE = written("", id='"acme-base"')


def test_the_missing_id_is_found_where_it_stands_in_the_list() -> None:
    (found,) = of_rule("SBP108", findings(written(REQUIRES), other=BASE))

    assert found.message == "acme-gone is required, and no policy of this folder has that id"
    assert (found.location.line, found.location.column, found.location.key) == (11, 3, "requires[1]")


def test_of_a_file_alone_nothing_is_said() -> None:
    assert not of_rule("SBP108", findings(written(REQUIRES)))


def test_beside_a_file_that_cannot_be_read_nothing_is_said() -> None:
    assert not of_rule("SBP108", findings(written(REQUIRES), other='id = "acme-gone"\n'))


def test_where_a_file_of_the_folder_was_not_looked_at_nothing_is_said(tmp_path: Path) -> None:
    for name, text in (("acme", written(REQUIRES)), ("base", BASE), ("gone", written("", id='"acme-gone"'))):
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    setup = Setup(now=NOW)
    results = [judged_path(str(tmp_path / f"{name}.toml"), setup) for name in ("acme", "base")]

    assert not of_rule("SBP108", linted(results, (), setup).findings)

    (tmp_path / "gone.toml").unlink()
    assert of_rule("SBP108", linted(results, (), setup).findings)
