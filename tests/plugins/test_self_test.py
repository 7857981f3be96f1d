"""The plugins as scripts: events as people read them, one line of JSON, and exit codes to go by."""

import ast
import io
import json
import re
import sys
from typing import Any

import pytest

from plugins.self_test import SAMPLE_CODE, self_test
from sandbox.request import MAX_CODE_BYTES
from tests.plugins.conftest import Boxes

SAMPLE_OUTPUT = r"Hello from the sandbox!\nCurrent date and time: [^\n]+\n\[ +0\.0+\] Starting gVisor\.\.\.\n"


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The events and the last line of what was printed, every line accounted for."""
    *lines, last = capsys.readouterr().out.splitlines()
    assert all(line.startswith("Event: ") for line in lines)
    return [ast.literal_eval(line.removeprefix("Event: ")) for line in lines], json.loads(last)


@pytest.mark.gvisor
@pytest.mark.parametrize("language", SAMPLE_CODE)
def test_sample_of_each_language_proves_that_it_runs_in_gvisor(
    boxes: Boxes, capsys: pytest.CaptureFixture[str], language: str
) -> None:
    code = self_test(["--use-sample-code", "--language", language])

    events, told = printed(capsys)
    assert (code, told["status"]) == (0, "OK")
    assert re.match(SAMPLE_OUTPUT, told["output"])
    assert events[-1]["data"]["done"] is True
    assert boxes.running() == []


@pytest.mark.gvisor
def test_code_from_standard_input_runs(
    boxes: Boxes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, b"print(6 * 7)")

    assert self_test([]) == 0
    assert printed(capsys)[1]["output"] == "42\n"
    assert boxes.running() == []


@pytest.mark.gvisor
def test_failing_code_ends_with_exit_code_1(
    boxes: Boxes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, b"exit 3")

    assert self_test(["--language", "bash"]) == 1
    told = printed(capsys)[1]
    assert (told["status"], told["exit_code"]) == ("ERROR", 3)
    assert boxes.running() == []


@pytest.mark.gvisor
def test_debug_shows_internals_only_where_asked_and_permitted(
    boxes: Boxes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    self_test(["--use-sample-code", "--debug"])
    asked = printed(capsys)[1]
    monkeypatch.setenv("SANDBOX_DEBUG", "false")
    self_test(["--use-sample-code", "--debug"])
    locked = printed(capsys)[1]

    assert asked["debug"]["outcome"] == "ok"
    assert "debug" not in locked
    assert "The admin-valve DEBUG asks for true; SANDBOX_DEBUG locks false." in locked["notices"]
    assert boxes.running() == []


def test_refusal_ends_with_exit_code_1_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_POLICY_REQUIRED", "true")

    assert self_test(["--use-sample-code"]) == 1
    events, told = printed(capsys)
    assert told["status"] == "REFUSED"
    assert "SANDBOX_POLICY_PATH" in told["error"]
    assert [event["data"]["status"] for event in events] == ["in_progress", "error"]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"a\x00b", "NUL"), (b"#" * (MAX_CODE_BYTES + 10), "more than 1048576")],
    ids=["NUL", "too long"],
)
def test_code_that_cannot_run_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: bytes, words: str
) -> None:
    typed(monkeypatch, data)

    assert self_test([]) == 1
    assert words in printed(capsys)[1]["error"]


@pytest.mark.parametrize(
    "options", [["--use-sample"], ["--no-such-option"], ["--language", "cobol"], ["extra"]], ids=str
)
def test_wrong_usage_ends_with_exit_code_2(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        self_test(options)

    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
