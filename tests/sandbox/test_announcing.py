"""Sentences are told in their order, and whoever says them waits for nobody until the end."""

import asyncio

import pytest

from sandbox.announcing import InTurn


async def test_sentences_are_told_in_their_order_though_the_first_takes_longest() -> None:
    told: list[str] = []

    async def announce(sentence: str) -> None:
        await asyncio.sleep(0.05 if sentence == "one" else 0)
        told.append(sentence)

    async with InTurn(announce) as teller:
        for sentence in ("one", "two", "three"):
            await teller.tell(sentence)
        assert told == []

    assert told == ["one", "two", "three"]


async def test_what_goes_wrong_in_telling_comes_out_at_the_end() -> None:
    async def announce(_: str) -> None:
        raise ConnectionError

    async def tell() -> None:
        async with InTurn(announce) as teller:
            await teller.tell("one")
            await teller.tell("two")

    with pytest.raises(ConnectionError):
        await tell()


async def test_nothing_more_is_told_once_something_else_went_wrong() -> None:
    told: list[str] = []

    async def announce(sentence: str) -> None:
        await asyncio.sleep(1)
        told.append(sentence)

    async def fail() -> None:
        async with InTurn(announce) as teller:
            await teller.tell("one")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert told == []
