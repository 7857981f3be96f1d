"""The line as a terminal shows it: what matters stands over its underline, measured by rich, which we did not write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from policy.lint.formats.excerpts import MOST_CELLS, excerpt

CHARACTERS = st.sampled_from("ab =\"'\t\u6771\u4eac\uff21\U0001f511\u00e9\u202e\x1b\x00\u200b\ufeff\udc80\u00a0")


def underlined(line: str, column: int, end_column: int) -> str:
    """What stands over the underline, by cells."""
    part = excerpt(line, column, end_column)
    ends = [cell_len(part.text[: index + 1]) for index in range(len(part.text))]
    return "".join(
        character
        for character, end in zip(part.text, ends, strict=True)
        # A character that takes no cell joins the one before it, and ends where that ends.
        if part.indent < end <= part.indent + part.width
    )


@pytest.mark.parametrize(
    ("line", "column", "end_column", "under"),
    [
        ("default = 90", 11, 13, "90"),
        ('x = "##[debug]" # y', 6, 9, "##\\x5b"),
        ('x = "##vso[a]" # y', 16, 17, "#"),
        ("\tdefault\t= 90", 10, 12, "= "),
        ("\tdefault = 90", 12, 14, "90"),
        ('owner = "\u6771\u4eac", x = 1', 15, 16, "x"),
        ('owner = "\u6771\u4eac", x = 1', 10, 12, "\u6771\u4eac"),
        ("cafe\u0301 = 1", 7, 8, "="),
        ("cafe\u0301 = 1", 4, 6, "e\u0301"),
        ("a\u202eb = 1", 3, 4, "b"),
        ("a\u202eb = 1", 2, 3, "\\u202e"),
        ("\x1b[2Jx", 5, 6, "x"),
        ("\U0001f511 = 1", 3, 4, "="),
        ("default = 90", 11, 11, "9"),
        ("default = 90", 11, 99, "90"),
        ("default = 90", 11, 3, "9"),
    ],
    ids=[
        "plain",
        "command of a runner",
        "after a command of a runner",
        "tabs before",
        "tab at the start",
        "after wide",
        "wide",
        "after combining",
        "combining",
        "after bidi",
        "bidi",
        "after escape",
        "after emoji",
        "a place only",
        "past the end",
        "backwards",
    ],
)
def test_underline_stands_under_what_it_means(line: str, column: int, end_column: int, under: str) -> None:
    assert underlined(line, column, end_column) == under


def test_hangul_spelled_in_parts_takes_the_cells_of_its_syllable() -> None:
    part = excerpt("\u1112\u1161\u11ab = 1", 5, 6)

    assert part.indent == 3


def test_place_past_the_end_of_the_line_is_marked_behind_it() -> None:
    part = excerpt("ab", 9, 10)

    assert (part.text, part.indent, part.width) == ("ab", 2, 1)


@pytest.mark.parametrize(
    ("column", "first", "last"),
    [(1, "0", "…"), (500, "…", "…"), (1000, "…", "9")],
    ids=["start", "middle", "end"],
)
def test_long_line_is_cut_around_the_place(column: int, first: str, last: str) -> None:
    line = "0123456789" * 100

    part = excerpt(line, column, column + 3)

    assert (part.text[0], part.text[-1]) == (first, last)
    assert len(part.text.strip("…")) == MOST_CELLS
    assert underlined(line, column, column + 1) == line[column - 1]


def test_long_line_shows_what_stands_before_and_behind_the_place() -> None:
    part = excerpt("x" * 1000, 500, 501)

    assert 30 < part.indent < 60


def test_line_that_just_fits_is_not_cut() -> None:
    line = "x" * MOST_CELLS

    assert [excerpt(line, column, column).text for column in (1, 50, MOST_CELLS)] == [line] * 3


@given(st.text(CHARACTERS, max_size=300), st.integers(1, 310), st.integers(1, 310))
def test_any_excerpt_fits_its_line_and_shows_nothing_raw(line: str, column: int, end_column: int) -> None:
    part = excerpt(line, column, end_column)

    assert part.text.isprintable()
    assert cell_len(part.text) <= MOST_CELLS + 2
    assert part.indent + part.width <= cell_len(part.text) + 1


@given(st.text(CHARACTERS, min_size=1, max_size=300), st.data())
def test_any_character_stands_over_its_own_underline(line: str, data: st.DataObject) -> None:
    column = data.draw(st.integers(1, len(line)))
    whole = excerpt(line[column - 1], 1, 2)

    assert underlined(line, column, column + 1) == whole.text
