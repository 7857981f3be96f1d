"""Each kind of value: its grammar in variables and in TOML, its order, and what a valve may hold."""

import string
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.values import (
    UNLIMITED,
    Destinations,
    Kind,
    Switch,
    Thousandths,
    Whole,
    Words,
    from_untrusted_valve,
    spelt,
)
from tests.policy.factories import destinations, values_of

SWITCH = Switch(strict=False)
WHOLE = Whole(minimum=0, maximum=1000)
CAPPED = Whole(minimum=0, maximum=1000, may_be_unlimited=False)
DECIMAL = Thousandths(minimum=Decimal("0.01"), maximum=Decimal(1024))
WORDS = Words(choices=("python", "bash"))
PLACES = Destinations()
EVERY_KIND = pytest.mark.parametrize(
    "kind",
    [SWITCH, Switch(strict=True), WHOLE, CAPPED, DECIMAL, WORDS, PLACES],
    ids=["false is strict", "true is strict", "whole", "capped", "decimal", "words", "destinations"],
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (SWITCH, "true", True),
        (SWITCH, "TRUE", True),
        (SWITCH, "True", True),
        (SWITCH, "tRuE", True),
        (SWITCH, "false", False),
        (SWITCH, "FALSE", False),
        (WHOLE, "0", 0),
        (WHOLE, "5", 5),
        (WHOLE, "1000", 1000),
        (WHOLE, "unlimited", UNLIMITED),
        (CAPPED, "1000", 1000),
        (DECIMAL, "1", Decimal(1)),
        (DECIMAL, "1.0", Decimal(1)),
        (DECIMAL, "0.01", Decimal("0.01")),
        (DECIMAL, "0.125", Decimal("0.125")),
        (DECIMAL, "1024", Decimal(1024)),
        (DECIMAL, "unlimited", UNLIMITED),
        (WORDS, "python", frozenset({"python"})),
        (WORDS, "bash,python", frozenset({"bash", "python"})),
        (WORDS, "none", frozenset()),
        (PLACES, "none", frozenset()),
        (PLACES, "public", destinations("public")),
        (PLACES, "*.example.com:443,10.0.0.0/8", destinations("*.example.com:443", "10.0.0.0/8")),
    ],
)
def test_text_within_the_grammar_is_read(kind: Kind[Any], text: str, value: object) -> None:
    assert kind.parse(text) == value
    assert type(kind.parse(text)) is type(value)


