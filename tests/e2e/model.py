"""A stand-in for a model behind the OpenAI interface: it does what the person's message says.

`CALL name {json}` is answered with that tool call and then, when its result has come, with a text that quotes the
result. `SAY text` is answered with the text. It keeps when each call went out and when its result came back.

Source: https://platform.openai.com/docs/api-reference/chat/create, the fields that Open WebUI 0.12 reads.
"""

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL_ID = "stand-in"

_CALL = re.compile(r"\bCALL (?P<name>\w+) (?P<arguments>\{.*\})", re.DOTALL)
_SAY = re.compile(r"\bSAY (?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One tool call that the stand-in asked for and got the result of."""

    call_id: str
    """The id it gave the call; the stored message bears it too."""
    result: str
    """What came back for the model, as text."""
    seconds: float
    """From asking to receiving, the whole way through Open WebUI."""


class StandInModel:
    """Serves the interface on a port of 127.0.0.1 from construction until `close`."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}
        self._finished: dict[str, ToolCall] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _endpoint_of(self))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def base_url(self) -> str:
        """What Open WebUI wants as OPENAI_API_BASE_URLS."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def last_call(self) -> ToolCall | None:
        """The tool call whose result came last."""
        with self._lock:
            return next(reversed(self._finished.values()), None)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def reply(self, untrusted_request: dict[str, Any]) -> dict[str, Any]:
        """Choose the assistant's message for a request, as `delta` or `message` of the answer."""
        messages = untrusted_request["messages"]
        if messages[-1]["role"] == "tool":
            return _text(f"The tool answered: {self._received(messages[-1])}")
        wish = _text_of(messages[-1])
        offered = {tool["function"]["name"] for tool in untrusted_request.get("tools") or ()}
        call = _CALL.search(wish)
        if call and call["name"] in offered:
            return self._asking(call["name"], call["arguments"])
        if call:
            return _text(f"No tool {call['name']} is offered to me, only {sorted(offered)}.")
        say = _SAY.search(wish)
        return _text(say["text"] if say else "I answer CALL and SAY.")

    def _asking(self, name: str, arguments: str) -> dict[str, Any]:
        with self._lock:
            call_id = f"call-{len(self._asked) + 1}"
            self._asked[call_id] = time.monotonic()
        function = {"name": name, "arguments": arguments}
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}],
        }

    def _received(self, message: dict[str, Any]) -> str:
        call_id, result, now = message["tool_call_id"], _text_of(message), time.monotonic()
        with self._lock:
            seconds = now - self._asked.get(call_id, now)
            self._finished[call_id] = ToolCall(call_id=call_id, result=result, seconds=seconds)
        return result


def _text(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _completion(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-e2e",
        "object": kind,
        "created": int(time.time()),
        "model": MODEL_ID,
        "choices": [{"index": 0, **choice}],
    }


def _chunks(reply: dict[str, Any]) -> Iterator[bytes]:
    finish = "tool_calls" if "tool_calls" in reply else "stop"
    for choice in ({"delta": reply, "finish_reason": None}, {"delta": {}, "finish_reason": finish}):
        yield f"data: {json.dumps(_completion('chat.completion.chunk', choice))}\n\n".encode()
    yield b"data: [DONE]\n\n"


def _endpoint_of(model: StandInModel) -> type[BaseHTTPRequestHandler]:
    class Endpoint(BaseHTTPRequestHandler):
        """The two paths that Open WebUI asks."""

        def do_GET(self) -> None:
            entry = {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": "e2e"}
            self._answer("application/json", [json.dumps({"object": "list", "data": [entry]}).encode()])

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = model.reply(request)
            if request.get("stream"):
                self._answer("text/event-stream", _chunks(reply))
            else:
                whole = _completion("chat.completion", {"message": reply, "finish_reason": "stop"})
                self._answer("application/json", [json.dumps(whole).encode()])

        def _answer(self, content_type: str, parts: Iterator[bytes] | list[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            for part in parts:
                self.wfile.write(part)

        def log_message(self, _format: str, *_args: object) -> None:
            """Say nothing: the run's own lines are what people read."""

    return Endpoint
