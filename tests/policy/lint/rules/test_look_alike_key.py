import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("m\u0430x_cpus", "U+0430 CYRILLIC SMALL LETTER A"),
        ("max_cpu\u0455", "U+0455 CYRILLIC SMALL LETTER DZE"),
        ("max_cpus\u200b", "U+200B ZERO WIDTH SPACE"),
        ("m\u00e4x_cpus", "U+00E4 LATIN SMALL LETTER A WITH DIAERESIS"),
    ],
    ids=["first", "last", "zero width", "umlaut"],
)
def test_letter_beyond_ascii_is_named_with_the_key_that_is_meant(key: str, named: str) -> None:
    text = written(f'[limits]\n"{key}" = 1\n')

    (found,) = of_rule("SBP006", findings(text))

    assert (found.location.line, found.location.column) == (10, 1)
    assert named in found.message
    assert found.remedy == "You may have meant max_cpus"
    assert not places("SBP005", text)


def test_letter_beyond_ascii_in_a_value_is_no_key() -> None:
    assert not places("SBP006", written('owner = "\u0430"\nlimits.debug = false\n'))
