from pathlib import Path

from policy.keys import PublicKey, generate_key, public_pem
from policy.lint.findings import Finding, Severity
from policy.lint.keys import reviewed_keys
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, of_rule
from tests.policy.lint.signing import LOCKED

OPS, SEC = generate_key().public, generate_key().public


def key_file(folder: Path, name: str, *keys: PublicKey) -> Path:
    file = folder / name
    file.write_bytes(b"".join(map(public_pem, keys)))
    file.chmod(0o600)
    return file


def found_in(*paths: Path) -> list[Finding]:
    reviewed = reviewed_keys(paths)
    return of_rule("SBP306", findings(LOCKED, setup=Setup(now=NOW, keys=reviewed.keys, named_keys=reviewed.named)))


def test_one_key_under_two_names_counts_once_and_is_found(tmp_path: Path) -> None:
    first, second = key_file(tmp_path, "ops.pub", OPS), key_file(tmp_path, "sec.pub", SEC, OPS)

    (found,) = found_in(first, second)

    assert reviewed_keys([first, second]).keys == (OPS, SEC)
    assert (found.location.file, found.location.line, found.severity) == (str(second), 4, Severity.WARNING)
    assert [(there.file, there.line) for there in found.related] == [(str(first), 1)]
    assert f"{first}:1" in found.message


def test_a_folder_is_looked_through_too(tmp_path: Path) -> None:
    key_file(tmp_path, "ops.pub", OPS)
    key_file(tmp_path, "sec.pub", OPS)

    assert len(found_in(tmp_path)) == 1


def test_a_file_that_was_named_twice_is_one_file(tmp_path: Path) -> None:
    file = key_file(tmp_path, "ops.pub", OPS)

    assert not found_in(file, file)


def test_two_keys_are_not_found(tmp_path: Path) -> None:
    assert not found_in(key_file(tmp_path, "ops.pub", OPS), key_file(tmp_path, "sec.pub", SEC))
