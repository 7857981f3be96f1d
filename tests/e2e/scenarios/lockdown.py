"""The server's environment locks two limits; no valve changes either, by whatever way it was stored.

Valves are tried as an administrator sets them, as a person sets them, and as anybody can store them past all checks
of Open WebUI, through the settings interface.
"""

import http.client
import socket
from collections.abc import Mapping

from tests.e2e.client import Client
from tests.e2e.host import LOCKED_RUNTIME_SECONDS
from tests.e2e.listener import Listener, listening, reaching
from tests.e2e.stage import FUNCTION_ID, TOOL_ID, Stage, ToolRun, press_action, run_python

_LOOSE = {"MAX_RUNTIME_SECONDS": 600, "NETWORKING_ALLOWED": True, "NETWORK_PRIVATE_ALLOWED": True}
_PERSON_LOOSE = {"MAX_RUNTIME_SECONDS": 600, "NETWORKING_ALLOWED": True}
_GARBAGE: tuple[object, ...] = (
    "abc", "", -5, 0, 1e99, 5.5, True, None, [], ["600"], {}, {"value": 600}, "600 ", "+600", "9" * 400, "unlimited",
    "\x00", "٦٠٠",
)  # fmt: skip
_PERSON_VALVES = (
    "NETWORKING_ALLOWED",
    "MAX_RUNTIME_SECONDS",
    "MAX_RAM_MEGABYTES",
    "MAX_CPUS",
    "MAX_PROCESSES",
    "MAX_DISK_MEGABYTES",
    "MAX_OUTPUT_KILOBYTES",
    "MAX_FILE_MEGABYTES",
    "NO_SUCH_VALVE",
)
_WAYS_TRIED = 2
_SLEEPING = "import time\nprint('asleep', flush=True)\ntime.sleep(30)\nprint('awake')"
# From readiness to the model's receiving the result: start-up before, clean-up and Open WebUI's own work after.
_AROUND_RUN_SECONDS = 10.0


def play(stage: Stage) -> None:
    """5. With both limits locked by the environment, no valve changes either."""
    with listening() as listener:
        _check_listener(stage, listener)
        _administrator_asks_for_more(stage)
        _check_locked(stage, listener, "an administrator's valves")
        _person_asks_for_more(stage)
        _check_locked(stage, listener, "a person's valves")
        _store_past_checks(stage.person, _PERSON_LOOSE)
        _check_locked(stage, listener, "valves stored through the settings interface")
        _check_action_locked(stage, listener)
        _check_garbage(stage, listener)
    _forget_valves(stage)


def _check_listener(stage: Stage, listener: Listener) -> None:
    """Prove that the listener would notice, so that its silence later means something."""
    socket.create_connection(("127.0.0.1", listener.port), timeout=5).close()
    count = listener.connections()
    stage.report.check("the listener on this machine notices a connection from outside a box", count == 1, count)


def _administrator_asks_for_more(stage: Stage) -> None:
    for path in (f"tools/id/{TOOL_ID}", f"functions/id/{FUNCTION_ID}"):
        answer = stage.administrator.request("POST", f"/api/v1/{path}/valves/update", _LOOSE)
        stored = stage.administrator.get(f"/api/v1/{path}/valves")
        accepted = (
            answer.status == http.client.OK and stored.get("MAX_RUNTIME_SECONDS") == _LOOSE["MAX_RUNTIME_SECONDS"]
        )
        stage.report.check(f"an administrator stores looser valves in {path}", accepted, answer.body)


def _person_asks_for_more(stage: Stage) -> None:
    for path in (f"tools/id/{TOOL_ID}", f"functions/id/{FUNCTION_ID}"):
        answer = stage.person.request("POST", f"/api/v1/{path}/valves/user/update", _PERSON_LOOSE)
        accepted = answer.status == http.client.OK
        stage.report.check(f"a person stores looser valves of their own in {path}", accepted, answer.body)


def _store_past_checks(client: Client, valves: Mapping[str, object]) -> None:
    """Store a person's valves as anybody can: the settings interface looks at no schema."""
    body = {"tools": {"valves": {TOOL_ID: valves}}, "functions": {"valves": {FUNCTION_ID: valves}}}
    client.post("/api/v1/users/user/settings/update", body)