NOT_A_SWITCH = (
    "",
    "1",
    "0",
    "yes",
    "no",
    "on",
    "off",
    "t",
    " true",
    "true ",
    "true\n",
    "null",
    "fal\u017fe",
    "\uff34\uff32\uff35\uff25",
)
NOT_DIGITS = (
    "",
    "+5",
    "-1",
    "-0",
    " 5",
    "5 ",
    "5\n",
    "\t5",
    "1_000",
    "٣",
    "५",
    "\uff15",
    "²",
    "0x10",
    "5s",
    "5e2",
    "1,0",
    "inf",
)
NOT_A_NUMBER = (
    "nan",
    "infinity",
    "1.",
    ".5",
    "1.0000",
    "0.0005",
    "0.009",
    "1e1",
    "1.0.0",
    "1024.001",
    "1025",
    "0",
    "0.0",
)
NOT_WHOLE = ("1.0", "1.5", "0.0", "1001", "9" * 18, "9" * 19, "9" * 5000, "1" + "0" * 10_000)
NOT_UNLIMITED = ("Unlimited", "UNLIMITED", " unlimited", "none", "null", "-1", "infinite", "max")
NOT_WORDS = (
    "",
    "python,",
    ",python",
    "python, bash",
    " python",
    "Python",
    "none,python",
    "python;bash",
    "any",
    "*",
    "all",
)
NOT_PLACES = (
    "",
    "public,",
    ",public",
    "public, example.com",
    " public",
    "none,public",
    "NONE",
    "any",
    "*",
    "public public",
)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((SWITCH, text) for text in NOT_A_SWITCH),
        *((WHOLE, text) for text in (*NOT_DIGITS, *NOT_WHOLE, *NOT_UNLIMITED)),
        *((DECIMAL, text) for text in (*NOT_DIGITS, *NOT_A_NUMBER, *NOT_UNLIMITED, "9" * 5000)),
        *((WORDS, text) for text in NOT_WORDS),
        *((PLACES, text) for text in NOT_PLACES if text != "any"),
        (CAPPED, "unlimited"),
    ],
    ids=lambda item: type(item).__name__ if isinstance(item, Kind) else ascii(item)[:30],
)
def test_text_outside_the_grammar_is_refused(kind: Kind[Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".{8}") as refusal:
        kind.parse(text)
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("kind", "native", "value"),
    [
        (SWITCH, True, True),
        (SWITCH, False, False),
        (WHOLE, 5, 5),
        (WHOLE, "unlimited", UNLIMITED),
        (DECIMAL, 1, Decimal(1)),
        (DECIMAL, 1.0, Decimal(1)),
        (DECIMAL, 0.1, Decimal("0.1")),
        (DECIMAL, "unlimited", UNLIMITED),
        (WORDS, [], frozenset()),
        (WORDS, ["bash"], frozenset({"bash"})),
        (PLACES, [], frozenset()),
        (PLACES, ["public"], destinations("public")),
    ],
)
def test_native_value_of_the_right_type_is_taken(kind: Kind[Any], native: object, value: object) -> None:
    assert kind.from_native(native) == value
    assert type(kind.from_native(native)) is type(value)


@pytest.mark.parametrize(
    ("kind", "native"),
    [
        *((SWITCH, native) for native in (1, 0, 1.0, "true", "", None, [], [True])),
        *((WHOLE, native) for native in (1.0, True, False, "5", "", None, -1, 1001, 2**63, 10**5000, [5], b"5")),
        (CAPPED, "unlimited"),
        *(
            (DECIMAL, native)
            for native in (True, "1", 0, -1, 0.0, 0.009, 0.0005, 0.1234, 1e-5, 1024.001, 1e300, 10**5000)
        ),
        *((DECIMAL, native) for native in (float("nan"), float("inf"), float("-inf"), None, [1])),
        *(
            (WORDS, native)
            for native in ("python", "none", ["none"], ["Python"], [1], [None], None, {"python": 1}, b"bash")
        ),
        *((PLACES, native) for native in ("public", "none", ["none"], [""], [1], [["public"]], None, {"public": 1}, 5)),
    ],
    ids=lambda item: type(item).__name__ if isinstance(item, Kind) else spelt(item)[:30],
)
def test_native_value_of_another_type_or_out_of_range_is_refused(kind: Kind[Any], native: object) -> None:
    with pytest.raises(ValueError, match=r".{8}") as refusal:
        kind.from_native(native)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(("native", "readers"), [(1, {"whole", "decimal"}), (1.0, {"decimal"}), (True, {"switch"})])
def test_one_and_one_point_nought_and_true_are_three_things(native: object, readers: set[str]) -> None:
    kinds: dict[str, Kind[Any]] = {"switch": SWITCH, "whole": WHOLE, "decimal": DECIMAL}
    taken = set()
    for name, kind in kinds.items():
        try:
            kind.from_native(native)
        except ValueError:
            continue
        taken.add(name)
    assert taken == readers


def test_zero_is_the_strictest_number_and_not_unlimited() -> None:
    assert WHOLE.parse("0") == WHOLE.strictest
    assert WHOLE.meet(0, UNLIMITED) == 0
    assert not WHOLE.within(UNLIMITED, 1000)


