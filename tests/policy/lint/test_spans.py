"""Spans are held to `tomllib`: what stands in them is read alone, and what is removed must leave the rest as it was."""

import timeit
import tomllib
from random import Random
from time import process_time
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.lint.spans import Span, key_span, removal_span, value_span
from policy.positions import KeyPath, locate
from tests.fuzz.toml_laws import check_spans, paths, read
from tests.policy.test_positions import HOSTILE_TEXTS, TomlWriter, documents, filled, fragments, randoms


def check_all_spans(text: str, document: dict[str, Any]) -> None:
    positions = locate(text)
    for path, value in paths(document):
        if path:
            check_spans(text, document, value, path, positions)


@given(document=documents, random=randoms)
@settings(max_examples=400)
def test_every_span_of_a_document_in_random_layout_is_exact(document: dict[str, Any], random: Random) -> None:
    writer = TomlWriter(random)
    writer.document(document)

    check_all_spans(writer.text, document)


@given(document=documents, random=randoms)
@settings(max_examples=100)
def test_spans_of_a_text_with_crlf_are_exact(document: dict[str, Any], random: Random) -> None:
    writer = TomlWriter(random)
    writer.document(document)
    text = writer.text.replace("\n", "\r\n")

    check_all_spans(text, document)


@given(document=documents, multiline=st.booleans())
@settings(max_examples=100)
def test_every_span_of_a_document_by_tomli_w_is_exact(document: dict[str, Any], *, multiline: bool) -> None:
    text = tomli_w.dumps(document, multiline_strings=multiline)

    check_all_spans(text, tomllib.loads(text))


@given(text=st.lists(fragments, max_size=20).map("".join))
@settings(max_examples=500)
def test_every_span_of_whatever_tomllib_reads_is_exact(text: str) -> None:
    document = read(text)
    if document is not None:
        check_all_spans(text, document)


def spelled(text: str, span: Span | None) -> str | None:
    return None if span is None else text[span.start : span.end]


TEXT = """\
id = 'acme' # ours
a . "b c".d=[ 1, # one
  { e = 2, f.g = 3 },
  '''x ]
# y''',
] # end

[limits] # all
[limits.max_cpus]
ceiling = 0.5
[[scope]]
match.groups = ["students"]
"""
CASES: dict[KeyPath, tuple[str | None, str | None]] = {
    (): (None, None),
    ("id",): ("id", "'acme'"),
    ("a",): ("a", None),
    ("a", "b c"): ('"b c"', None),
    ("a", "b c", "d"): ("d", "[ 1, # one\n  { e = 2, f.g = 3 },\n  '''x ]\n# y''',\n]"),
    ("a", "b c", "d", 0): ("1", "1"),
    ("a", "b c", "d", 1): ("{ e = 2, f.g = 3 }", "{ e = 2, f.g = 3 }"),
    ("a", "b c", "d", 1, "e"): ("e", "2"),
    ("a", "b c", "d", 1, "f"): ("f", None),
    ("a", "b c", "d", 1, "f", "g"): ("g", "3"),
    ("a", "b c", "d", 2): ("'''x ]", "'''x ]\n# y'''"),
    ("limits",): ("limits", None),
    ("limits", "max_cpus"): ("max_cpus", None),
    ("scope",): ("scope", None),
    ("scope", 0): ("scope", None),
    ("scope", 0, "match", "groups", 0): ('"students"', '"students"'),
    ("scope", 1): (None, None),
    ("absent", "deeper"): (None, None),
}


@pytest.mark.parametrize(("path", "expected"), CASES.items(), ids=[str(path) for path in CASES])
def test_spans_of_key_and_value_are_as_written(path: KeyPath, expected: tuple[str | None, str | None]) -> None:
    positions = locate(TEXT)

    found = tuple(spelled(TEXT, span(TEXT, positions, path)) for span in (key_span, value_span))

    assert found == expected


