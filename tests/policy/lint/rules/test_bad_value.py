import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

BAD = {
    "word in capitals": ('limits.languages = ["bash", "Python"]', "limits.languages[1]", 'You may have meant "python"'),
    "unknown word": ('limits.languages = ["perl"]', "limits.languages[0]", "Choose among them"),
    "ten-thousandths": ("limits.max_cpus = 0.1234", "limits.max_cpus", "Expected a number with at most three"),
    "empty reason": ('limits.max_cpus = { lock = 1, reason = "" }', "limits.max_cpus.reason", "Write something"),
    "line break": ('limits.max_cpus = { lock = 1, reason = "a\\nb" }', "limits.max_cpus.reason", "Write plain text"),
    "long reason": (
        f'limits.max_cpus = {{ lock = 1, reason = "{"x" * 1_001}" }}',
        "limits.max_cpus.reason",
        "Shorten it",
    ),
    "long list": (
        f"limits.network_allowlist = {[f'h{number}.example' for number in range(257)]}",
        "limits.network_allowlist",
        "Shorten the list",
    ),
}


@pytest.mark.parametrize(("line", "key", "remedy"), BAD.values(), ids=BAD)
def test_value_that_its_key_does_not_take_is_found(line: str, key: str, remedy: str) -> None:
    (found,) = of_rule("SBP012", findings(written(f"{line}\n")))

    assert found.location.key == key
    assert found.remedy.startswith(remedy)


def test_item_is_found_where_it_stands() -> None:
    assert places("SBP012", written('[limits]\nlanguages = [\n  "perl",\n]\n')) == [(11, 3, "limits.languages[0]")]


def test_id_is_told_what_it_could_be() -> None:
    (found,) = of_rule("SBP012", findings(written("limits.debug = false\n", id='"Acme Prod"')))

    assert found.message == "id: 'Acme Prod' is no id: 1 to 64 of a-z, 0-9 and -"
    assert found.remedy == 'Write one, such as "acme-prod"'


def test_longest_id_and_every_word_are_values() -> None:
    text = written('limits.languages = ["bash", "python"]\n', id=f'"{"a" * 64}"')

    assert not places("SBP012", text)
