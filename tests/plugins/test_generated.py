"""The generated plugins: fresh, loadable as Open WebUI loads them, and alone with what Open WebUI ships.

They run in an environment that holds nothing but what they may import; nothing of this checkout is on their path.
"""

import ast
import json
import os
import re
import subprocess
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from plugins.flatten import TARGETS, Target, flatten
from policy.keys import generate_key
from policy.signatures import add_signature
from tests.plugins.conftest import ROOT, Boxes, scoped_variables
from tests.policy.factories import text_of

TOOL, FUNCTION = TARGETS
BOTH = pytest.mark.parametrize("target", TARGETS, ids=lambda target: Path(target.output).parts[-2])
STEPS = [
    "Checking if environment supports sandboxing...",
    "Initializing sandbox configuration...",
    "Setting up sandbox environment...",
    "Running Python code in gVisor sandbox...",
]
LOADER = """
import asyncio, inspect, json, math, os, pathlib, sys, tempfile, types, warnings

warnings.simplefilter("error")
path, class_name, code = sys.argv[1:]
content = pathlib.Path(path).read_text(encoding="utf-8")
for text in ("utils", "apps", "main", "config"):
    content = content.replace(f"from {text}", f"from open_webui.{text}")
module = types.ModuleType("tool_run_code_0123")
sys.modules[module.__name__] = module
temporary = tempfile.NamedTemporaryFile(delete=False)
temporary.close()
module.__dict__["__file__"] = temporary.name
try:
    exec(content, module.__dict__)
    plugin = getattr(module, class_name)()
finally:
    os.unlink(temporary.name)
    sys.modules.pop(module.__name__)
kinds = ("Tools", "Pipe", "Filter", "Action", "Event")
garbage = ["x", "", None, [1], {"a": [{}]}, 10**400, -1, math.nan, math.inf, True]
for model in (plugin.Valves, plugin.UserValves):
    for value in garbage:
        model(**dict.fromkeys([*model.model_fields, "UNKNOWN"], value))
warnings.simplefilter("ignore")
told = {
    "kinds": [name for name in kinds if hasattr(module, name)],
    "offered": [name for name in dir(plugin) if callable(getattr(plugin, name)) and not name.startswith("_")
                and not inspect.isclass(getattr(plugin, name))],
    "valves": plugin.Valves.schema()["properties"],
    "user_valves": plugin.UserValves.schema()["properties"],
    "at_start": plugin.valves.model_dump(exclude_unset=True),
}
class Groups:
    async def get_groups_by_member_id(self, user_id, db=None, *, include_inherited=False):
        names = ["students", "school"] if include_inherited else ["students"]
        return [types.SimpleNamespace(id=f"id-of-{name}", name=name) for name in names if user_id == "u1"]
for name in ("open_webui", "open_webui.models", "open_webui.models.groups"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["open_webui.models.groups"].Groups = Groups()
if code:
    told["answer"] = json.loads(asyncio.run(plugin.run_python_code(code, {"id": "u1"})))
print(json.dumps(told))
"""


