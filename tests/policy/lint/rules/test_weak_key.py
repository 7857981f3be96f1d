from pathlib import Path

import pytest

from policy.keys import generate_key, public_pem
from policy.lint.findings import Finding, Severity
from policy.lint.keys import reviewed_keys
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, of_rule
from tests.policy.lint.signing import LOCKED, pem

NEUTRAL = bytes([1, *[0] * 31])
"""The neutral point: of order one."""
NO_POINT = bytes([2, *[0] * 31])


def found_in(*paths: Path) -> list[Finding]:
    reviewed = reviewed_keys(paths)
    return of_rule("SBP305", findings(LOCKED, setup=Setup(now=NOW, keys=reviewed.keys, named_keys=reviewed.named)))


@pytest.mark.parametrize(
    ("raw", "why"), [(NEUTRAL, "small order"), (NO_POINT, "not a point"), (b"\xff" * 32, "canonically")]
)
def test_small_order_key_is_found_in_its_file_at_its_block(tmp_path: Path, raw: bytes, why: str) -> None:
    file = tmp_path / "keys.pub"
    file.write_bytes(b"# ops, then a weak one\n" + public_pem(generate_key().public) + pem(raw).encode())
    file.chmod(0o600)

    (found,) = found_in(file)

    assert (found.location.file, found.location.line, found.severity) == (str(file), 5, Severity.ERROR)
    assert why in found.message


def test_a_weak_key_alone_leaves_no_key_so_that_nothing_is_signed_well_enough(tmp_path: Path) -> None:
    file = tmp_path / "weak.pub"
    file.write_text(pem(NEUTRAL))
    file.chmod(0o600)

    assert reviewed_keys([file]).keys == ()
    assert len(found_in(file)) == 1


def test_a_good_key_is_not_found(tmp_path: Path) -> None:
    file = tmp_path / "ops.pub"
    file.write_bytes(public_pem(generate_key().public))
    file.chmod(0o600)

    assert not found_in(file)


def test_without_keys_there_is_nothing_to_find() -> None:
    assert not of_rule("SBP305", findings(LOCKED))
