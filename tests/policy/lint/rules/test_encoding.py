import subprocess
from pathlib import Path

import pytest

from policy.lint.files import judged, policy_file
from policy.lint.findings import Finding
from policy.lint.rule import Example
from policy.lint.rules.encoding import RULE
from policy.lint.subjects import Setup
from policy.signature_block import BEGIN_LINE
from tests.policy.lint.linting import NOW, findings, fixed, of_rule, places, written

VALID = written('owner = "\u00fc"\nlimits.debug = false\n')


def found_in(data: bytes) -> list[Finding]:
    return of_rule("SBP002", judged(policy_file("acme.toml", Path("acme.toml"), data), Setup(now=NOW)).findings)


def test_carriage_return_is_found_where_the_first_one_stands() -> None:
    (found,) = of_rule("SBP002", findings(VALID.replace("\n", "\r\n")))

    assert (found.location.line, found.location.column) == (1, 11)
    assert "carriage return" in found.message


@pytest.mark.parametrize(
    "text",
    [VALID.replace("\n", "\r\n"), "\ufeff" + VALID, "\ufeff" + VALID.replace("\n", "\r\n"), "\ufeff\r\n" + VALID],
    ids=["CR LF", "byte order mark", "both", "side by side"],
)
def test_line_ends_and_mark_are_fixed_and_nothing_else_changes(text: str) -> None:
    assert fixed(text).lstrip("\n") == VALID


@pytest.mark.parametrize(
    "data",
    [
        VALID.replace("\n", "\r").encode(),
        VALID.replace("\n", "\r\n").replace("owner", "\rowner").encode(),
        (VALID.replace("\n", "\r\n") + "# \0\r\n").encode(),
        (VALID.replace("\n", "\r\n") + "# \ufeff\r\n").encode(),
        VALID.replace("\n", "\r\n").encode("latin-1"),
        VALID.encode("utf-16"),
        VALID.replace("\n", "\r\n").encode() + BEGIN_LINE,
    ],
    ids=["CR alone", "one CR alone", "NUL too", "a mark within", "not UTF-8", "UTF-16", "signed"],
)
def test_nothing_is_fixed_where_more_is_wrong_or_signatures_cover_the_bytes(data: bytes) -> None:
    found = found_in(data)

    assert found
    assert all(each.fix is None for each in found)


def test_bytes_that_are_no_utf8_are_found_at_their_character() -> None:
    (found,) = found_in(VALID.encode("latin-1"))

    line = VALID.split("\n").index('owner = "\u00fc"') + 1
    assert (found.location.line, found.location.column) == (line, 10)


def test_letters_beyond_ascii_are_no_flaw() -> None:
    assert not places("SBP002", VALID)


@pytest.mark.parametrize(("example", "is_found"), [(RULE.bad, True), (RULE.good, False)], ids=["bad", "good"])
def test_examples_do_what_they_say(example: Example, is_found: bool, tmp_path: Path) -> None:  # noqa: FBT001 -- a table
    file = tmp_path / "acme.toml"
    file.write_text(VALID)
    change = example.shell.removesuffix(" && policy lint acme.toml")

    subprocess.run(["/bin/bash", "-c", change], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, check=True)

    assert bool(places("SBP002", file.read_bytes().decode())) == is_found
