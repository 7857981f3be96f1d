from pathlib import Path

import pytest

from policy.keys import generate_key
from policy.lint.files import judged_path
from policy.lint.findings import Finding, Severity
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, of_rule
from tests.policy.lint.signing import LOCKED, signed


def found_in(folder: Path, text: str = LOCKED, mode: int = 0o644, *, production: bool = True) -> list[Finding]:
    file = folder / "acme.toml"
    file.write_text(text)
    file.chmod(mode)
    return of_rule("SBP313", judged_path(str(file), Setup(now=NOW, production=production)).findings)


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_can_write_is_found_with_its_mode(tmp_path: Path, mode: int) -> None:
    (found,) = found_in(tmp_path, mode=mode)

    assert (found.severity, found.location.line) == (Severity.WARNING, 1)
    assert f"{mode:04o}" in found.message
    assert "chmod go-w" in found.remedy


def test_a_folder_that_others_can_write_is_found_too(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    folder.chmod(0o777)

    (found,) = found_in(folder)

    assert "its folder" in found.message


def test_what_only_its_owner_can_write_is_not_found(tmp_path: Path) -> None:
    assert not found_in(tmp_path)
    assert not found_in(tmp_path, mode=0o400)


def test_a_signed_policy_has_its_proof_in_itself(tmp_path: Path) -> None:
    assert not found_in(tmp_path, signed(LOCKED, generate_key()), mode=0o666)


def test_the_modes_of_a_checkout_say_nothing_of_what_is_shipped(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    folder = tmp_path / "policies"
    folder.mkdir()

    assert not found_in(folder, mode=0o666)


def test_it_looks_only_in_production_and_never_at_the_standard_input(tmp_path: Path) -> None:
    assert not found_in(tmp_path, mode=0o666, production=False)
    assert not of_rule("SBP313", findings(LOCKED, production=True))
