"""The tool as Open WebUI calls it: events in order, one JSON, shared by everybody without mixing anybody up."""

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugins.tool import Tools
from tests.plugins.conftest import Boxes, Events, scoped_variables

SLOW = "import time\nprint('begun', flush=True)\ntime.sleep(60)"


@pytest.fixture
def tools(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.setenv("SANDBOX_NETWORKING_ALLOWED", "false")  # nobody asks for a network here
    assert boxes.running() == []
    return Tools()


async def told(result: Any) -> dict[str, Any]:  # noqa: ANN401 -- what a coroutine of the tool gives
    answer: dict[str, Any] = json.loads(await result)
    return answer


@asynccontextmanager
async def heartbeat() -> AsyncIterator[list[float]]:
    """Watches how long the event loop at most kept anybody waiting; the gaps are there at the end."""
    gaps: list[float] = []

    async def beat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)

    task = asyncio.create_task(beat())
    try:
        yield gaps
    finally:
        task.cancel()


def test_model_is_offered_the_two_tools_and_nothing_else() -> None:
    tools = Tools()
    # Open WebUI's own rule.
    offered = [
        name
        for name in dir(tools)
        if callable(getattr(tools, name)) and not name.startswith("_") and not inspect.isclass(getattr(tools, name))
    ]

    assert offered == ["run_bash_command", "run_python_code"]


@pytest.mark.parametrize(
    ("name", "parameter"), [("run_python_code", "python_code"), ("run_bash_command", "bash_command")]
)
def test_model_is_told_what_a_tool_does_and_what_it_takes(name: str, parameter: str) -> None:
    method = getattr(Tools(), name)

    description, _, parameters = (inspect.getdoc(method) or "").partition(":param")
    assert "sandbox" in description
    assert parameters.startswith(f" {parameter}: ")
    assert [each for each in inspect.signature(method).parameters if not each.startswith("__")] == [parameter]
    assert inspect.iscoroutinefunction(method)


BASH_ONLY = {"languages": ["bash"]}
CHAT: dict[str, Any] = {
    "direct": False,
    "model_id": "llama",
    "model": {"id": "llama"},
    "assistant_message_id": None,
    "params": {"function_calling": "native"},
}


