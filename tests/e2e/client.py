"""A person's or administrator's connection to Open WebUI's HTTP interface, no more of it than the scenarios need.

Source: Open WebUI 0.12.4, `open_webui/routers/` and `open_webui/main.py`.
"""

import http.client
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.model import MODEL_ID
from tests.e2e.report import ScenarioError
from tests.e2e.waiting import wait_for

REQUEST_SECONDS = 60
"""Creating a plugin executes it, and an action answers only when its code has ended."""

CHAT_SECONDS = 60
"""How long one turn of a chat may take, tool call included."""

EVERYBODY_READS = [{"principal_type": "user", "principal_id": "*", "permission": "read"}]
"""The access grant that makes a model or a tool public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server answered."""

    status: int
    """HTTP status."""
    body: Any
    """The JSON, or the text where it was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A chat of one question and its reply."""

    chat_id: str
    """Id of the chat; the page shows it under /c/<id>."""
    message_id: str
    """Id of the assistant's message."""


class Client:
    """Requests in the name of one account; without a token, in nobody's."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.token = token

    def request(self, method: str, path: str, body: object = None, *, seconds: float = REQUEST_SECONDS) -> Answer:
        """Send one request on a connection of its own.

        Raises:
            OSError: the server cannot be reached or does not answer in time.
        """
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=seconds)
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return Answer(status=response.status, body=_parsed(response.read()))
        finally:
            connection.close()

    def get(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON the path gives
        """Give the JSON of a GET that has to succeed."""
        return self._succeed("GET", path)

    def post(self, path: str, body: object = None) -> Any:  # noqa: ANN401 - whatever JSON the path gives
        """Give the JSON of a POST that has to succeed."""
        return self._succeed("POST", path, {} if body is None else body)

    def is_ready(self) -> bool:
        """Say whether the server has started and its database answers."""
        try:
            return self.request("GET", "/ready", seconds=5).status == http.client.OK
        except OSError:
            return False

    def signed_in(self, email: str, password: str) -> "Client":
        """Give a client for an account that exists."""
        return self._with_token("/api/v1/auths/signin", {"email": email, "password": password})

    def signed_up(self, name: str, email: str, password: str) -> "Client":
        """Create the first account, which becomes the administrator's, and give a client for it."""
        return self._with_token("/api/v1/auths/signup", {"name": name, "email": email, "password": password})

    def person_id(self) -> str:
        """Give the id that the server knows this account by."""
        return str(self.get("/api/v1/auths/")["id"])

    def with_account(self, name: str, email: str, password: str) -> "Client":
        """Make an ordinary person's account, as an administrator does, and give a client for it."""
        self.post("/api/v1/auths/add", {"name": name, "email": email, "password": password, "role": "user"})
        return self.signed_in(email, password)

    def share_model(self, model_id: str, *, base: str | None = None, everybody: bool = True) -> None:
        """Make a model of this name that everybody may use, or nobody but its maker."""
        model: dict[str, object] = {"id": model_id, "name": model_id, "base_model_id": base, "meta": {}, "params": {}}
        self.post("/api/v1/models/create", model | {"access_grants": EVERYBODY_READS if everybody else []})

    def start_chat(self, text: str, *, tool_ids: tuple[str, ...] = (), model: str = MODEL_ID) -> Chat:
        """Send a first message in native mode, as the page does, without waiting for the reply."""
        question, reply = str(uuid.uuid4()), str(uuid.uuid4())
        user_message = {
            "id": question,
            "parentId": None,
            "childrenIds": [],
            "role": "user",
            "content": text,
            "timestamp": int(time.time()),
            "models": [model],
        }
        started = self.post(
            "/api/chat/completions",
            {
                "stream": True,
                "model": model,
                "messages": [{"role": "user", "content": text}],
                "params": {"function_calling": "native"},
                "tool_ids": list(tool_ids),
                "features": {},
                "variables": {},
                # With all three ids the server works in a task of its own, which Stop can cancel.
                "session_id": f"e2e-{uuid.uuid4()}",
                "id": reply,
                "parent_id": None,
                "user_message": user_message,
                "background_tasks": {},
            },
        )
        return Chat(chat_id=started["chat_id"], message_id=reply)

    def message(self, chat: Chat) -> dict[str, Any]:
        """Give the assistant's message as it is stored now."""
        stored = self.get(f"/api/v1/chats/{chat.chat_id}")
        message: dict[str, Any] = stored["chat"]["history"]["messages"][chat.message_id]
        return message

    def finished_message(self, chat: Chat, *, seconds: float = CHAT_SECONDS) -> dict[str, Any]:
        """Wait until the reply is complete, or failed, and give it as it is stored."""

        def probe() -> dict[str, Any] | None:
            message = self.message(chat)
            return message if message.get("done") else None

        return wait_for(probe, what=f"the reply in chat {chat.chat_id}", seconds=seconds)

    def stop_chat(self, chat: Chat) -> Answer:
        """Press Stop."""
        return self.request("POST", f"/api/tasks/chat/{chat.chat_id}/stop", {})

    def press_action(self, action_id: str, chat: Chat) -> Answer:
        """Press an action under the reply, as the page does."""
        message = self.message(chat)
        shown = {"id": chat.message_id, "role": "assistant", "content": message["content"], "timestamp": 0}
        body = {
            "model": MODEL_ID,
            "messages": [shown],
            "chat_id": chat.chat_id,
            "session_id": f"e2e-{uuid.uuid4()}",
            "id": chat.message_id,
        }
        return self.request("POST", f"/api/chat/actions/{action_id}", body)

    def _with_token(self, path: str, body: object) -> "Client":
        return Client(self.url, self.post(path, body)["token"])

    def _succeed(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - as get and post
        answer = self.request(method, path, body)
        if answer.status != http.client.OK:
            raise ScenarioError(f"{method} {path} answered {answer.status}: {answer.body}")
        return answer.body


def tool_results(message: dict[str, Any]) -> list[str]:
    """Give the texts of all tool results in a stored reply, in order."""
    outputs = (item for item in message.get("output") or () if item.get("type") == "function_call_output")
    return ["".join(part.get("text", "") for part in item.get("output") or ()) for item in outputs]


def _parsed(raw: bytes) -> Any:  # noqa: ANN401 - whatever JSON it is
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
