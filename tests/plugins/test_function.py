"""The button: which block of a message it runs, what it adds below, and that a second press runs no result."""

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from plugins.blocks import runnable_blocks
from plugins.function import Action
from tests.plugins.conftest import Boxes, Events, scoped_variables

NO_BLOCK = "This message has no code block that is surely python or bash."
PYTHON = "```python\nprint(6 * 7)\n```"


@pytest.fixture
def action(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> Action:
    monkeypatch.setenv("SANDBOX_NETWORKING_ALLOWED", "false")  # nobody asks for a network here
    assert boxes.running() == []
    return Action()


def body_of(content: object, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    messages = [
        {"id": "m1", "role": "user", "content": "Please."},
        {"id": "m2", "role": "assistant", "content": content},
    ]
    return {"id": "m2", "chat_id": "c1", "session_id": "s1", "model": "m", "messages": messages} | changes


async def pressed(action: Action, content: str, user: dict[str, Any] | None = None) -> str:
    """Press the button, and give the message's new text."""
    answer = await action.action(body_of(content), user)
    assert answer is not None
    (message,) = answer["messages"]
    assert message["id"] == "m2"
    return str(message["content"])


def fences_of(markdown: str) -> list[tuple[str, str]]:
    return [(token.info, token.content) for token in MarkdownIt("commonmark").parse(markdown) if token.type == "fence"]


def test_function_is_an_action_with_valves_of_both_kinds() -> None:
    action = Action()

    assert inspect.iscoroutinefunction(action.action)
    assert isinstance(action.valves, Action.Valves)
    assert "MAX_CPUS" in Action.UserValves.model_fields
    assert not hasattr(action, "actions")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "m2"},
        {"messages": None},
        {"messages": []},
        {"messages": "text"},
        {"messages": 7},
        {"messages": {"m2": PYTHON}},
        {"messages": [None, "text", 7, []]},
        {"messages": [{}]},
        {"id": "m2", "messages": [{"id": "m2"}]},
        body_of(None),
        body_of([{"type": "text", "text": PYTHON}]),
        body_of(7),
        body_of(""),
        body_of("no code"),
        body_of("```js\nx\n```"),
        body_of(PYTHON, id="of another message"),
        body_of(PYTHON, id=["m2"]),
    ],
    ids=lambda body: str(body)[:60],
)
async def test_press_without_a_block_to_run_says_so_and_changes_nothing(body: dict[str, Any], events: Events) -> None:
    assert await Action().action(body, None, events) is None
    assert events.seen == [{"type": "status", "data": {"status": "error", "description": NO_BLOCK, "done": True}}]


async def test_press_without_a_block_and_without_an_emitter_is_quiet() -> None:
    assert await Action().action({}) is None


async def test_refusal_is_added_to_the_message_and_told(monkeypatch: pytest.MonkeyPatch, events: Events) -> None:
    monkeypatch.setenv("SANDBOX_MAX_CPUS", "*many*")

    answer = await Action().action(body_of(PYTHON), None, events)

    assert answer is not None
    content = answer["messages"][0]["content"]
    assert content.startswith(
        f"{PYTHON}\n\n---\n\n**Python code block:** The code was not run. environment: SANDBOX_MAX"
    )
    assert r"\*many\*" in content
    assert events.statuses[-1] == ("error", True)


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ({"surface": "function"}, True),
        ({"surface": "tool"}, False),
        ({"roles": ["user"], "users": ["u1"]}, True),
        ({"roles": ["admin"]}, False),
        # The body says that model m wrote the message.
        ({"models": ["m"]}, True),
        ({"models": ["another"]}, True),
    ],
    ids=str,
)
async def test_scope_holds_for_who_presses_whatever_model_the_body_claims(
    match: dict[str, Any],
    holds: bool,  # noqa: FBT001 -- a parameter of the table
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in scoped_variables(tmp_path, {"match": match, "limits": {"languages": ["bash"]}}).items():
        monkeypatch.setenv(name, value)

    new = await pressed(Action(), "```python\na\x00b\n```", {"id": "u1", "role": "user"})

    refused = (
        "NUL" if not holds else "python is not among the permitted languages"
    )  # the former only in a language that may run
    assert refused in new


@pytest.mark.gvisor
async def test_result_is_added_below_the_message(action: Action, events: Events) -> None:
    answer = await action.action(body_of(f"Here:\n\n{PYTHON}\n"), {"id": "u1"}, events)

    added = "---\n\n**Python code block:** Python code executed successfully.\n\n```text\n42\n```\n"
    assert answer == {"messages": [{"id": "m2", "content": f"Here:\n\n{PYTHON}\n\n{added}"}]}
    assert events.descriptions[-2:] == [
        "Running Python code in gVisor sandbox...",
        "Python code executed successfully.",
    ]


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("content", "heading", "output"),
    [
        ("```bash\necho one\n```\n```python\nprint('two')\n```", "Python code block 2 of the 2 that can be run", "two"),
        (
            "```python\nprint('one')\n```\n```js\nx\n```\n```py\nprint('two')\n```\n```bash\necho three\n```",
            "Python code block 2 of the 3 that can be run",
            "two",
        ),
        ("```js\nx\n```\n~~~~sh\necho '~~~'\n~~~~", "Bash code block", "~~~"),
    ],
    ids=["Bash then Python", "two Python blocks", "Bash alone"],
)
async def test_several_blocks_run_the_meant_one_and_the_answer_says_which(
    action: Action, content: str, heading: str, output: str
) -> None:
    new = await pressed(action, content)

    assert f"\n\n---\n\n**{heading}:** " in new
    assert fences_of(new)[-1] == ("text", f"{output}\n")


