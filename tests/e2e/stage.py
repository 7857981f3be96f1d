"""What every scenario finds when it begins: a running Open WebUI with two accounts, and windows for both.

The plugins come in by the first scenario; from then on they are there under these names.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.client import CHAT_SECONDS, Chat, Client, tool_results
from tests.e2e.host import Host
from tests.e2e.model import MODEL_ID, StandInModel, ToolCall
from tests.e2e.page import ChatPage
from tests.e2e.report import Report, ScenarioError
from tests.e2e.traces import Watch

TOOL_ID = "run_code"
FUNCTION_ID = "run_code"
PLUGIN_NAME = "Run code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything a scenario uses."""

    report: Report
    """Where assertions are written."""
    plugins: Path
    """Folder that holds `tools/run_code.py` and `functions/run_code.py`."""
    output: Path
    """Folder for screenshots and logs."""
    model: StandInModel
    """The stand-in for a model."""
    host: Host
    """The running server."""
    watch: Watch
    """Sees what the server leaves on this machine."""
    administrator: Client
    """The administrator's connection."""
    person: Client
    """An ordinary person's connection."""
    administrator_page: ChatPage
    """The administrator's window."""
    person_page: ChatPage
    """The ordinary person's window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRun:
    """One tool call in a chat, from the person's message to the finished reply."""

    status: str
    """The status word in the tool's answer; empty where the tool never answered."""
    output: str
    """What the code printed."""
    result: str
    """The tool's whole answer, as text."""
    seconds: float
    """From the model's asking to its receiving the result."""
    chat_error: object
    """What Open WebUI stored as the chat's error; None where the chat is in order."""


def python_message(code: str) -> str:
    """Word a person's message that makes the stand-in call the tool with Python code."""
    return f"CALL run_python_code {json.dumps({'python_code': code})}"


def bash_message(command: str) -> str:
    """Word a person's message that makes the stand-in call the tool with a Bash command."""
    return f"CALL run_bash_command {json.dumps({'bash_command': command})}"


def code_message(language: str, code: str) -> str:
    """Word a person's message that makes the stand-in answer with a code block."""
    return f"SAY Here it is:\n```{language}\n{code}\n```\n"


def start_python(stage: Stage, code: str) -> Chat:
    """Have the person's chat call the tool with Python code, without waiting."""
    return stage.person.start_chat(python_message(code), tool_ids=(TOOL_ID,))


def run_tool(stage: Stage, text: str, *, seconds: float = CHAT_SECONDS, model: str = MODEL_ID) -> ToolRun:
    """Send a message of the person's that makes the stand-in call a tool, and wait for the reply."""
    before = stage.model.last_call
    chat = stage.person.start_chat(text, tool_ids=(TOOL_ID,), model=model)
    message = stage.person.finished_message(chat, seconds=seconds)
    call = stage.model.last_call
    results = tool_results(message)
    if call is None or call is before or not results:
        return _never_answered(message.get("error") or message.get("content"))
    return _tool_run(call, results[-1], message.get("error"))


def run_python(stage: Stage, code: str) -> ToolRun:
    """Have the person's chat run Python code with the tool, and wait for the reply."""
    return run_tool(stage, python_message(code))


def chat_with_block(stage: Stage, language: str, code: str) -> Chat:
    """Make a chat of the person's whose reply holds a code block."""
    chat = stage.person.start_chat(code_message(language, code))
    stage.person.finished_message(chat)
    return chat


def press_action(stage: Stage, code: str) -> tuple[str, float]:
    """Press the action under a reply that holds Python code; give the added text and the seconds it took.

    Raises:
        ScenarioError: the action gave no new text.
    """
    chat = chat_with_block(stage, "python", code)
    pressed = time.monotonic()
    answer = stage.person.press_action(FUNCTION_ID, chat)
    seconds = time.monotonic() - pressed
    try:
        content = str(answer.body["messages"][0]["content"])
    except (KeyError, IndexError, TypeError):
        raise ScenarioError(f"the action answered {answer.status}: {answer.body}") from None
    return content.partition("```\n")[2], seconds


def _tool_run(call: ToolCall, result: str, chat_error: object) -> ToolRun:
    try:
        answer = json.loads(result)
    except ValueError:
        answer = {}
    return ToolRun(
        status=str(answer.get("status", "")),
        output=str(answer.get("output", "")),
        result=result,
        seconds=call.seconds,
        chat_error=chat_error,
    )


def _never_answered(reason: object) -> ToolRun:
    return ToolRun(status="", output="", result="", seconds=0.0, chat_error=reason)
