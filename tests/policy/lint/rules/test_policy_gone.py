from pathlib import Path

import pytest

from policy.lint.base import changes
from policy.lint.files import judged_path
from policy.lint.findings import Finding, Severity
from policy.lint.run import linted
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, of_rule, written
from tests.policy.lint.repository import Repository, new_repository

ACME = written("")
LEGAL = written('id = "legal"\n')


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One in which two policies were committed, and one of them is gone since."""
    repository = new_repository(tmp_path)
    repository.commit(acme=ACME, legal=LEGAL)
    Path(repository.path("legal")).unlink()
    return repository


def found_in(*names: str) -> list[Finding]:
    setup = Setup(now=NOW, compares=True)
    run = linted([judged_path(name, setup) for name in names], changes("HEAD", names), setup)
    return of_rule("SBP324", run.findings)


def test_deleting_a_policy_is_no_way_to_loosen_limits(repository: Repository) -> None:
    (found,) = found_in(repository.path("acme"))

    assert found.severity is Severity.ERROR
    assert found.location.file == repository.path("acme")
    assert "the policy legal of HEAD is gone" in found.message
    assert "legal.toml" in found.message


def test_a_retired_policy_may_go(repository: Repository) -> None:
    repository.write("policies/acme.toml", written('serial = 8\nretires = ["legal"]\n'))

    assert not found_in(repository.path("acme"))


def test_a_policy_in_another_file_is_not_gone(repository: Repository) -> None:
    moved = repository.write("policies/law.toml", LEGAL)

    assert not found_in(repository.path("acme"), moved)
    assert not found_in(repository.path("acme")), "though that file was not linted"


def test_while_a_file_cannot_be_read_nothing_is_certain(repository: Repository) -> None:
    broken = repository.write("policies/law.toml", "id = ")

    assert not found_in(repository.path("acme"), broken)


def test_what_is_still_there_need_not_be_linted(repository: Repository) -> None:
    repository.write("policies/legal.toml", LEGAL)

    assert not found_in(repository.path("acme"))


def test_a_folder_that_is_gone_as_a_whole_is_told_where_it_was(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = repository.write("elsewhere/acme.toml", ACME)
    Path(repository.path("acme")).unlink()
    monkeypatch.chdir(repository.root)
    setup = Setup(now=NOW, compares=True)

    run = linted([judged_path(name, setup)], changes("HEAD", [name], None, ["**/*.toml"]), setup)

    found = of_rule("SBP324", run.findings)
    assert [each.location.file for each in found] == ["policies/acme.toml", "policies/legal.toml"]
    assert {each.severity for each in found} == {Severity.WARNING}
    assert "the policy acme-prod of HEAD is gone, as are all others of its folder" in found[0].message