def _check_locked(stage: Stage, listener: Listener, by_what: str) -> None:
    trying = run_python(stage, reaching(listener.port))
    _check_no_network(stage, listener, trying.output, f"{by_what} open no network", trying.chat_error)
    sleeping = run_python(stage, _SLEEPING)
    _check_ended(stage, sleeping, f"{by_what} lengthen no run")
    told = "SANDBOX_MAX_RUNTIME_SECONDS" in sleeping.result
    stage.report.check("the answer says that SANDBOX_MAX_RUNTIME_SECONDS decides", told, sleeping.result)


def _check_no_network(stage: Stage, listener: Listener, output: str, sentence: str, chat_error: object) -> None:
    unreached = output.count("reached nothing") == _WAYS_TRIED and "['lo']" in output
    shut = unreached and not listener.connections()
    stage.report.check(sentence, shut and chat_error is None, chat_error or output or "it printed nothing")


def _check_ended(stage: Stage, sleeping: ToolRun, sentence: str) -> None:
    in_time = LOCKED_RUNTIME_SECONDS <= sleeping.seconds < LOCKED_RUNTIME_SECONDS + _AROUND_RUN_SECONDS
    stopped = sleeping.status == "TIMEOUT" and sleeping.output.split() == ["asleep"]
    seen = f"{sleeping.status} after {sleeping.seconds:.2f} s in all; {sleeping.result or sleeping.chat_error}"
    stage.report.check(sentence, stopped and in_time, seen)


def _check_action_locked(stage: Stage, listener: Listener) -> None:
    added, _ = press_action(stage, reaching(listener.port))
    _check_no_network(stage, listener, added, "the action opens no network either", None)
    added, seconds = press_action(stage, _SLEEPING)
    stopped = "runtime limit" in added and "awake" not in added.rpartition("```text")[2]
    in_time = LOCKED_RUNTIME_SECONDS <= seconds < LOCKED_RUNTIME_SECONDS + _AROUND_RUN_SECONDS
    stage.report.check("the action lengthens no run either", stopped and in_time, f"{seconds:.2f} s; {added}")


def _check_garbage(stage: Stage, listener: Listener) -> None:
    for garbage in _GARBAGE:
        _store_past_checks(stage.person, dict.fromkeys(_PERSON_VALVES, garbage))
        run = run_python(stage, reaching(listener.port))
        sentence = f"{_named(garbage)} stored in all valves breaks no chat and opens no network"
        _check_no_network(stage, listener, run.output or run.result, sentence, run.chat_error)
    _store_past_checks(stage.person, dict.fromkeys(_PERSON_VALVES, "abc"))
    _check_ended(stage, run_python(stage, _SLEEPING), "garbage in valves lengthens no run")
    added, _ = press_action(stage, reaching(listener.port))
    _check_no_network(stage, listener, added, "garbage in valves does not break the action", None)
    _administrator_garbage(stage, listener)


def _administrator_garbage(stage: Stage, listener: Listener) -> None:
    valves = {"MAX_RUNTIME_SECONDS": "abc", "NETWORKING_ALLOWED": [], "NETWORK_PRIVATE_ALLOWED": 1e99}
    for path in (f"tools/id/{TOOL_ID}", f"functions/id/{FUNCTION_ID}"):
        stage.administrator.request("POST", f"/api/v1/{path}/valves/update", valves)
    run = run_python(stage, reaching(listener.port))
    _check_no_network(
        stage, listener, run.output, "garbage in an administrator's valves breaks no chat", run.chat_error
    )
    added, _ = press_action(stage, reaching(listener.port))
    _check_no_network(stage, listener, added, "garbage in an administrator's valves does not break the action", None)


def _forget_valves(stage: Stage) -> None:
    _store_past_checks(stage.person, {})
    for path in (f"tools/id/{TOOL_ID}", f"functions/id/{FUNCTION_ID}"):
        stage.administrator.post(f"/api/v1/{path}/valves/update", {})


def _named(garbage: object, limit: int = 30) -> str:
    text = ascii(garbage)
    return text if len(text) <= limit else f"{text[:limit]}…"
