import pytest

from policy.errors import DocumentError
from policy.keys import generate_key
from policy.signature_block import PolicySignature, format_signature_block
from policy.signatures import add_signature
from tests.policy.lint.linting import findings, fixed, of_rule, places, written

VALID = written("limits.debug = false\n")


def test_last_line_without_its_end_is_found_behind_its_last_character() -> None:
    text = VALID.removesuffix("\n")

    assert places("SBP021", text) == [(VALID.count("\n"), len("limits.debug = false") + 1, "")]
    assert fixed(text) == VALID


def test_comment_at_the_end_counts_as_a_line() -> None:
    assert places("SBP021", f"{VALID}# end")
    assert fixed(f"{VALID}# end") == f"{VALID}# end\n"


def test_end_of_a_file_that_is_no_policy_is_found_and_left_alone() -> None:
    text = f"{VALID}audi"

    (found,) = of_rule("SBP021", findings(text))

    assert found.fix is None


@pytest.mark.parametrize("text", [VALID, "", VALID.replace("\n", "\r\n")], ids=["ended", "empty", "CR LF"])
def test_line_that_ends_is_not_found(text: str) -> None:
    assert not places("SBP021", text)


def test_signed_file_is_another_rules_business() -> None:
    block = format_signature_block([PolicySignature(key_id=f"sha256:{'a' * 64}", value=bytes(64))]).decode()

    assert not places("SBP021", VALID + block)
    assert not places("SBP021", (VALID + block).removesuffix("\n"))


def test_signing_refuses_such_a_file() -> None:
    with pytest.raises(DocumentError, match="it does not end in a line feed"):
        add_signature(VALID.removesuffix("\n").encode(), generate_key(), origin="acme.toml")