@pytest.mark.parametrize(("kind", "wide"), [(WORDS, frozenset({"python"})), (PLACES, destinations("public"))])
def test_empty_set_permits_nothing(kind: Kind[Any], wide: object) -> None:
    assert kind.meet(frozenset(), wide) == frozenset()
    assert not kind.within(wide, frozenset())
    assert kind.text(frozenset()) == "none"
    assert kind.native(frozenset()) == []


@pytest.mark.parametrize("strict", [True, False])
def test_the_strict_word_prevails(strict: bool) -> None:  # noqa: FBT001 -- a table of bools
    kind = Switch(strict=strict)
    assert kind.meet(strict, not strict) is strict
    assert kind.meet(not strict, strict) is strict
    assert kind.within(strict, not strict)
    assert not kind.within(not strict, strict)


@pytest.mark.parametrize(
    ("native", "value"),
    [
        ("5", 5),
        (5, 5),
        ("unlimited", UNLIMITED),
    ],
)
def test_valve_is_read_as_text_or_as_a_native_value(native: object, value: object) -> None:
    assert from_untrusted_valve(WHOLE, native) == value


@pytest.mark.parametrize(
    "stored",
    [
        " 5",
        "",
        "5.0",
        5.0,
        True,
        {},
        {"value": 5},
        [5],
        (5,),
        {5},
        b"5",
        object(),
        10**5000,
        "9" * 5000,
        "\ud800",
        "\x00",
    ],
    ids=lambda stored: spelt(stored)[:30],
)
def test_valve_that_is_no_value_is_refused_in_few_words(stored: object) -> None:
    with pytest.raises(ValueError, match=r".{8}") as refusal:
        from_untrusted_valve(WHOLE, stored)
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).isprintable()


def test_valve_nested_past_the_interpreters_stack_is_refused() -> None:
    stored: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 3):
        stored = [stored]
    with pytest.raises(ValueError, match="a list is not a list of words"):
        from_untrusted_valve(WORDS, stored)


@EVERY_KIND
@settings(max_examples=50)
@given(data=st.data())
def test_meet_is_commutative_associative_and_idempotent(kind: Kind[Any], data: st.DataObject) -> None:
    one, two, three = (data.draw(values_of(kind)) for _ in range(3))
    assert kind.meet(one, two) == kind.meet(two, one)
    assert kind.meet(kind.meet(one, two), three) == kind.meet(one, kind.meet(two, three))
    assert kind.meet(one, one) == one


@EVERY_KIND
@settings(max_examples=50)
@given(data=st.data())
def test_meet_is_within_both_and_the_loosest_that_is(kind: Kind[Any], data: st.DataObject) -> None:
    one, two, below = (data.draw(values_of(kind)) for _ in range(3))
    met = kind.meet(one, two)
    assert kind.within(met, one)
    assert kind.within(met, two)
    assert kind.within(below, met) == (kind.within(below, one) and kind.within(below, two))


@EVERY_KIND
@settings(max_examples=50)
@given(data=st.data())
def test_strictest_value_is_the_bottom(kind: Kind[Any], data: st.DataObject) -> None:
    assert kind.meet(data.draw(values_of(kind)), kind.strictest) == kind.strictest


@EVERY_KIND
@settings(max_examples=50)
@given(data=st.data())
def test_a_value_that_is_spelt_and_read_again_is_the_same(kind: Kind[Any], data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    assert kind.parse(kind.text(value)) == value
    assert kind.from_native(kind.native(value)) == value
    assert from_untrusted_valve(kind, kind.native(value)) == value


@EVERY_KIND
@settings(max_examples=50)
@given(text=st.text() | st.text(alphabet=string.digits + ".+-_ ,eE") | st.from_regex(r"[0-9]{1,4}(\.[0-9]{0,4})?"))
def test_arbitrary_text_is_a_value_or_a_value_error(kind: Kind[Any], text: str) -> None:
    try:
        value = kind.parse(text)
    except ValueError:
        return
    assert kind.from_native(kind.native(value)) == value
