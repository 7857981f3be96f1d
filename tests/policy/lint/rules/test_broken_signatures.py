import pytest

from policy.signature_block import PolicySignature, format_signature_block
from tests.policy.lint.linting import findings, of_rule, places, written

TEXT = written("[limits]\ndebug = false\n")
LINES = TEXT.count("\n")
BLOCK = format_signature_block(
    PolicySignature(key_id=f"sha256:{digit * 64}", value=bytes(64)) for digit in "ab"
).decode()
BEGIN, ONE, TWO, END = BLOCK.splitlines(keepends=True)
BROKEN = {
    "no end": (BEGIN, LINES + 1, "stands 0 times"),
    "no beginning": (END, LINES + 1, "stands 0 times"),
    "two blocks": (BLOCK + BLOCK, LINES + 8, "stands 2 times"),
    "no line": (BEGIN + END, LINES + 2, "it has 0 signature lines"),
    "line that is none": (BEGIN + ONE + "# signed by ops\n" + END, LINES + 3, "the line is not"),
    "out of order": (BEGIN + TWO + ONE + END, LINES + 3, "not sorted"),
    "text after it": (BLOCK + "debug = true\n", LINES + 4, "does not end with END"),
    "beginning within a line": ("x = 1 " + BLOCK, LINES + 4, "does not stand alone"),
}


@pytest.mark.parametrize(("block", "line", "message"), BROKEN.values(), ids=BROKEN)
def test_damaged_block_is_found_in_its_line(block: str, line: int, message: str) -> None:
    found = of_rule("SBP017", findings(TEXT + block))

    assert {each.location.line for each in found} == {line}
    assert any(message in each.message for each in found)


def test_whole_block_is_none() -> None:
    assert not places("SBP017", TEXT + BLOCK)