def ran(command: list[Path | str], *, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run something with an environment that has nothing of ours but these variables, in the root folder."""
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    cache = {name: os.environ[name] for name in ("XDG_CACHE_HOME",) if name in os.environ}
    return subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env={**environ, **cache, **variables},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def loaded(python: Path, target: Target, code: str = "", **variables: str) -> dict[str, Any]:
    """Load a plugin as Open WebUI does, and give what it shows of itself."""
    class_name = "Tools" if target is TOOL else "Action"
    result = ran([python, "-I", "-c", LOADER, ROOT / target.output, class_name, code], **variables)
    assert result.stderr == ""
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def script(
    python: Path, target: Target, *options: str, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    return ran([python, ROOT / target.output, *options], stdin=stdin, **variables)


def answer_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.stderr == ""
    told: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return told


@BOTH
def test_committed_plugin_is_what_its_sources_give(target: Target) -> None:
    assert (ROOT / target.output).read_text(encoding="utf-8") == flatten(ROOT, target), "run `make plugins`"


@BOTH
def test_plugin_needs_nothing_beyond_the_bare_environment(bare_python: Path, target: Target) -> None:
    result = ran([bare_python, "-c", "import click"])
    assert "ModuleNotFoundError" in result.stderr  # or else this proves nothing

    assert script(bare_python, target, "--help").returncode == 0


def test_tool_loads_as_in_open_webui_and_offers_exactly_two_tools(bare_python: Path) -> None:
    told = loaded(bare_python, TOOL)

    assert told["kinds"] == ["Tools"]
    assert told["offered"] == ["run_bash_command", "run_python_code"]
    assert told["at_start"] == {}


def test_function_loads_as_in_open_webui_as_an_action(bare_python: Path) -> None:
    told = loaded(bare_python, FUNCTION)

    assert told["kinds"] == ["Action"]
    assert told["offered"] == ["action"]


@BOTH
def test_valves_of_a_plugin_have_plain_types(bare_python: Path, target: Target) -> None:
    told = loaded(bare_python, target)

    entries = [*told["valves"].values(), *told["user_valves"].values()]
    assert {entry["type"] for entry in entries} == {"boolean", "integer", "number", "string"}
    assert {key for entry in entries for key in entry} == {"default", "description", "title", "type"}
    assert set(told["user_valves"]) < set(told["valves"])


@BOTH
def test_valves_of_a_plugin_say_what_is_locked_by_whom_and_why(
    bare_python: Path, target: Target, tmp_path: Path
) -> None:
    key = generate_key()
    dates = {"issued_at": datetime(2020, 1, 1, tzinfo=UTC), "expires_at": datetime(9999, 1, 1, tzinfo=UTC)}
    limits = {"max_cpus": {"ceiling": 0.5, "reason": "shared host"}, "debug": False}
    text = text_of(limits, audience=["*"], **dates)
    policy = tmp_path / "acme.toml"
    policy.write_bytes(add_signature(text.encode(), key, origin="acme.toml"))

    told = loaded(
        bare_python,
        target,
        SANDBOX_NETWORKING_ALLOWED="false",
        SANDBOX_POLICY_PATH=str(policy),
        SANDBOX_POLICY_KEYS=f"ed25519:{b64encode(key.public.raw).decode()}",
    )

    locked = "**Locked to false by SANDBOX_NETWORKING_ALLOWED: this valve changes nothing.**"
    assert told["user_valves"]["NETWORKING_ALLOWED"]["description"].endswith(locked)
    assert told["valves"]["NETWORKING_ALLOWED"]["description"].endswith(locked)
    assert "No looser than 0.5 CPUs, by acme-prod serial 7 (" in told["user_valves"]["MAX_CPUS"]["description"]
    assert told["user_valves"]["MAX_CPUS"]["description"].endswith("(shared host).")
    assert "**Locked to false by acme-prod serial 7 (" in told["valves"]["DEBUG"]["description"]


@BOTH
def test_plugin_under_a_refused_policy_set_loads_and_says_so(bare_python: Path, target: Target) -> None:
    told = loaded(bare_python, target, SANDBOX_POLICY_PATH="/nowhere/policies", SANDBOX_POLICY_UNSIGNED_ALLOWED="true")

    for entry in (*told["valves"].values(), *told["user_valves"].values()):
        assert "**No code runs at present: /nowhere/policies: " in entry["description"]


def test_tool_under_a_refused_policy_set_runs_nothing(bare_python: Path) -> None:
    told = loaded(bare_python, TOOL, "print(1)", SANDBOX_POLICY_REQUIRED="true")

    assert told["answer"]["status"] == "REFUSED"
    assert "SANDBOX_POLICY_PATH" in told["answer"]["error"]


@pytest.mark.gvisor
def test_tool_runs_code_after_open_webui_loaded_it(bare_python: Path, boxes: Boxes) -> None:
    told = loaded(bare_python, TOOL, "print(6 * 7)", SANDBOX_NETWORKING_ALLOWED="false", SANDBOX_POOL_SIZE="0")

    assert told["answer"] == {"status": "OK", "output": "42\n"}
    assert boxes.running() == []


@pytest.mark.parametrize(
    ("match", "refused"),
    [
        ({"groups": ["students"]}, "permitted languages"),
        ({"groups": ["id-of-school"]}, "permitted languages"),
        ({"groups": ["staff"]}, "surrogate"),  # what is refused next, in a language that may run
        ({"surface": "function"}, "surrogate"),
    ],
    ids=str,
)
def test_tool_asks_open_webui_whose_scopes_hold(
    bare_python: Path, tmp_path: Path, match: dict[str, Any], refused: str
) -> None:
    variables = scoped_variables(tmp_path, {"match": match, "limits": {"languages": ["bash"]}})

    told = loaded(bare_python, TOOL, "\udcff", **variables)

    assert refused in told["answer"]["error"]


@pytest.mark.gvisor
@BOTH
def test_sample_prints_its_events_in_order_and_then_one_json_line(
    bare_python: Path, target: Target, boxes: Boxes
) -> None:
    # Once before, as the first run in an environment builds the file tree for it, and says so.
    script(bare_python, target, "--use-sample-code")

    result = script(bare_python, target, "--use-sample-code")

    *lines, last = result.stdout.splitlines()
    steps = [{"status": "in_progress", "description": step, "done": False} for step in STEPS]
    done = {"status": "complete", "description": "Python code executed successfully.", "done": True}
    assert lines == [f"Event: { {'type': 'status', 'data': data} }" for data in (*steps, done)]
    told = json.loads(last)
    assert (result.returncode, result.stderr) == (0, "")
    assert (last, told["status"]) == (json.dumps(told, ensure_ascii=False), "OK")
    assert re.match(r"Hello from the sandbox!\nCurrent date and time: \d{4}-\d\d-\d\d ", told["output"])
    assert "Starting gVisor..." in told["output"]
    assert boxes.running() == []


@pytest.mark.gvisor
def test_first_sample_says_that_it_builds_the_file_tree_and_proves_the_limits(
    bare_python: Path, new_cache_home: Callable[[], Path]
) -> None:
    result = script(bare_python, TOOL, "--use-sample-code", XDG_CACHE_HOME=str(new_cache_home()))

    events = [ast.literal_eval(line.removeprefix("Event: ")) for line in result.stdout.splitlines()[:-1]]
    first = ["Building the sandbox's own file tree...", "Proving on this host that each limit holds..."]
    steps = [*STEPS[:3], *first, STEPS[3], "Python code executed successfully."]
    assert [event["data"]["description"] for event in events] == steps


@pytest.mark.gvisor
@BOTH
def test_code_from_standard_input_runs_in_a_plugin_alone(bare_python: Path, target: Target, boxes: Boxes) -> None:
    good = script(bare_python, target, stdin="print('é', 6 * 7)")
    bad = script(bare_python, target, "--language", "bash", stdin="exit 3")

    assert (good.returncode, answer_of(good)["output"]) == (0, "é 42\n")
    assert (bad.returncode, answer_of(bad)["status"]) == (1, "ERROR")
    assert boxes.running() == []


@pytest.mark.gvisor
def test_debug_shows_the_record_of_the_run(bare_python: Path, boxes: Boxes) -> None:
    told = answer_of(script(bare_python, TOOL, "--use-sample-code", "--debug"))

    assert told["debug"]["outcome"] == "ok"
    assert boxes.running() == []


@BOTH
def test_unknown_option_ends_with_exit_code_2(bare_python: Path, target: Target) -> None:
    result = script(bare_python, target, "--use-sample-cod")
    unknown = script(bare_python, target, "--no-such-option")

    assert (result.returncode, unknown.returncode) == (2, 2)
    assert "unrecognized arguments: --no-such-option" in unknown.stderr


@BOTH
@pytest.mark.parametrize(
    "variables",
    [{"SANDBOX_POLICY_REQUIRED": "true"}, {"SANDBOX_MAX_CPUS": ""}, {"SANDBOX_MAX_RUNTIME_SECOND": "5"}],
    ids=["no policy", "empty variable", "misspelt variable"],
)
def test_refused_run_says_why_without_a_traceback(bare_python: Path, target: Target, variables: dict[str, str]) -> None:
    result = script(bare_python, target, "--use-sample-code", **variables)

    told = answer_of(result)
    assert (result.returncode, told["status"]) == (1, "REFUSED")
    assert next(iter(variables)) in told["error"]
    assert "Traceback" not in result.stdout
