"""
title: Run code
description: A button that runs a message's code block in a gVisor sandbox, under limits an administrator can lock.
author: sandbox-lockdown
version: 0.1.0
license: Apache-2.0
"""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from plugins.blocks import CodeBlock, meant_block, runnable_blocks, with_closed_blocks
from plugins.host import PluginHost, run_order, situation_or_error
from plugins.presentation import end_markdown
from plugins.self_test import self_test
from plugins.valves import valves_models
from policy.requester import FUNCTION_SURFACE
from sandbox.request import LANGUAGE_NAMES


class Action:
    """What a person can press."""

    Valves, UserValves = valves_models(situation_or_error())

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._host = PluginHost(os.environ, keeps_boxes=True)

    async def action(
        self,
        body: dict[str, Any],
        __user__: dict[str, Any] | None = None,
        __event_emitter__: Callable[[dict[str, Any]], Awaitable[Any]] | None = None,
    ) -> dict[str, Any] | None:
        """Run the code block of the message, and add its result below it."""
        message_id, content = _pressed_message(body)
        blocks = runnable_blocks(content)
        block = meant_block(blocks)
        if block is None:
            await _emit_no_block(__event_emitter__)
            return None
        # No model is named: which one wrote the message, and its text, are both the client's claims. Open WebUI checks
        # only that the person may use the model that is claimed, or nothing at all of one of their own connection.
        order = run_order(block.language, block.code, self.valves, __user__, surface=FUNCTION_SURFACE)
        end = await self._host.run(order, __event_emitter__)
        added = end_markdown(end, _heading(block, blocks))
        return {"messages": [{"id": message_id, "content": f"{with_closed_blocks(content)}\n\n---\n\n{added}\n"}]}


def _pressed_message(untrusted_body: Mapping[str, Any]) -> tuple[str, str]:
    """Id and text of the message whose button was pressed: the named one, or the last where none is named."""
    named, listed = untrusted_body.get("id"), untrusted_body.get("messages")
    messages = [message for message in listed if isinstance(message, Mapping)] if isinstance(listed, list) else []
    # Never the text of another message than the named one, in whose place the answer is put.
    pressed = [message for message in messages if message.get("id") == named] if named else messages
    message = pressed[-1] if pressed else {}
    content = message.get("content")
    return str(named or message.get("id") or ""), content if isinstance(content, str) else ""


def _heading(block: CodeBlock, blocks: tuple[CodeBlock, ...]) -> str:
    """Which block was run, as the person sees it."""
    name = LANGUAGE_NAMES[block.language]
    if len(blocks) == 1:
        return f"{name} code block:"
    position = blocks.index(block) + 1
    return f"{name} code block {position} of the {len(blocks)} that can be run:"


async def _emit_no_block(emit: Callable[[dict[str, Any]], Awaitable[Any]] | None) -> None:
    description = "This message has no code block that is surely python or bash."
    if emit is not None:
        await emit({"type": "status", "data": {"status": "error", "description": description, "done": True}})


if __name__ == "__main__":
    sys.exit(self_test(sys.argv[1:]))
