"""What must hold of every text that could stand in a policy file, whoever wrote it; `tomllib` is the judge.

Used by the fuzz target with bytes that nobody thought of, and by the tests with documents in random layout and with
what the fuzzer found. Trees are walked without recursion: a fuzzer nests deeper than Python's stack.
"""

import math
import tomllib
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from policy.document import DocumentSource, parse_document
from policy.errors import PolicyError
from policy.lint.comments import Comment, comments
from policy.lint.spans import Span, key_span, removal_span, value_span
from policy.lint.suppressions import suppressions
from policy.positions import KeyPath, Positions, locate

MOST_PATHS = 60
"""Paths of one text whose spans are checked: each costs a reading of the whole text."""
DEEPEST = 40
"""Segments of the longest path whose spans are checked."""


def check_bytes(data: bytes) -> None:
    """Whatever a file holds is a policy, or refused by an error of ours; and every other law."""
    try:
        parse_document(DocumentSource(origin="fuzz.toml", text=data, payload_sha256="", key_ids=()))
    except PolicyError as error:
        refused = str(error)
        assert refused
    check_text(data.decode("utf-8", "replace"))


def check_text(text: str) -> None:
    """Whatever a text is, nothing fails but by `ValueError`; and where `tomllib` reads it, all agree with it."""
    found = tuple(comments(text))
    check_comment_places(text, found)
    document = read(text)
    if document is None:
        check_no_toml(text)
        return
    positions = locate(text)
    values = dict(paths(document))
    check_positions(text, values, positions)
    check_comments(text, document, found)
    check_suppressions(text, document)
    shallow = [path for path in values if path and len(path) <= DEEPEST]
    for path in shallow[:: len(shallow) // MOST_PATHS + 1]:
        check_spans(text, document, values[path], path, positions)


def check_no_toml(text: str) -> None:
    """What is no TOML is refused, or located all the same: then every span lies within the text."""
    try:
        positions = locate(text)
    except ValueError:
        return
    known: dict[int, KeyPath] = {0: ()}
    for (parent, key), node in islice(positions.nodes.items(), MOST_PATHS):
        known[node] = (*known[parent], key)
        for span in (key_span, value_span, removal_span):
            found = span(text, positions, known[node])
            assert found is None or of(text, found) is not None


def read(text: str) -> dict[str, Any] | None:
    """What `tomllib` reads, or None where it refuses."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


def paths(document: dict[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    """Every path with its value, the document's own first."""
    waiting: list[tuple[KeyPath, Any]] = [((), document)]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting.extend(((*path, key), child) for key, child in children)


def same(one: object, other: object) -> bool:
    """Whether two trees are equal: NaN is itself, and an integer is no float and no boolean."""
    waiting = [(one, other)]
    while waiting:
        left, right = waiting.pop()
        match left, right:
            case dict(), dict() if left.keys() == right.keys():
                waiting.extend((left[key], right[key]) for key in left)
            case list(), list() if len(left) == len(right):
                waiting.extend(zip(left, right, strict=True))
            case float(), float() if math.isnan(left) and math.isnan(right):
                pass
            case (dict() | list(), _) | (_, dict() | list()):
                return False
            case _ if type(left) is not type(right) or left != right:
                return False
    return True


def check_positions(text: str, values: dict[KeyPath, Any], positions: Positions) -> None:
    """Every path of the document is located within the text, and no other path is."""
    assert len(positions.nodes) + 1 == len(positions.offsets) == len(values)
    lines = text.split("\n")
    for path in values if max(map(len, values)) <= DEEPEST else [max(values, key=len)]:
        position, offset = positions.find(path), positions.offset(path)
        assert position is not None
        assert offset == sum(len(line) + 1 for line in lines[: position.line - 1]) + position.column - 1
        assert offset < len(text) or not path


def check_spans(text: str, document: dict[str, Any], value: object, path: KeyPath, positions: Positions) -> None:
    """The three spans of one path say what they should."""
    value_at = value_span(text, positions, path)
    if value_at:
        assert same(read(f"x = {of(text, value_at)}"), {"x": value})
    else:
        assert isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
    check_key_span(text, value_at, path, positions)
    check_removal(text, document, value, path, positions)


def check_key_span(text: str, value_at: Span | None, path: KeyPath, positions: Positions) -> None:
    """A key's span is its spelling; an element's is a header's last segment, or its value's first line."""
    key_at = key_span(text, positions, path)
    assert key_at is not None
    assert "\n" not in of(text, key_at)
    if value_at and isinstance(path[-1], int):
        assert of(text, value_at).split("\n")[0].rstrip(" \t\r") == of(text, key_at)
    else:
        key = path[-1] if isinstance(path[-1], str) else path[-2]
        assert read(f"{of(text, key_at)} = 0") == {key: 0}


def check_removal(text: str, document: dict[str, Any], value: object, path: KeyPath, positions: Positions) -> None:
    """What can be removed is gone when it was, and nothing else; what cannot is no value of its own."""
    span = removal_span(text, positions, path)
    holders = [length for length in range(1, len(path) + 1) if value_span(text, positions, path[:length])]
    if span is None:
        dotted_in_a_value = len(path) in holders and len(holders) > 1 and len(path) - 1 not in holders
        assert len(path) not in holders or dotted_in_a_value
        return
    implied = 0 if len(holders) > 1 else segments_of_statement(of(text, span), path, value) - 1
    assert same(read(text[: span.start] + text[span.end :]), without(document, path, implied))


def segments_of_statement(statement: str, path: KeyPath, value: object) -> int:
    """How many of a path's last segments a statement spells."""
    alone = read(statement)
    assert alone is not None
    for count in range(1, len(path) + 1):
        found: Any = alone
        for key in path[-count:]:
            found = found.get(key) if isinstance(found, dict) else None
        if same(found, value):
            return count
    raise AssertionError(f"{statement!r} does not state {path}")


def without(document: dict[str, Any], path: KeyPath, implied: int) -> dict[str, Any]:
    """A document without one path, nor those of its nearest tables, so many at most, that this leaves empty."""
    copy: dict[str, Any] = document.copy()
    holders: list[Any] = [copy]
    for key in path[:-1]:
        holders[-1][key] = holders[-1][key].copy()
        holders.append(holders[-1][key])
    for emptied, (holder, key) in enumerate(zip(reversed(holders), reversed(path), strict=True)):
        if emptied and (emptied > implied or holder[key]):
            break
        del holder[key]
    return copy


def check_comment_places(text: str, found: tuple[Comment, ...]) -> None:
    """Each comment stands where it says, one in a line at most, in the order of the text."""
    lines = text.split("\n")
    assert [comment.line for comment in found] == sorted({comment.line for comment in found})
    for comment in found:
        line = lines[comment.line - 1]
        assert line[comment.column - 1 :].removesuffix("\r") == f"#{comment.text}"
        assert text[comment.offset :].startswith(f"#{comment.text}")
        assert comment.alone == (not line[: comment.column - 1].strip(" \t"))


def check_comments(text: str, document: dict[str, Any], found: tuple[Comment, ...]) -> None:
    """Without its comments a text says the same; any other `#` is part of what it says."""
    kept = list(chain([0], *((comment.offset, comment.offset + 1 + len(comment.text)) for comment in found)))
    pieces = [text[start:end] for start, end in zip(kept[::2], [*kept[1::2], len(text)], strict=True)]
    assert same(read("".join(pieces)), document)
    covered = [range(start, end) for start, end in zip(kept[1::2], kept[2::2], strict=True)]
    others = [at for at, character in enumerate(text) if character == "#" and not any(at in part for part in covered)]
    for at in others[: MOST_PATHS // 4]:
        assert not same(read(f"{text[: at + 1]}x{text[at + 1 :]}"), document)


def check_suppressions(text: str, document: dict[str, Any]) -> None:
    """A comment that takes findings out can be removed, and the text says the same."""
    for suppression in islice(suppressions("fuzz.toml", text), MOST_PATHS // 4):
        rest = text[: suppression.fix_start] + text[suppression.fix_end :]
        assert same(read(rest), document)


def of(text: str, span: Span) -> str:
    """The characters of a span."""
    assert 0 <= span.start <= span.end <= len(text)
    return text[span.start : span.end]
