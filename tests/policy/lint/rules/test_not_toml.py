import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

MISTAKES = {
    "capital": ("debug = True", 10, 9, "Write true or false in lower case"),
    "no value": ("debug =", 10, 1, "Write a value after the ="),
    "unit": ("max_runtime_seconds = 30s", 10, 25, "Write the number alone: its unit is in the key's name"),
    "leading zero": ("max_runtime_seconds = 030", 10, 24, "Write the number without zeros before it"),
    "bare word": ("languages = python", 10, 13, "Put a text in quotes"),
    "yes": ("debug = yes", 10, 9, "Put a text in quotes"),
    "typographic quotes": ("max_cpus = \u201c1\u201d", 10, 12, 'Write straight quotes: "'),
    "open quotes": ('max_cpus = "1', 10, 14, "Close the quotes in that line"),
    "colon": ("debug: true", 10, 1, "Write key = value: TOML has no colon between them"),
    "comma": ("debug = true,", 10, 13, "Remove the comma at the end of the line"),
    "no equals sign": ("debug", 10, 1, "Write key = value"),
    "open header": ("[limits.max_cpus", 10, 1, "Close the bracket of the header"),
    "inline table in lines": (
        "max_cpus = {\n ceiling = 1 }",
        10,
        13,
        "Write { key = value, … } in one line, without a comma before its }",
    ),
    "impossible date": ("max_cpus = 2026-13-01", 10, 16, "Write a date that exists, such as 2026-11-01T00:00:00Z"),
    "Cyrillic key": (
        "m\u0430x_cpus = 1",
        10,
        1,
        "Spell the key with a-z, 0-9, _ and -: it holds U+0430 CYRILLIC SMALL LETTER A",
    ),
}


@pytest.mark.parametrize(("line", "number", "column", "remedy"), MISTAKES.values(), ids=MISTAKES)
def test_common_mistake_is_told_with_its_place_and_what_to_write(
    line: str, number: int, column: int, remedy: str
) -> None:
    text = written(f"[limits]\n{line}\n")

    (found,) = of_rule("SBP001", findings(text))

    assert (found.location.line, found.location.column, found.remedy) == (number, column, remedy)
    assert found.message.startswith("the file: it is not TOML: ")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('{"schema": 1}\n', "Write lines of key = value: TOML is neither JSON nor XML"),
        ("schema: 1\n", "Write key = value: TOML has no colon between them"),
        ("audience = [\n", "Close what was opened before: quotes, a bracket or a brace"),
    ],
    ids=["JSON", "YAML", "open to the end"],
)
def test_file_of_another_kind_is_told_so(text: str, remedy: str) -> None:
    (found,) = of_rule("SBP001", findings(text))

    assert found.remedy == remedy


def test_unreadable_file_has_no_other_finding_of_shape() -> None:
    assert {found.rule_id for found in findings("schema = 1\nid\n")} == {"SBP001"}


def test_empty_file_is_toml() -> None:
    assert not places("SBP001", "\n")
