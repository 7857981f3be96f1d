"""Between Open WebUI and the sandbox: reads valves and the person, tells people each step, and turns ends into words.

One `PluginHost` is held by each plugin instance. Open WebUI shares that instance among all requests, so nothing of a
request is ever stored on it.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from plugins.people import GROUPS_SECONDS, GroupRegister, GroupSource, open_webui_groups, requester_of
from plugins.presentation import refusal_sentence
from plugins.valves import untrusted_values
from policy.errors import PolicyError, Problem
from policy.situation import Situation
from sandbox.errors import SandboxError
from sandbox.outcome import RunResult
from sandbox.session import RunOrder, Session

Emit = Callable[[dict[str, Any]], Awaitable[Any]]
UNKNOWN_PERSON = "unknown"
LOGGER_NAME = "sandbox_lockdown"


PluginEnd = RunResult | PolicyError | SandboxError
"""How a request to a plugin ended: with a result, or with a refusal."""


class PluginHost:
    """Runs code for one plugin."""

    def __init__(
        self,
        environ: Mapping[str, str],
        group_source: GroupSource = open_webui_groups,
        *,
        keeps_boxes: bool = False,
    ) -> None:
        """Run under this environment.

        Args:
            environ: this process's.
            group_source: who knows the groups of a person.
            keeps_boxes: whether boxes may wait for code between runs.
        """
        warn = logging.getLogger(LOGGER_NAME).warning
        self._session = Session(environ, warn, keeps_boxes=keeps_boxes)
        self._groups = GroupRegister(group_source, warn, GROUPS_SECONDS)

    async def run(self, order: RunOrder, emit: Emit | None) -> PluginEnd:
        """Run code, and say how it went; only cancellation and defects of ours come out as exceptions."""

        async def announce(description: str) -> None:
            await _emit_status(emit, "in_progress", description, done=False)

        try:
            groups = await self._groups.groups(order.requester.user)
            known = replace(order, requester=replace(order.requester, groups=groups))
            result = await self._session.run(known, announce)
        except (PolicyError, SandboxError) as refusal:
            return await _told_refusal(emit, refusal)
        except Exception as defect:
            logging.getLogger(LOGGER_NAME).exception("a run ended with a defect of sandbox-lockdown")
            return await _told_refusal(emit, _internal_error(defect))
        await _emit_status(emit, "complete", result.sentence, done=True)
        return result

    async def close(self) -> None:
        """Leave nothing behind; a host that is only forgotten does so within a second or two."""
        await self._session.close()


def run_order(
    language: str,
    code: str,
    admin_valves: object,
    untrusted_user: Mapping[str, Any] | None,
    *,
    surface: str,
    model: str | None = None,
) -> RunOrder:
    """What a person wants to run, with a snapshot of all valves; their groups are asked for when it is run.

    Args:
        language: `python` or `bash`.
        code: the person's text.
        admin_valves: the plugin's valves, as Open WebUI stored them on the instance.
        untrusted_user: Open WebUI's `__user__`.
        surface: `tool` or `function`.
        model: the id of the model that runs the code, where the server knows it.
    """
    user = untrusted_user or {}
    return RunOrder(
        language=language,
        code=code,
        person=str(user.get("id") or UNKNOWN_PERSON),
        requester=requester_of(user, surface=surface, model=model),
        untrusted_person_valves=untrusted_values(user.get("valves")),
        untrusted_admin_valves=untrusted_values(admin_valves),
    )


def situation_or_error() -> Situation | PolicyError:
    """What holds in this process, or why nothing does; for the valves' descriptions.

    Open WebUI reads these while it loads the plugin, and would show nobody why that failed; so nothing is raised here.
    """
    try:
        return Session(os.environ, _unsaid).situation()
    except PolicyError as error:
        return error
    except Exception as defect:
        logging.getLogger(LOGGER_NAME).exception("the policy could not be read for a defect of sandbox-lockdown")
        internal = _internal_error(defect)
        problem = Problem(key=internal.key, origin=internal.origin, reason=internal.reason, remedy=internal.remedy)
        return PolicyError((problem,))


async def _told_refusal(emit: Emit | None, refusal: PolicyError | SandboxError) -> PluginEnd:
    await _emit_status(emit, "error", refusal_sentence(refusal), done=True)
    return refusal


def _internal_error(defect: Exception) -> SandboxError:
    """A defect of ours in words; its particulars are for the server's log."""
    return SandboxError(
        key="sandbox-lockdown",
        origin="this plugin",
        reason=f"it failed with an internal error ({type(defect).__name__})",
        remedy="Ask the administrator to look into the server's log, and to report it",
    )


def _unsaid(_warning: str) -> None:
    """Descriptions need no warnings; the session that runs code says them once."""


async def _emit_status(emit: Emit | None, status: str, description: str, *, done: bool) -> None:
    """Tell people; where they cannot be told, the run goes on, and its result is not lost."""
    if emit is None:
        return
    try:
        await emit({"type": "status", "data": {"status": status, "description": description, "done": done}})
    except Exception:
        logging.getLogger(LOGGER_NAME).exception("a status could not be shown")
