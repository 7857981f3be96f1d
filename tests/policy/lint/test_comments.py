"""Comments are written in known places, beside strings that look like them."""

import time
import timeit
import tomllib
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.lint.comments import Comment, comments
from tests.fuzz.toml_laws import check_comment_places, check_comments, check_text
from tests.policy.test_positions import HOSTILE_TEXTS, SIZE, TomlWriter, documents, filled, fragments, randoms


class CommentWriter(TomlWriter):
    """Notes where it writes comments, and what they say."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.comments: list[tuple[int, str]] = []

    def comment(self) -> None:
        offset = len(self.text)
        super().comment()
        self.comments.append((offset, self.text[offset + 1 :]))


@given(document=documents, random=randoms, crlf=st.booleans())
@settings(max_examples=400)
def test_exactly_the_comments_of_a_document_in_random_layout_are_found(
    document: dict[str, Any], random: Random, *, crlf: bool
) -> None:
    writer = CommentWriter(random)
    writer.document(document)
    text = writer.text.replace("\n", "\r\n") if crlf else writer.text

    found = tuple(comments(text))

    shifts = [writer.text.count("\n", 0, offset) if crlf else 0 for offset, _ in writer.comments]
    noted = [(offset + shift, said) for (offset, said), shift in zip(writer.comments, shifts, strict=True)]
    assert [(comment.offset, comment.text) for comment in found] == noted
    check_comment_places(text, found)
    check_comments(text, document, found)


@given(text=st.one_of(st.text(), st.lists(fragments, max_size=20).map("".join)))
@settings(max_examples=500)
def test_every_law_of_texts_holds_for_whatever_somebody_may_write(text: str) -> None:
    check_text(text)


def test_a_comment_tells_its_place_and_whether_it_stands_alone() -> None:
    text = "#\n \t# policy: ignore\nü = '#' #, # more\n"

    assert list(comments(text)) == [
        Comment(offset=0, line=1, column=1, text="", alone=True),
        Comment(offset=4, line=2, column=3, text=" policy: ignore", alone=True),
        Comment(offset=29, line=3, column=9, text=", # more", alone=False),
    ]


@pytest.mark.parametrize(
    "text",
    [
        'a = "#"',
        "a = '#'",
        'a = "\\"#"',
        "a = '\\' # c\n",
        "'#' = 1",
        '"#\\"" = 1',
        "a = '''\n# '' '''",
        'a = """\n# "" \\"""" # c\n',
        "a = ['''''''', '#', \"\"\"\"\"\"\"\"] # c\n",
        "a = ['', \"\", '#'] # c",
        "['#'.\"#\"] # c",
        'a = """\\\\""" # c',
    ],
)
def test_a_number_sign_in_a_string_is_no_comment(text: str) -> None:
    tomllib.loads(text)

    assert [comment.text for comment in comments(text)] == ([" c"] if "# c" in text else [])


@pytest.mark.parametrize("text", ['"', "'", '"""', "'''", '"""\\', '"\\', '"\\\n# c', "'\n# c", '"""\n# c', "'''#"])
def test_a_text_whose_string_is_not_closed_is_read_to_its_end(text: str) -> None:
    assert [comment.text for comment in comments(text)] == ([" c"] if text in {'"\\\n# c', "'\n# c"} else [])


UNCLOSED_TEXTS = {
    "long strings that are never closed": filled('"""', '\n\\"""', ""),
    "short strings that are never closed": filled('"', '\\"', ""),
    "short strings that end with their lines": filled("", '"\\\n\\"', ""),
    "quotes": '"' * (SIZE - 1),
    "single quotes": "'" * (SIZE - 1),
    "number signs": "#" * SIZE,
    "comments": "#\n" * (SIZE // 2),
    "comments after blanks": filled("", " " * 1000 + "#\n", ""),
    "a quote in each line": "'\n" * (SIZE // 2),
}


@pytest.mark.parametrize(
    "text", [*HOSTILE_TEXTS.values(), *UNCLOSED_TEXTS.values()], ids=[*HOSTILE_TEXTS, *UNCLOSED_TEXTS]
)
def test_comments_of_a_hostile_text_are_found_in_good_time(text: str) -> None:
    seconds = min(timeit.repeat(lambda: list(comments(text)), timer=time.process_time, number=1, repeat=3))

    assert seconds < 1  # some 30 ms, several times that under coverage; reading anything twice would take minutes
