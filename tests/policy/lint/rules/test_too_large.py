import subprocess
from pathlib import Path

import pytest

from policy.lint.rule import Example
from policy.lint.rules.too_large import RULE
from tests.policy.lint.linting import findings, of_rule, places, written

VALID = written("[limits]\nnetworking_allowed = false\n")


def test_bytes_past_the_largest_size_are_found_and_the_last_permitted_one_is_not() -> None:
    padded = VALID + "#" * (65_536 - len(VALID) - 1) + "\n"

    assert not places("SBP003", padded)
    (found,) = of_rule("SBP003", findings(padded + "\n"))
    assert found.message == "policy file: it has 65537 bytes, more than 65536"


def test_depth_is_found_where_it_becomes_too_much() -> None:
    text = VALID + "x = " + "[" * 17 + "]" * 17 + "\n"

    assert places("SBP003", text) == [(VALID.count("\n") + 1, 20, "")]
    assert "nests deeper than 16" in of_rule("SBP003", findings(text))[0].message


def test_keys_are_found_where_they_become_too_many() -> None:
    text = "".join(f"k{number} = 1\n" for number in range(2_001))

    assert places("SBP003", text) == [(2_001, 1, "")]
    assert not places("SBP003", text.removesuffix("k2000 = 1\n"))


@pytest.mark.parametrize(("example", "is_found"), [(RULE.bad, True), (RULE.good, False)], ids=["bad", "good"])
def test_examples_do_what_they_say(example: Example, is_found: bool, tmp_path: Path) -> None:  # noqa: FBT001 -- a table
    file = tmp_path / "acme.toml"
    file.write_text(VALID)
    change = example.shell.removesuffix(" && policy lint acme.toml")

    subprocess.run(["/bin/bash", "-c", change], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, check=True)

    assert bool(places("SBP003", file.read_bytes().decode())) == is_found