REMOVALS: dict[str, tuple[str, KeyPath, str]] = {
    "a statement": ("a = 1\nb = 2 # two\nc = 3\n", ("b",), "a = 1\nc = 3\n"),
    "an indented statement without line end": ("a = 1\n\t b = 2 # two", ("b",), "a = 1\n"),
    "a statement of several lines": ("a = [\n 1,\n] # ]\nb = 2\n", ("a",), "b = 2\n"),
    "a dotted statement": ("[l]\na.b = 1\na.c = 2\n", ("l", "a", "c"), "[l]\na.b = 1\n"),
    "a lone element": ("a = [ 1 ]", ("a", 0), "a = [  ]"),
    "a lone element with its comma": ("a = [1,]", ("a", 0), "a = []"),
    "the first element": ("a = [1, 2]", ("a", 0), "a = [2]"),
    "an element between others": ("a = [1, 2, 3]", ("a", 1), "a = [1, 3]"),
    "the last element": ("a = [1, 2 ]", ("a", 1), "a = [1 ]"),
    "the last element with its comma": ("a = [1, 2, ]", ("a", 1), "a = [1, ]"),
    "an element in its own line": ("a = [\n  1, # one\n  2, # two\n]", ("a", 0), "a = [\n  2, # two\n]"),
    "the last element in its own line": ("a = [\n  1, # one\n  2 # two\n]", ("a", 1), "a = [\n  1, # one\n]"),
    "a comma before a comment with commas": ("a = [1 # , 2\n, 3]", ("a", 0), "a = [3]"),
    "no comma but in a comment": ("a = [1 # , 2\n]", ("a", 0), "a = [ # , 2\n]"),
    "commas that begin lines": ("a = [\n  1\n, 2\n, 3\n]", ("a", 1), "a = [\n  1\n, 3\n]"),
    "an array in an array": ("a = [[1], [2]]", ("a", 1), "a = [[1]]"),
    "a key in an inline table": ("a = { b = 1, c = 2 }", ("a", "b"), "a = { c = 2 }"),
    "the last key in an inline table": ("a = { b = 1, c = 2 }", ("a", "c"), "a = { b = 1 }"),
    "the only key in an inline table": ("a = {b = 1}", ("a", "b"), "a = {}"),
}


@pytest.mark.parametrize(("text", "path", "expected"), REMOVALS.values(), ids=REMOVALS)
def test_removal_takes_comma_comment_and_own_lines_with_it(text: str, path: KeyPath, expected: str) -> None:
    span = removal_span(text, locate(text), path)

    assert span is not None
    assert text[: span.start] + text[span.end :] == expected


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a.b = 1\na.c = 2", ("a",)),
        ("[a]\nb = 1", ("a",)),
        ("[[a]]\nb = 1", ("a", 0)),
        ("[[a]]\nb = 1", ("a",)),
        ("a = { b.c = 1 }", ("a", "b", "c")),
        ("a = 1", ("b",)),
        ("a = 1", ()),
    ],
    ids=str,
)
def test_what_no_single_deletion_removes_has_no_removal(text: str, path: KeyPath) -> None:
    assert removal_span(text, locate(text), path) is None


UNCLOSED_TEXTS = {
    "an array with a string that is never closed": filled('a = ["', '\\"', "\n]"),
    "an array with a long string that is never closed": filled('a = ["""', '\n\\"""', "\n]"),
    "an array with strings that end with their lines": filled("a = [", "'\n", "]"),
    "an array without commas": filled("a = [", "[1]\n", "]"),
}


@pytest.mark.parametrize(
    "text", [*HOSTILE_TEXTS.values(), *UNCLOSED_TEXTS.values()], ids=[*HOSTILE_TEXTS, *UNCLOSED_TEXTS]
)
def test_spans_of_a_hostile_text_are_found_in_good_time(text: str) -> None:
    positions = locate(text)
    path: KeyPath = ()
    while len(path) < 16:  # as deep as a policy may nest
        path = (*path, next((key for key in ("a", "b", 0) if positions.offset((*path, key)) is not None), ""))

    def ask() -> None:
        for length in range(len(path)):
            for span in (key_span, value_span, removal_span):
                span(text, positions, path[:length])

    # Some 0.3 s, several times that under coverage; reading on from each place to the text's end would take minutes.
    assert min(timeit.repeat(ask, timer=process_time, number=1, repeat=3)) < 10
