"""Both plugins come into Open WebUI as an administrator pastes them."""

import http.client
from pathlib import Path

from tests.e2e.client import EVERYBODY_READS, Answer
from tests.e2e.stage import FUNCTION_ID, PLUGIN_NAME, TOOL_ID, Stage

_OFFERED = ["run_bash_command", "run_python_code"]


def play(stage: Stage) -> None:
    """1. Both plugins load."""
    _load_tool(stage)
    _load_function(stage)
    # The page's own request; with it the server works out anew which actions each model has.
    models = stage.person.get("/api/models")["data"]
    actions = [action["id"] for model in models for action in model.get("actions") or ()]
    stage.report.check("the model carries the action for an ordinary person", FUNCTION_ID in actions, actions)


def _load_tool(stage: Stage) -> None:
    created = _create(stage, "tools", TOOL_ID, stage.plugins / "tools" / "run_code.py")
    stage.report.check("the tool is created", created.status == http.client.OK, _outcome(created))
    specs = stage.administrator.get(f"/api/v1/tools/id/{TOOL_ID}")["specs"]
    names = sorted(spec["name"] for spec in specs)
    stage.report.check("it offers the model exactly its two functions", names == _OFFERED, names)
    offered = {spec["name"]: sorted(spec["parameters"]["properties"]) for spec in specs}
    expected = {"run_bash_command": ["bash_command"], "run_python_code": ["python_code"]}
    stage.report.check("each takes the code and nothing else", offered == expected, offered)


def _load_function(stage: Stage) -> None:
    created = _create(stage, "functions", FUNCTION_ID, stage.plugins / "functions" / "run_code.py")
    stage.report.check("the function is created", created.status == http.client.OK, _outcome(created))
    path = f"/api/v1/functions/id/{FUNCTION_ID}"
    kind = stage.administrator.get(path)["type"]
    stage.report.check("the function is an action", kind == "action", kind)
    active = stage.administrator.post(f"{path}/toggle")["is_active"]
    stage.report.check("the action is switched on", active is True)
    everywhere = stage.administrator.post(f"{path}/toggle/global")["is_global"]
    stage.report.check("the action is there for all models", everywhere is True)


def _create(stage: Stage, kind: str, plugin_id: str, source: Path) -> Answer:
    form = {
        "id": plugin_id,
        "name": PLUGIN_NAME,
        "content": source.read_text(encoding="utf-8"),
        "meta": {"description": "Runs code in a sandbox", "manifest": {}},
        "access_grants": EVERYBODY_READS,
    }
    return stage.administrator.request("POST", f"/api/v1/{kind}/create", form)


def _outcome(created: Answer) -> object:
    return created.status if created.status == http.client.OK else created.body
