"""The kinds of value a limit may have: each a lattice, ordered by strictness, with one grammar.

A kind reads its values from text (variables) and from native values (TOML, valves), spells them again, and knows
their order: `meet` is the loosest value that is no looser than either. `UNLIMITED` is a word of its own: neither zero
nor `None` ever means it, and an empty set never means any.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, TypeVar

from policy.destinations import LONGEST_DESTINATION, Destination, meet_of_sets, narrowed, parse_destination

T = TypeVar("T")
N = TypeVar("N", int, Decimal)

LONGEST_VALVE = 128 * 1024
"""Characters of a valve that are read: the longest allow-list has fewer."""

Native = bool | int | float | str | list[str]
"""What JSON and TOML can hold of a value."""


class Unlimited(Enum):
    """The loosest value a number can have."""

    UNLIMITED = "unlimited"


UNLIMITED = Unlimited.UNLIMITED


class Kind(ABC, Generic[T]):
    """A kind of value: its grammar, its order and its JSON Schema."""

    @property
    @abstractmethod
    def grammar(self) -> str:
        """What text is permitted, in words that complete "expected …"."""

    @property
    @abstractmethod
    def strictest(self) -> T:
        """The strict end of the order."""

    @abstractmethod
    def parse(self, text: str) -> T:
        """Read the value of a variable; ValueError says what is wrong."""

    @abstractmethod
    def from_native(self, value: object) -> T:
        """Read a value out of TOML or a valve; ValueError says what is wrong."""

    @abstractmethod
    def native(self, value: T) -> Native:
        """The value as JSON and TOML hold it."""

    @abstractmethod
    def meet(self, one: T, other: T) -> T:
        """The loosest value that is no looser than either."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of a value."""

    def within(self, value: T, bound: T) -> bool:
        """Whether the value is no looser than the bound."""
        return self.meet(value, bound) == value

    def text(self, value: T) -> str:
        """The value as a variable holds it."""
        native = self.native(value)
        if isinstance(native, list):
            return ",".join(native) or "none"
        return str(native).lower() if isinstance(native, bool) else str(native)


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch(Kind[bool]):
    """True or false, one of which is the strict one."""

    strict: bool
    """Which of the two is the stricter."""

    @property
    def grammar(self) -> str:
        """Either word, in any case."""
        return "true or false"

    @property
    def strictest(self) -> bool:
        """The strict word."""
        return self.strict

    def parse(self, text: str) -> bool:
        """Read `true` or `false` in any case."""
        words = {"true": True, "false": False}
        if text.lower() not in words:
            raise ValueError(f"{spelt(text)} is neither true nor false")
        return words[text.lower()]

    def from_native(self, value: object) -> bool:
        """Take a bool as it is."""
        if not isinstance(value, bool):
            raise ValueError(f"{spelt(value)} is neither true nor false")
        return value

    def native(self, value: bool) -> bool:  # noqa: FBT001 -- the value itself
        """A bool is its own native form."""
        return value

    def meet(self, one: bool, other: bool) -> bool:  # noqa: FBT001 -- the values themselves
        """The strict one wherever either is strict."""
        return self.strict if self.strict in (one, other) else not self.strict

    def schema(self) -> dict[str, Any]:
        """A JSON boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Number(Kind[N | Unlimited]):
    """A number within a hard range, lower being stricter."""

    minimum: N
    """The least value, which is also the strictest."""
    maximum: N
    """The hard upper range, which no layer can exceed."""
    may_be_unlimited: bool = True
    """Whether the word `unlimited` is permitted."""

    @property
    def grammar(self) -> str:
        """The spelling, the range and whether `unlimited` is permitted."""
        word = " or unlimited" if self.may_be_unlimited else ""
        return f"{self._spelling()} from {self.minimum} to {self.maximum}{word}"

    @property
    def strictest(self) -> N | Unlimited:
        """The least value."""
        return self.minimum

    def parse(self, text: str) -> N | Unlimited:
        """Read digits, or the word `unlimited` where it is permitted."""
        if text == UNLIMITED.value and self.may_be_unlimited:
            return UNLIMITED
        return self._in_range(self._parse_digits(text))

    def from_native(self, value: object) -> N | Unlimited:
        """Read a TOML number, or the word `unlimited` where it is permitted."""
        if value == UNLIMITED.value and self.may_be_unlimited:
            return UNLIMITED
        return self._in_range(self._from_number(value))

    def native(self, value: N | Unlimited) -> Native:
        """A JSON number, whole where it is whole, or the word `unlimited`."""
        if isinstance(value, Unlimited):
            return value.value
        return int(value) if value == int(value) else float(value)

    def meet(self, one: N | Unlimited, other: N | Unlimited) -> N | Unlimited:
        """The lower of the two."""
        if isinstance(one, Unlimited):
            return other
        return one if isinstance(other, Unlimited) else min(one, other)

    def schema(self) -> dict[str, Any]:
        """A JSON number in range, or the word `unlimited`."""
        number = {
            "type": self._schema_type(),
            "minimum": self.native(self.minimum),
            "maximum": self.native(self.maximum),
        }
        if not self.may_be_unlimited:
            return number
        return {"if": {"type": "string"}, "then": {"const": UNLIMITED.value}, "else": number}

    def _in_range(self, number: N) -> N:
        if not self.minimum <= number <= self.maximum:
            raise ValueError(f"{spelt(number)} is outside {self.minimum} to {self.maximum}")
        return number

    @abstractmethod
    def _spelling(self) -> str: ...

    @abstractmethod
    def _schema_type(self) -> str: ...

    @abstractmethod
    def _parse_digits(self, text: str) -> N: ...

    @abstractmethod
    def _from_number(self, value: object) -> N: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole(_Number[int]):
    """A whole number."""

    def _spelling(self) -> str:
        return "a whole number in plain digits"

    def _schema_type(self) -> str:
        return "integer"

    def _parse_digits(self, text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
            raise ValueError(f"{spelt(text)} is not a whole number in plain digits")
        return int(text)

    def _from_number(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{spelt(value)} is not a whole number")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Thousandths(_Number[Decimal]):
    """A decimal number with at most three places."""

    def _spelling(self) -> str:
        return "a number with at most three decimal places"

    def _schema_type(self) -> str:
        return "number"

    def _parse_digits(self, text: str) -> Decimal:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", text, re.ASCII):
            raise ValueError(f"{spelt(text)} is not a number with at most three decimal places")
        return Decimal(text)

    def _from_number(self, value: object) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{spelt(value)} is not a number")
        return Decimal(value) if isinstance(value, int) else self._parse_digits(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Words(Kind[frozenset[str]]):
    """A set of words out of a fixed list, fewer being stricter."""

    choices: tuple[str, ...]
    """The whole list, in the order in which people see it."""

    @property
    def grammar(self) -> str:
        """The words to choose from."""
        return f"none, or words out of {', '.join(self.choices)}, separated by commas"

    @property
    def strictest(self) -> frozenset[str]:
        """The empty set."""
        return frozenset()

    def parse(self, text: str) -> frozenset[str]:
        """Read words separated by commas, or `none`."""
        return frozenset() if text == "none" else self.from_native(text.split(","))

    def from_native(self, value: object) -> frozenset[str]:
        """Read an array of words."""
        for word in _strings(value):
            if word not in self.choices:
                raise ValueError(f"{spelt(word)} is not one of {', '.join(self.choices)}")
        return frozenset(_strings(value))

    def native(self, value: frozenset[str]) -> list[str]:
        """The words in the list's order."""
        return [word for word in self.choices if word in value]

    def meet(self, one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
        """The words in both."""
        return one & other

    def schema(self) -> dict[str, Any]:
        """An array of distinct words."""
        return {"type": "array", "items": {"enum": list(self.choices)}, "uniqueItems": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Destinations(Kind[frozenset[Destination]]):
    """A set of network destinations, fewer and narrower being stricter."""

    @property
    def grammar(self) -> str:
        """What an item may be."""
        items = "`public`, a host name, `*.domain`, an address or a CIDR, with an optional :port"
        return f"none, or items separated by commas, each {items}"

    @property
    def strictest(self) -> frozenset[Destination]:
        """The empty set."""
        return frozenset()

    def parse(self, text: str) -> frozenset[Destination]:
        """Read items separated by commas, or `none`."""
        return frozenset() if text == "none" else self.from_native(text.split(","))

    def from_native(self, value: object) -> frozenset[Destination]:
        """Read an array of items."""
        return narrowed(parse_destination(text) for text in _strings(value))

    def native(self, value: frozenset[Destination]) -> list[str]:
        """The items, sorted by their spelling."""
        return sorted(str(item) for item in value)

    def meet(self, one: frozenset[Destination], other: frozenset[Destination]) -> frozenset[Destination]:
        """What both permit, item by item."""
        return meet_of_sets(one, other)

    def schema(self) -> dict[str, Any]:
        """An array of strings; what an item means is read by `parse_destination`."""
        item = {"type": "string", "minLength": 1, "maxLength": LONGEST_DESTINATION, "format": "destination"}
        return {"type": "array", "items": item, "uniqueItems": True, "maxItems": 256}


def spelt(untrusted: object) -> str:
    """An untrusted value for a message: printable, of bounded length, however large or deep the value is."""
    longest = 80
    if isinstance(untrusted, str):
        return repr(untrusted if len(untrusted) <= longest else f"{untrusted[:longest]}…")
    if isinstance(untrusted, int) and untrusted.bit_length() > longest:
        return "a very large number"
    if isinstance(untrusted, bool):
        return str(untrusted).lower()
    if isinstance(untrusted, int | float | Decimal):
        return str(untrusted)[:longest]
    return f"a {type(untrusted).__name__}"


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{spelt(value)} is not a list of words")
    return tuple(value)


def valve_characters(untrusted: object) -> int:
    """How much text a valve holds, which anybody may have stored there."""
    if isinstance(untrusted, list):
        return len(untrusted) + sum(len(item) for item in untrusted if isinstance(item, str))
    return len(untrusted) if isinstance(untrusted, str) else 0


def from_untrusted_valve(kind: Kind[T], untrusted_value: object) -> T:
    """Read a valve, which Open WebUI may have stored as text or as a native value.

    Raises:
        ValueError: the value is neither; the message says what is wrong with it.
    """
    if valve_characters(untrusted_value) > LONGEST_VALVE:
        raise ValueError("it is longer than any value that it can have")
    if isinstance(untrusted_value, str):
        return kind.parse(untrusted_value)
    if isinstance(untrusted_value, Mapping):
        raise ValueError("a table is no value")
    return kind.from_native(untrusted_value)