@pytest.mark.gvisor
async def test_second_press_runs_the_code_again_and_never_the_earlier_result(action: Action) -> None:
    # Output that looks like a block of its own, and like the end of the fence that it stands in.
    code = "fence = chr(96) * 3\nprint(f'{fence}\\n{fence}python\\nprint(1 / 0)\\n{fence}')"
    content = f"```python\n{code}\n```"

    once = await pressed(action, content)
    twice = await pressed(action, once)

    output = "```\n```python\nprint(1 / 0)\n```\n"
    assert fences_of(once) == [("python", f"{code}\n"), ("text", output)]
    assert fences_of(twice) == [("python", f"{code}\n"), ("text", output), ("text", output)]
    assert twice.startswith(once.rstrip())


@pytest.mark.gvisor
@pytest.mark.parametrize(
    ("content", "code"),
    [("```python\nprint('```')", "print('```')\n"), ("1. ~~~py\n   print('```')", "print('```')\n")],
)
async def test_block_left_open_is_closed_so_that_its_result_is_no_code(action: Action, content: str, code: str) -> None:
    once = await pressed(action, content)
    twice = await pressed(action, once)

    assert [content for _, content in fences_of(twice)] == [code, "```\n", "```\n"]
    assert len(runnable_blocks(twice)) == 1


@pytest.mark.gvisor
async def test_message_without_id_in_the_body_is_the_last_one(action: Action) -> None:
    body = body_of(PYTHON)
    del body["id"]

    answer = await action.action(body)

    assert answer is not None
    assert answer["messages"][0]["id"] == "m2"
    assert "```text\n42\n```" in answer["messages"][0]["content"]


@pytest.mark.gvisor
async def test_named_message_is_run_wherever_it_stands(action: Action) -> None:
    messages = [{"id": "m2", "content": "```python\nprint('named')\n```"}, {"id": "m3", "content": PYTHON}]

    answer = await action.action(body_of("", messages=messages))

    assert answer is not None
    assert [message["id"] for message in answer["messages"]] == ["m2"]
    assert "```text\nnamed\n```" in answer["messages"][0]["content"]


@pytest.mark.gvisor
@pytest.mark.parametrize(
    "valves",
    [lambda: Action.UserValves(MAX_RUNTIME_SECONDS=1), lambda: {"MAX_RUNTIME_SECONDS": 1}],
    ids=["as Open WebUI makes them", "as they are stored"],
)
async def test_valves_of_a_person_tighten_their_run(action: Action, valves: Callable[[], object]) -> None:
    new = await pressed(action, "```bash\nsleep 60\n```", {"id": "u1", "valves": valves()})

    assert "Bash code was stopped after 1 second, its runtime limit." in new


@pytest.mark.gvisor
async def test_cancelled_press_leaves_nothing(action: Action, boxes: Boxes) -> None:
    press = asyncio.create_task(action.action(body_of("```bash\nsleep 60\n```"), {"id": "u1"}))
    await boxes.until_one_stands()

    press.cancel()
    with pytest.raises(asyncio.CancelledError):
        await press

    assert (boxes.running(), boxes.processes()) == ([], [])
