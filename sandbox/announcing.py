"""Tells a person step by step what is being done for them, without anybody else waiting for their page."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

Announce = Callable[[str], Awaitable[None]]


class InTurn:
    """Passes sentences on in their order, while whoever says them goes on; its context ends when all are told."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._telling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until everything is told; where something went wrong, what is not told yet no longer matters."""
        if self._telling is None:
            return
        if kind is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
            return
        await self._telling

    async def tell(self, sentence: str) -> None:
        """Say a sentence after those before it."""
        self._telling = asyncio.create_task(self._told_after(self._telling, sentence))

    async def _told_after(self, before: asyncio.Task[None] | None, sentence: str) -> None:
        if before is not None:
            await before
        await self._announce(sentence)