@pytest.mark.parametrize(
    ("match", "metadata"),
    [
        ({"surface": "tool"}, CHAT),
        ({"roles": ["user"], "users": ["u1"]}, CHAT),
        ({"models": ["llama"]}, CHAT),
        ({"models": ["mistral"]}, {**CHAT, "direct": True}),
        ({"models": ["mistral"]}, None),
    ],
    ids=["surface", "role and user", "model", "model that a browser claims", "model that nobody tells"],
)
async def test_scope_for_who_calls_the_tool_holds(
    match: dict[str, Any], metadata: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in scoped_variables(tmp_path, {"match": match, "limits": BASH_ONLY}).items():
        monkeypatch.setenv(name, value)
    user = {"id": "u1", "role": "user"}

    answer = await told(Tools().run_python_code("1", user, __metadata__=metadata, __model__={"id": "task-model"}))

    assert "python is not among the permitted languages" in answer["error"]


@pytest.mark.parametrize("match", [{"surface": "function"}, {"models": ["mistral"]}, {"users": ["u2"]}], ids=str)
async def test_scope_for_others_does_not_hold_for_who_calls_the_tool(
    match: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in scoped_variables(tmp_path, {"match": match, "limits": {"languages": ["python"]}}).items():
        monkeypatch.setenv(name, value)

    answer = await told(Tools().run_bash_command("a\x00b", {"id": "u1"}, __metadata__=CHAT, __model__=CHAT["model"]))

    assert "NUL" in answer["error"]  # what is refused next, in a language that may run


@pytest.mark.gvisor
async def test_python_code_is_announced_step_by_step_and_answers_with_its_output(tools: Tools, events: Events) -> None:
    answer = await told(tools.run_python_code("print(6 * 7)", {"id": "u1"}, events))

    assert answer == {"status": "OK", "output": "42\n"}
    assert events.descriptions == [
        "Checking if environment supports sandboxing...",
        "Initializing sandbox configuration...",
        "Setting up sandbox environment...",
        "Running Python code in gVisor sandbox...",
        "Python code executed successfully.",
    ]
    assert events.statuses == [*[("in_progress", False)] * 4, ("complete", True)]
    assert {event["type"] for event in events.seen} == {"status"}


@pytest.mark.gvisor
async def test_bash_command_answers_with_its_output(tools: Tools, events: Events) -> None:
    answer = await told(tools.run_bash_command("echo $((6 * 7)); echo oops >&2", {"id": "u1"}, events))

    assert answer == {"status": "OK", "output": "42\noops\n"}
    assert events.descriptions[-2:] == [
        "Running Bash code in gVisor sandbox...",
        "Bash code executed successfully.",
    ]


@pytest.mark.gvisor
async def test_failing_code_has_an_error_that_the_page_shows_as_failed(tools: Tools, events: Events) -> None:
    answer = await told(tools.run_python_code("print('before')\n1 / 0", None, events))

    assert answer["status"] == "ERROR"
    assert answer["error"] == "Python code ended with exit code 1."
    assert answer["output"].startswith("before\nTraceback")
    assert answer["output"].endswith("ZeroDivisionError: division by zero\n")
    assert events.seen[-1]["data"] == {"status": "complete", "description": answer["error"], "done": True}


@pytest.mark.gvisor
async def test_output_comes_without_escape_sequences(tools: Tools) -> None:
    answer = await told(tools.run_python_code(r"print('\x1b[31mred\x1b[0m\x1b]52;c;ZXZpbA==\x07')"))

    assert answer["output"] == "red\n"


@pytest.mark.gvisor
@pytest.mark.parametrize(
    "valves",
    [lambda: Tools.UserValves(MAX_RUNTIME_SECONDS=1), lambda: {"MAX_RUNTIME_SECONDS": "1"}],
    ids=["as Open WebUI makes them", "as they are stored"],
)
async def test_valves_of_a_person_tighten_their_run(tools: Tools, valves: Callable[[], object]) -> None:
    answer = await told(tools.run_python_code(SLOW, {"id": "u1", "valves": valves()}))

    assert (answer["status"], answer["output"]) == ("TIMEOUT", "begun\n")
    assert answer["error"] == "Python code was stopped after 1 second, its runtime limit."


@pytest.mark.gvisor
async def test_valve_that_asks_for_too_much_is_brought_in_and_told(tools: Tools) -> None:
    tools.valves = Tools.Valves(MAX_RUNTIME_SECONDS=1)

    answer = await told(tools.run_python_code(SLOW, {"id": "u1", "valves": Tools.UserValves(MAX_RUNTIME_SECONDS=600)}))

    assert answer["status"] == "TIMEOUT"
    assert ["MAX_RUNTIME_SECONDS asks for 600 seconds" in notice for notice in answer["notices"]] == [True]


@pytest.mark.gvisor
@pytest.mark.parametrize(
    "user",
    [None, {}, {"id": "u1", "valves": None}, {"id": "u1", "valves": "x"}, {"id": "u1", "valves": {"MAX_CPUS": [{}]}}],
    ids=["no user", "empty user", "no valves", "text for valves", "garbage in a valve"],
)
async def test_missing_or_garbled_valves_never_break_a_run(tools: Tools, user: dict[str, Any] | None) -> None:
    answer = await told(tools.run_python_code("print(1)", user))

    assert (answer["status"], answer["output"]) == ("OK", "1\n")


@pytest.mark.gvisor
async def test_valves_changed_during_a_run_do_not_matter_to_it(tools: Tools, boxes: Boxes) -> None:
    run = asyncio.create_task(tools.run_python_code("import time; time.sleep(2); print('done')"))
    await asyncio.sleep(0)  # the run begins
    assert not boxes.running()
    tools.valves = Tools.Valves(MAX_RUNTIME_SECONDS=1, LANGUAGES="none")

    assert await told(run) == {"status": "OK", "output": "done\n"}


@pytest.mark.gvisor
async def test_stop_ends_the_run_at_once_and_leaves_nothing(tools: Tools, boxes: Boxes) -> None:
    run = asyncio.create_task(tools.run_python_code(SLOW, {"id": "u1"}))
    await boxes.until_one_stands()
    names = [folder.name for folder in boxes.running()]
    before = [boxes.cgroups(name) for name in names]

    run.cancel()
    cancelled = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert time.monotonic() - cancelled < 1
    assert all(before)
    assert boxes.processes() == []
    assert boxes.running() == []
    assert [boxes.cgroups(name) for name in names] == [[] for _ in names]


@pytest.mark.gvisor
@pytest.mark.parametrize("step", range(4))
async def test_stop_at_any_step_leaves_nothing(tools: Tools, boxes: Boxes, step: int) -> None:
    events = Events()

    async def stop_at_step(event: dict[str, Any]) -> None:
        await events(event)
        if len(events.seen) == step + 1:
            run.cancel()

    run = asyncio.create_task(tools.run_python_code(SLOW, {"id": "u1"}, stop_at_step))
    with pytest.raises(asyncio.CancelledError):
        await run

    assert [status for status, _ in events.statuses if status != "in_progress"] == []
    assert (boxes.running(), boxes.processes()) == ([], [])


@pytest.mark.gvisor
async def test_two_people_run_at_once_and_each_gets_their_own(tools: Tools) -> None:
    code = "import time\nbegun = time.time()\ntime.sleep(1.5)\nprint({name!r}, begun, time.time())"
    people = ("ada", "grace")

    answers = await asyncio.gather(
        *(told(tools.run_python_code(code.format(name=name), {"id": name}, Events())) for name in people)
    )

    outputs = [answer["output"].split() for answer in answers]
    assert [output[0] for output in outputs] == list(people)
    assert max(float(output[1]) for output in outputs) < min(float(output[2]) for output in outputs)


@pytest.mark.gvisor
async def test_person_gets_no_more_runs_at_once_than_the_limits_permit(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_QUEUE_SIZE", "0")
    tools = Tools()
    tools.valves = Tools.Valves(MAX_CONCURRENT_RUNS=1)
    code = "import time; time.sleep(2)"

    answers = await asyncio.gather(*(told(tools.run_python_code(code, {"id": "u1"})) for _ in range(2)))

    assert sorted(answer["status"] for answer in answers) == ["OK", "REFUSED"]
    assert "max_concurrent_runs" in " ".join(answer.get("error", "") for answer in answers)
    assert boxes.running() == []


@pytest.mark.gvisor
async def test_who_waits_for_his_own_run_is_told_his_place(tools: Tools) -> None:
    tools.valves = Tools.Valves(MAX_CONCURRENT_RUNS=1)
    said: list[str] = []

    async def emit(event: dict[str, Any]) -> None:
        said.append(str(event["data"].get("description")))

    runs = [tools.run_python_code("import time; time.sleep(1)", {"id": "u1"}, emit) for _ in range(2)]
    answers = await asyncio.gather(*map(told, runs))

    assert [answer["status"] for answer in answers] == ["OK", "OK"]
    assert any("place 1" in sentence for sentence in said), said


@pytest.mark.gvisor
async def test_first_run_with_all_its_preparation_keeps_nobody_waiting(
    new_cache_home: Callable[[], Path], events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(new_cache_home()))

    async with heartbeat() as gaps:
        answer = await told(Tools().run_python_code("print(1)", {"id": "u1"}, events))

    assert answer["status"] == "OK"
    assert "Building the sandbox's own file tree..." in events.descriptions
    assert max(gaps) < 0.5  # what it prepares takes seconds


@pytest.mark.gvisor
async def test_busy_code_with_much_output_keeps_nobody_waiting(tools: Tools) -> None:
    async with heartbeat() as gaps:
        answer = await told(tools.run_python_code("for _ in range(40): print('x' * 1_000_000)", {"id": "u1"}))

    assert answer["truncated"] is True
    assert max(gaps) < 0.25
