"""Who asks, out of what Open WebUI hands to a plugin and what it answers about groups.

What only a client claims, and what Open WebUI does not tell, stays undetermined, which tightens: every scope of a
policy file that might be for this person holds. So no failure here stops a run, and none loosens one.

Source: Open WebUI 0.12.4, `main.py`, `utils/middleware.py` (metadata of a chat), `models/groups.py`.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from policy.requester import Requester
from sandbox.cleaning import cleaned

GroupSource = Callable[[str], Awaitable[Any]]
"""Gives the groups of a person's id, each with an `id` and a `name`."""
GROUPS_SECONDS = 2.0
"""How long Open WebUI may take to tell somebody's groups; 2 to 5 ms were seen, so each run asks anew."""
_LONGEST_REASON = 200


def requester_of(untrusted_user: object, *, surface: str, model: str | None = None) -> Requester:
    """Who asks, but for their groups, out of the server's own record of the person.

    Args:
        untrusted_user: Open WebUI's `__user__`.
        surface: `tool` or `function`.
        model: the id of the model that runs the code; `None` where only a client says which it is.
    """
    user = untrusted_user if isinstance(untrusted_user, Mapping) else {}
    return Requester(role=_text_in(user, "role"), user=_text_in(user, "id"), model=model, surface=surface)


def answering_model(untrusted_metadata: object, untrusted_task_model: object) -> str | None:
    """The id of the model that called the tool, where the server itself knows it.

    Open WebUI's `__model__` is another one: the model for its own tasks, wherever one is set. Its metadata names the
    model that the request goes to, which the server lets nobody reach who may not use it. But it carries out a call
    before it asks that model where a chat is continued, out of the stored message, which the person can write; and in
    the legacy mode, where its task model makes the calls. There the server has checked only the model that the request
    began with. Of a direct connection it knows nothing but what the browser claims.

    Args:
        untrusted_metadata: Open WebUI's `__metadata__`.
        untrusted_task_model: Open WebUI's `__model__`.
    """
    match untrusted_metadata:
        case {
            "direct": False,
            "model_id": str(answering),
            "model": {"id": checked},
            "assistant_message_id": continued,
            "params": {"function_calling": mode},
        } if answering:
            if mode == "native" and not continued:
                return answering
            task = untrusted_task_model.get("id") if isinstance(untrusted_task_model, Mapping) else None
            return answering if answering == checked == task else None
        case _:
            return None


async def open_webui_groups(user_id: str) -> Any:  # noqa: ANN401 -- whatever this Open WebUI answers
    """The groups that Open WebUI itself counts a person in, those above their own included."""
    from open_webui.models.groups import Groups  # noqa: PLC0415 -- there is none outside Open WebUI

    groups_of = Groups.get_groups_by_member_id
    # Where groups nest, Open WebUI's own access checks count the groups above too.
    options = {"include_inherited": True} if "include_inherited" in inspect.signature(groups_of).parameters else {}
    if inspect.iscoroutinefunction(groups_of):
        return await groups_of(user_id, **options)
    # Open WebUI before 0.12 asks its database without awaiting it; that may keep nobody else waiting.
    return await asyncio.to_thread(groups_of, user_id, **options)


class GroupRegister:
    """Tells which groups somebody is in; remembers nothing but what it last complained of."""

    def __init__(self, source: GroupSource, warn: Callable[[str], None], deadline_seconds: float) -> None:
        self._source = source
        self._warn = warn
        self._deadline_seconds = deadline_seconds
        self._complained_of = ""

    async def groups(self, user: str | None) -> frozenset[str] | None:
        """Ids and names of somebody's groups; `None` where they cannot be determined, whatever the reason."""
        if user is None:
            return None
        try:
            async with asyncio.timeout(self._deadline_seconds):
                known = _ids_and_names(await self._source(user))
        except TimeoutError:
            self._complain("TimeoutError", f"no answer within {self._deadline_seconds:g} seconds")
            return None
        except Exception as error:  # noqa: BLE001 -- the source is Open WebUI's, and no failure of it may stop a run
            self._complain(type(error).__name__, f"{type(error).__name__}: {error}")
            return None
        self._complained_of = ""
        return known

    def _complain(self, kind: str, reason: str) -> None:
        """Log a kind of failure once, until there is an answer again or another kind."""
        if kind != self._complained_of:
            self._complained_of = kind
            words = " ".join(cleaned(reason).split())[:_LONGEST_REASON]
            self._warn(f"Open WebUI does not tell people's groups, so every policy scope about groups holds: {words}")


def _ids_and_names(groups: Any) -> frozenset[str]:  # noqa: ANN401 -- what Open WebUI answered
    """Each group's id and name.

    Raises:
        TypeError: that is no list of groups.
        AttributeError: the same.
    """
    if not isinstance(groups, list):
        raise TypeError(f"it answered {type(groups).__name__}, not a list of groups")
    words = [word for group in groups for word in (group.id, group.name)]
    if not all(isinstance(word, str) for word in words):
        raise TypeError("it answered groups whose id or name is no text")
    return frozenset(words)


def _text_in(untrusted: Mapping[str, Any], key: str) -> str | None:
    """A text that is not empty, or nothing."""
    value = untrusted.get(key)
    return value if isinstance(value, str) and value else None
