import pytest

from policy.keys import generate_key
from tests.policy.lint.signing import LAST_LINE, LOCKED, found_with, signed

OPS, SEC, STRANGER = (generate_key() for _ in range(3))


def test_one_signature_of_two_is_found_where_the_signatures_stand() -> None:
    (found,) = found_with("SBP304", signed(LOCKED, OPS), OPS.public, SEC.public, threshold=2)

    assert found.message == "1 of the trusted keys signed it, and 2 must"
    assert found.location.line == LAST_LINE + 2


def test_a_stranger_counts_for_nothing_and_is_named() -> None:
    (found,) = found_with("SBP304", signed(LOCKED, STRANGER), OPS.public)

    assert found.message.startswith("0 of the trusted keys")
    assert STRANGER.public.key_id in found.message


def test_a_threshold_above_the_number_of_keys_can_never_be_met() -> None:
    (found,) = found_with("SBP304", signed(LOCKED, OPS), OPS.public, threshold=2)

    assert "trusted keys: 1" in found.message
    assert "--threshold" in found.remedy


@pytest.mark.parametrize("threshold", [1, 2])
def test_enough_signatures_are_not_found(threshold: int) -> None:
    text = signed(LOCKED, OPS, SEC, STRANGER)

    assert not found_with("SBP304", text, OPS.public, SEC.public, threshold=threshold)


def test_a_file_without_any_signature_is_told_of_as_unsigned_and_not_twice() -> None:
    assert not found_with("SBP304", LOCKED, OPS.public)
    assert found_with("SBP302", LOCKED, OPS.public)
