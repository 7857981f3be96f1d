import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


def with_groups(*names: str) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    return written(f"[[scope]]\nmatch.groups = [{quoted}]\nlimits.debug = false\n")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("\u0455tudents", "U+0455 CYRILLIC SMALL LETTER DZE"),
        ("stud\u0435nts", "U+0435 CYRILLIC SMALL LETTER IE"),
        ("\u03bfps", "U+03BF GREEK SMALL LETTER OMICRON"),
        ("\u0431eta", "U+0431 CYRILLIC SMALL LETTER BE"),
    ],
)
def test_word_of_two_alphabets_is_found_where_it_stands(name: str, named: str) -> None:
    text = with_groups("ops", name)
    if name == "\u03bfps":
        text = with_groups("dev", name)

    (found,) = of_rule("SBP019", findings(text))

    assert (found.location.line, found.location.column, found.location.key) == (10, 24, "scope[0].match.groups[1]")
    assert "mixes Latin letters" in found.message
    assert named in found.message


def test_name_that_looks_like_another_is_found_with_the_other() -> None:
    text = with_groups("cop", "\u0441\u043e\u0440")  # the second is Cyrillic throughout

    (found,) = of_rule("SBP019", findings(text))

    assert found.location.key == "scope[0].match.groups[1]"
    assert "looks like 'cop' in line 10" in found.message
    assert [each.key for each in found.related] == ["scope[0].match.groups[0]"]


def test_names_are_compared_across_scopes() -> None:
    text = written(
        "[[scope]]\nmatch.users = ['axe']\nlimits.debug = false\n"
        "[[scope]]\nexcept.users = ['\u0430xe']\nlimits.debug = false\n"
    )

    assert [key for _, _, key in places("SBP019", text)] == ["scope[1].except.users[0]"]


def test_escape_hides_no_letter() -> None:
    assert places("SBP019", with_groups("stud\\u0435nts"))


@pytest.mark.parametrize(
    "names",
    [
        ("students", "staff"),
        ("\u0441\u0442\u0443\u0434\u0435\u043d\u0442\u044b",),
        ("\u0431\u0435\u0442\u0430-testers", "\u03b2_group"),
        ("caf\u00e9", "\u0142\u00f3d\u017a"),
        ("5\u00b5m", "\u6771\u4eactower"),
        ("caf\u00e9", "cafe\u0301"),
    ],
    ids=["ASCII", "Cyrillic", "words apart", "Latin", "other signs", "two forms of one name"],
)
def test_names_of_one_alphabet_in_each_word_are_not_found(names: tuple[str, ...]) -> None:
    assert not places("SBP019", with_groups(*names))


def test_names_of_different_kinds_are_not_compared() -> None:
    text = written("[[scope]]\nmatch = { groups = ['cop'], models = ['\u0441\u043e\u0440'] }\nlimits.debug = false\n")

    assert not places("SBP019", text)


def test_audience_is_looked_at_too() -> None:
    assert places("SBP019", written("limits.debug = false\n", audience='["pr\u043ed"]')) == [(6, 13, "audience[0]")]
