import subprocess
from pathlib import Path

import pytest

from policy.lint.rule import Example
from policy.lint.rules.hidden_characters import RULE
from tests.policy.lint.linting import findings, of_rule, places, written

VALID = written("limits.debug = false\n")

HIDDEN = {
    "override": ("\u202e", "U+202E RIGHT-TO-LEFT OVERRIDE"),
    "isolate": ("\u2067", "U+2067 RIGHT-TO-LEFT ISOLATE"),
    "mark": ("\u200f", "U+200F RIGHT-TO-LEFT MARK"),
    "zero width": ("\u200b", "U+200B ZERO WIDTH SPACE"),
    "joiner": ("\u200d", "U+200D ZERO WIDTH JOINER"),
    "soft hyphen": ("\u00ad", "U+00AD SOFT HYPHEN"),
    "line separator": ("\u2028", "U+2028 LINE SEPARATOR"),
    "C1 control": ("\u009b", "U+009B"),
    "Hangul filler": ("\u3164", "U+3164 HANGUL FILLER"),
    "variation selector": ("\ufe0f", "U+FE0F VARIATION SELECTOR-16"),
    "tag": ("\U000e0041", "U+E0041 TAG LATIN CAPITAL LETTER A"),
    "ignorable that is none yet": ("\U000e0fff", "U+E0FFF"),
    "ignorable in the plane of most": ("\u2065", "U+2065"),
}


@pytest.mark.parametrize(("character", "named"), HIDDEN.values(), ids=HIDDEN)
def test_hidden_character_in_a_comment_is_found_and_named(character: str, named: str) -> None:
    (found,) = of_rule("SBP018", findings(f"{VALID}# \u00fc a{character}b\n"))

    assert (found.location.line, found.location.column) == (VALID.count("\n") + 1, 6)
    assert named in found.message


def test_trojan_source_is_found_at_each_control() -> None:
    text = written('owner = "a \u202e b \u202c\u2066 c"\nlimits.debug = false\n')

    line = text[: text.index("owner")].count("\n") + 1
    assert places("SBP018", text) == [(line, 12, ""), (line, 16, "")]
    second = of_rule("SBP018", findings(text))[1]
    assert "U+202C POP DIRECTIONAL FORMATTING, U+2066 LEFT-TO-RIGHT ISOLATE" in second.message
    assert second.location.end_column == 18


def test_control_character_in_a_text_that_is_no_toml_is_found_too() -> None:
    assert places("SBP018", f"{VALID}# \x1b[31m\n") == [(VALID.count("\n") + 1, 3, "")]


def test_no_comment_takes_it_out() -> None:
    text = f'{VALID}# policy: ignore[SBP018] reason="x" until=2027-01-31\nx = "\u202e"\n'

    assert all(found.suppressed is None for found in findings(text) if found.rule_id == "SBP018")


@pytest.mark.parametrize(
    "text",
    [
        "\u00fcber \u00e9t\u00e9 \u4e2d\u6587 \u0627\u0644 na\u00efve \u2026",
        "\u26a0\ufe0f \U0001f468\u200d\U0001f4bb \u2764\ufe0f\u200d\U0001f525",
        "tab\there",
    ],
    ids=["letters", "emoji", "tab"],
)
def test_what_is_seen_is_not_found(text: str) -> None:
    assert not places("SBP018", f"{VALID}# {text}\n")


def test_line_ends_and_byte_order_mark_are_left_to_the_rule_about_them() -> None:
    assert not places("SBP018", "\ufeff" + VALID.replace("\n", "\r\n"))


def test_a_file_full_of_them_is_listed_to_a_bound() -> None:
    found = of_rule("SBP018", findings(VALID + "# \u200b\n" * 500))

    assert len(found) == 100
    assert "no more are listed" in found[-1].message


@pytest.mark.parametrize(("example", "is_found"), [(RULE.bad, True), (RULE.good, False)], ids=["bad", "good"])
def test_examples_do_what_they_say(example: Example, is_found: bool, tmp_path: Path) -> None:  # noqa: FBT001 -- a table
    file = tmp_path / "acme.toml"
    file.write_text(VALID)
    change = example.shell.removesuffix(" && policy lint acme.toml")

    subprocess.run(["/bin/bash", "-c", change], cwd=tmp_path, env={"LC_ALL": "C.UTF-8"}, check=True)

    assert bool(places("SBP018", file.read_text())) == is_found
