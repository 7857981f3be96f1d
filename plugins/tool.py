"""
title: Run code
description: Lets the model run Python and Bash in a gVisor sandbox, under limits that an administrator can lock.
author: sandbox-lockdown
version: 0.1.0
license: Apache-2.0
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from plugins.host import PluginHost, run_order, situation_or_error
from plugins.people import answering_model
from plugins.presentation import end_json, json_text
from plugins.self_test import self_test
from plugins.valves import valves_models
from policy.requester import TOOL_SURFACE
from sandbox.session import RunOrder


class Tools:
    """What a language model can call."""

    Valves, UserValves = valves_models(situation_or_error())

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._host = PluginHost(os.environ, keeps_boxes=True)

    async def run_python_code(
        self,
        python_code: str,
        __user__: dict[str, Any] | None = None,
        __event_emitter__: Callable[[dict[str, Any]], Awaitable[Any]] | None = None,
        __metadata__: dict[str, Any] | None = None,
        __model__: dict[str, Any] | None = None,
    ) -> str:
        """
        Run Python code in a sandbox, and return what it prints. Use this to compute, to test code, and to process data.
        The sandbox is new for each call and keeps nothing. There is the standard library, and what an
        administrator added; nothing can be installed. Print what matters.

        :param python_code: The Python program to run.
        """
        model = answering_model(__metadata__, __model__)
        order = run_order("python", python_code, self.valves, __user__, surface=TOOL_SURFACE, model=model)
        return await self._run(order, __event_emitter__)

    async def run_bash_command(
        self,
        bash_command: str,
        __user__: dict[str, Any] | None = None,
        __event_emitter__: Callable[[dict[str, Any]], Awaitable[Any]] | None = None,
        __metadata__: dict[str, Any] | None = None,
        __model__: dict[str, Any] | None = None,
    ) -> str:
        """
        Run a Bash command or script in a sandbox, and return what it prints.
        The sandbox is new for each call and keeps nothing. The usual small commands are there.

        :param bash_command: The Bash command or script to run.
        """
        model = answering_model(__metadata__, __model__)
        order = run_order("bash", bash_command, self.valves, __user__, surface=TOOL_SURFACE, model=model)
        return await self._run(order, __event_emitter__)

    async def _run(self, order: RunOrder, emit: Callable[[dict[str, Any]], Awaitable[Any]] | None) -> str:
        return json_text(end_json(await self._host.run(order, emit)))


if __name__ == "__main__":
    sys.exit(self_test(sys.argv[1:]))
