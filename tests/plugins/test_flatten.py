"""The flattener on made-up projects: what it writes, what it leaves out, what it refuses and how it says so."""

import ast
import asyncio
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.flatten import TARGETS, FlattenError, Target, UnreadableError, flatten, main
from plugins.flatten_checks import REWRITTEN_TEXTS
from plugins.flatten_tools import TOOL_NAMES

TOOL, FUNCTION = TARGETS

FRONTMATTER = '''"""
title: Run code
description: Runs code.
author: somebody
version: 1.2.3
license: Apache-2.0
"""
'''

PROJECT = {
    "pyproject.toml": '[project]\nname = "sandbox-lockdown"\nversion = "1.2.3"\n',
    "policy/__init__.py": "",
    "policy/limits.py": '''"""What may be used.

Also "quoted":
    indented.
"""

# Free-standing comment.

import re
from dataclasses import dataclass

# Why this number: it is prime.
FASTEST = 7
"""Seconds."""
_UNUSED = re.compile("x")  # goes with its line


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit."""

    seconds: int
    """How long."""

    # Comment inside.
    def doubled(self) -> int:
        return 2 * self.seconds   # as   written

    # Comment at the end.


def unused() -> Limit:
    return Limit(seconds=1)
''',
    "sandbox/__init__.py": "",
    "sandbox/run.py": '''"""Runs."""

import json
from collections.abc import (
    Mapping,  # a comment on an import goes
)

from policy.limits import FASTEST, Limit


def answer(code: str) -> Mapping[str, int]:
    from open_webui.models.groups import Groups  # noqa

    return {code: Groups}


def ran(code: str) -> str:
    limit = Limit(seconds=FASTEST)
    return json.dumps({"code": code, "seconds": limit.doubled()})
''',
    "plugins/__init__.py": "",
    "plugins/tool.py": FRONTMATTER
    + '''
import asyncio
import sys

from pydantic import BaseModel

from policy.limits import Limit
from sandbox.run import ran


class _Base:
    def _hidden(self) -> None:
        """Not offered."""


class Tools(_Base):
    """What the model may call."""

    citation = False

    class Valves(BaseModel):
        seconds: int = 3

        def public_on_a_nested_class(self) -> None: ...

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._limit = Limit(seconds=1)

    async def run_python_code(self, code: str) -> str:
        return ran(code)

    async def run_bash_command(self, command: str) -> str:
        await asyncio.sleep(0)
        return ran(command)


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(Tools().run_python_code("script")))
''',
    "plugins/function.py": FRONTMATTER
    + """
from sandbox.run import ran


class Action:
    async def action(self, body: dict[str, str]) -> str:
        return ran(body["code"])
""",
}


def project(root: Path, changes: Mapping[str, str] | None = None) -> Path:
    for path, text in {**PROJECT, **(changes or {})}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8", newline="")
    return root


def tool_using(*lines: str, imports: str = "") -> str:
    """Make an entry module whose one tool consists of the lines."""
    body = textwrap.indent("\n".join(lines or ("return code",)), " " * 8)
    return (
        f"{FRONTMATTER}\n{imports}\n\n\nclass Tools:\n    async def run_python_code(self, code: str) -> str:\n{body}\n"
    )


def loaded(text: str, name: str = "tool_run_code") -> types.ModuleType:
    """Load as Open WebUI does: a fresh module, registered while it is executed."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(text, name, "exec"), module.__dict__)  # noqa: S102 - what the host does
    finally:
        del sys.modules[name]
    return module


def offered(tool: object) -> Iterator[str]:
    """Name what Open WebUI would offer to the model."""
    for name in dir(tool):
        value = getattr(tool, name)
        if callable(value) and not name.startswith("_") and not inspect.isclass(value):
            yield name


def problems(root: Path, target: Target = TOOL) -> list[str]:
    with pytest.raises(FlattenError) as caught:
        flatten(root, target)
    return [str(problem) for problem in caught.value.problems]


# What it writes


async def test_flattened_tool_runs_alone(tmp_path: Path) -> None:
    module = loaded(flatten(project(tmp_path), TOOL))

    assert await module.Tools().run_python_code("x") == '{"code": "x", "seconds": 14}'


async def test_flattened_function_runs_alone(tmp_path: Path) -> None:
    module = loaded(flatten(project(tmp_path), FUNCTION))

    assert await module.Action().action({"code": "x"}) == '{"code": "x", "seconds": 14}'


def test_flattened_tool_offers_the_two_tools_and_nothing_else(tmp_path: Path) -> None:
    module = loaded(flatten(project(tmp_path), TOOL))

    assert set(offered(module.Tools())) == TOOL_NAMES


def test_flattened_file_is_a_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(flatten(project(tmp_path), TOOL), name="imported_only")
    before = capsys.readouterr().out
    main_module = sys.modules["__main__"]
    try:
        loaded(flatten(tmp_path, TOOL), name="__main__")
    finally:
        sys.modules["__main__"] = main_module

    assert before == ""
    assert capsys.readouterr().out == '{"code": "script", "seconds": 14}'


def test_dataclass_survives(tmp_path: Path) -> None:
    limit = loaded(flatten(project(tmp_path), TOOL)).Limit(seconds=4)

    assert limit.doubled() == 8
    assert repr(limit) == "Limit(seconds=4)"
    with pytest.raises(FrozenInstanceError):
        limit.seconds = 5


def test_whole_file_reads_as_expected(tmp_path: Path) -> None:
    text = flatten(project(tmp_path), FUNCTION)

    assert text == FRONTMATTER + (
        '''
# Generated from 3 modules of sandbox-lockdown 1.2.3 by `make plugins`; do not edit.
# To verify it against a checkout of that version: python -m plugins.flatten --check
# Definitions that nothing here reaches are left out; all else reads as it does there.
#
#   policy/limits.py ..... line 21
#   sandbox/run.py ....... line 50
#   plugins/function.py .. line 59

import json
from dataclasses import dataclass


# ======== policy/limits.py ============================================================================================
# What may be used.
#
# Also "quoted":
#     indented.


# Free-standing comment.


# Why this number: it is prime.
FASTEST = 7
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit."""

    seconds: int
    """How long."""

    # Comment inside.
    def doubled(self) -> int:
        return 2 * self.seconds   # as   written

    # Comment at the end.


# ======== sandbox/run.py ==============================================================================================
# Runs.


def ran(code: str) -> str:
    limit = Limit(seconds=FASTEST)
    return json.dumps({"code": code, "seconds": limit.doubled()})


# ======== plugins/function.py =========================================================================================


class Action:
    async def action(self, body: dict[str, str]) -> str:
        return ran(body["code"])
'''
    )


def test_first_line_is_three_quotes_alone(tmp_path: Path) -> None:
    assert flatten(project(tmp_path), TOOL).split("\n")[0] == '"""'


def test_contents_name_the_line_of_each_module(tmp_path: Path) -> None:
    lines = flatten(project(tmp_path), TOOL).split("\n")
    contents = [line.split() for line in lines if line.startswith("#   ") and " line " in line]

    assert [entry[1] for entry in contents] == ["policy/limits.py", "sandbox/run.py", "plugins/tool.py"]
    for _, path, *_, number in contents:
        assert lines[int(number) - 1].startswith(f"# ======== {path} =")


def test_no_line_ends_in_white_space_and_the_file_ends_in_one_line_feed(tmp_path: Path) -> None:
    text = flatten(project(tmp_path), TOOL)

    assert all(line == line.rstrip() for line in text.split("\n"))
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_imports_are_merged_standard_library_first(tmp_path: Path) -> None:
    changes = {
        "policy/limits.py": "import urllib.parse\nfrom typing import Any\n\nimport jsonschema\n\n"
        "LIMITS: Any = (jsonschema, urllib)\n",
        "plugins/tool.py": tool_using(
            "return str([LIMITS, Any, cast, urllib, jsonschema, ValidationError])",
            imports="import urllib.request\nfrom typing import Any, cast\nimport jsonschema\n"
            "from jsonschema.exceptions import ValidationError\nfrom policy.limits import LIMITS",
        ),
    }
    text = flatten(project(tmp_path, changes), TOOL)

    assert (
        "\nimport urllib.parse\nimport urllib.request\nfrom typing import Any, cast\n\n"
        "import jsonschema\nfrom jsonschema.exceptions import ValidationError\n\n\n# ====" in text
    )


def test_long_import_is_broken_into_lines(tmp_path: Path) -> None:
    names = ["AbstractAsyncContextManager", "AbstractContextManager", "AsyncExitStack", "ExitStack", "nullcontext"]
    listed = ", ".join([*names, "redirect_stderr"])
    tool = tool_using(f"return str([{listed}])", imports=f"from contextlib import {listed}")
    text = flatten(project(tmp_path, {"plugins/tool.py": tool}), TOOL)

    assert "from contextlib import (\n    AbstractAsyncContextManager,\n" in text
    assert "    redirect_stderr,\n)\n" in text


def test_import_inside_a_function_stays_there(tmp_path: Path) -> None:
    tool = tool_using("from open_webui.models.groups import Groups", "", "return str(Groups)")

    assert "        from open_webui.models.groups import Groups\n" in flatten(
        project(tmp_path, {"plugins/tool.py": tool}), TOOL
    )


def test_project_import_inside_a_function_is_left_out_and_what_it_names_is_there(tmp_path: Path) -> None:
    tool = tool_using(
        '"""Answer."""',
        "from policy.limits import (  # takes time to load",
        "    FASTEST,",
        "    Limit,",
        ")",
        "",
        "if code:",
        "    from policy.late import late_answer  # rarely needed",
        "",
        "    return late_answer(code)",
        "return str(FASTEST + Limit(seconds=1).doubled())",
    )
    late_module = (
        "import base64\n\n\ndef late_answer(code: str) -> str:\n    return base64.b16encode(code.encode()).decode()\n"
    )
    text = flatten(project(tmp_path, {"plugins/tool.py": tool, "policy/late.py": late_module}), TOOL)

    assert text.endswith(
        '        """Answer."""\n'
        "        if code:\n"
        "            return late_answer(code)\n"
        "        return str(FASTEST + Limit(seconds=1).doubled())\n"
    )
    assert "\nimport base64\n" in text
    assert asyncio.run(loaded(text).Tools().run_python_code("a")) == "61"
    assert asyncio.run(loaded(text).Tools().run_python_code("")) == "9"


def test_modules_without_order_among_them_come_by_name(tmp_path: Path) -> None:
    names = ("policy/c.py", "sandbox/a.py", "policy/b.py")
    changes = {path: f"{path[-4].upper()} = 1\n" for path in names}
    imports = "from sandbox.a import A\nfrom policy.c import C\nfrom policy.b import B"
    changes["plugins/tool.py"] = tool_using("return str(A + B + C)", imports=imports)
    text = flatten(project(tmp_path, changes), TOOL)

    positions = [text.index(f"# ======== {path}") for path in ("policy/b.py", "policy/c.py", "sandbox/a.py")]
    assert positions == sorted(positions)


def test_name_out_of_a_package_itself_is_found(tmp_path: Path) -> None:
    changes = {
        "policy/__init__.py": "ANSWER = 42\n",
        "plugins/tool.py": tool_using("return str(ANSWER)", imports="from policy import ANSWER"),
    }

    assert "# ======== policy/__init__.py ===" in flatten(project(tmp_path, changes), TOOL)


def test_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    one = flatten(project(tmp_path / "one"), TOOL)
    other = flatten(project(tmp_path / "other", dict(reversed(PROJECT.items()))), TOOL)

    assert one == other


# What it leaves out


def test_module_of_which_nothing_is_reached_does_not_appear(tmp_path: Path) -> None:
    changes = {
        "policy/limits.py": "from policy.far import FAR\n\nNEAR = 1\n\n\ndef unused() -> int:\n    return FAR\n",
        "policy/far.py": "FAR = 2\n",
        "plugins/tool.py": tool_using("return str(NEAR)", imports="from policy.limits import NEAR"),
    }
    text = flatten(project(tmp_path, changes), TOOL)

    assert "NEAR" in text
    assert "FAR" not in text
    assert "policy/far.py" not in text


def test_comments_of_what_is_left_out_go_with_it(tmp_path: Path) -> None:
    text = flatten(
        project(
            tmp_path,
            {
                "policy/limits.py": "# STAYS apart.\n\n# GOES above.\ndef unused() -> None:\n    ...  # GOES beside.\n"
                "    # GOES below.\n\n\nNEAR = 1\n",
                "plugins/tool.py": tool_using("return str(NEAR)", imports="from policy.limits import NEAR"),
            },
        ),
        TOOL,
    )

    assert "STAYS" in text
    assert "GOES" not in text


def test_local_name_does_not_keep_what_another_module_calls_so(tmp_path: Path) -> None:
    changes = {
        "plugins/tool.py": tool_using(
            "unused = 'LEFT_OUT'", "return ran(unused)", imports="from sandbox.run import ran"
        )
    }

    assert "def unused" not in flatten(project(tmp_path, changes), TOOL)


USES = {
    "a decorator": "@NEEDED\ndef used() -> None: ...",
    "a default": "def used(x: int = NEEDED) -> None: ...",
    "an annotation": "def used(x: NEEDED) -> None: ...",
    "a result's annotation": "def used() -> list[NEEDED]: ...",
    "a local annotation": "def used() -> None:\n    x: NEEDED = 1",
    "a base class": "class used(NEEDED): ...",
    "a class keyword": "class used(metaclass=NEEDED): ...",
    "a class attribute": "class used:\n    x = NEEDED",
    "a method of a nested class": "class used:\n    class Inner:\n        def f(self): return NEEDED",
    "a constant": "used = NEEDED",
    "an annotated constant": "used: NEEDED = 1",
    "a lambda": "used = lambda: NEEDED",
    "a comprehension": "used = [NEEDED for x in ()]",
    "an f-string": 'def used(): return f"{NEEDED:>{NEEDED}}"',
    "a match pattern": "def used(x):\n    match x:\n        case NEEDED(): return 1",
    "an except clause": "def used():\n    try: ...\n    except NEEDED: ...",
    "a deleted name": "def used():\n    del NEEDED.x",
    "a forward reference in an alias": 'used = dict[str, "NEEDED"]',
    "an attribute": "def used(): return NEEDED.x.y",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_name_is_kept_when_reached_through(use: str, tmp_path: Path) -> None:
    changes = {
        "policy/limits.py": f"class NEEDED: ...\n\n\nclass LEFT_OUT: ...\n\n\n{use}\n",
        "plugins/tool.py": tool_using("return str(used)", imports="from policy.limits import used"),
    }
    text = flatten(project(tmp_path, changes), TOOL)

    assert "class NEEDED: ..." in text
    assert "LEFT_OUT" not in text


EFFECTS = {
    "a call": "print(EFFECT)",
    "an item set": "TABLE[1] = EFFECT",
    "an attribute set": "TABLE.x = EFFECT",
    "a list extended": "TABLE += [EFFECT]",
    "a decorator of ours": "def register(f): return f\n\n\n@register\ndef EFFECT() -> None: ...",
    "a decorator of ours with a known name": "def cache(f): return f\n\n\n@cache\ndef EFFECT() -> None: ...",
    "an unknown decorator": "import atexit\n\n\n@atexit.register\ndef EFFECT() -> None: ...",
    "a loop": "for one in TABLE:\n    EFFECT",
    "a condition": "if TABLE:\n    EFFECT = 1",
    "a module hook": 'def __getattr__(name: str) -> str: return "EFFECT"',
}


@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
def test_statement_with_a_possible_effect_is_never_left_out(effect: str, tmp_path: Path) -> None:
    defined = "" if "def EFFECT" in effect or "EFFECT = " in effect or "hook" in effect else "EFFECT = 1\n"
    changes = {
        "policy/limits.py": f"TABLE = []\n{defined}USED = 1\n{effect}\n",
        "plugins/tool.py": tool_using("return str(USED)", imports="from policy.limits import USED"),
    }

    assert "EFFECT" in flatten(project(tmp_path, changes), TOOL)


KINDS = (
    "{name} = ({needs})",
    "def {name}(): return ({needs})",
    "def {name}(x=({needs})): return x",
    "def {name}(x: Annotated[int, ({needs})]): ...",
    "class {name}:\n    held = ({needs})",
    "@dataclass\nclass {name}:\n    held: Annotated[int, ({needs})]",
)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_exactly_what_is_reached_is_kept(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    count = data.draw(st.integers(1, 12))
    needs = [data.draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set() for i in range(count)]
    asked = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    modules: dict[int, list[int]] = {}
    for i in range(count):
        modules.setdefault(i // 3, []).append(i)
    changes = {}
    for number, members in modules.items():
        lines = ["from dataclasses import dataclass", "from typing import Annotated"]
        outside = sorted({need for i in members for need in needs[i] if need // 3 != number})
        lines += [f"from policy.m{need // 3} import D{need}" for need in outside]
        for i in members:
            kind = data.draw(st.sampled_from(KINDS))
            lines.append(kind.format(name=f"D{i}", needs="".join(f"D{need}, " for need in sorted(needs[i]))))
        changes[f"policy/m{number}.py"] = "\n".join(lines) + "\n"
    imports = "\n".join(f"from policy.m{i // 3} import D{i}" for i in sorted(asked))
    changes["plugins/tool.py"] = tool_using(f"return str([{', '.join(f'D{i}' for i in asked)}])", imports=imports)

    text = flatten(project(tmp_path_factory.mktemp("drawn"), changes), TOOL)

    expected, waiting = set(), list(asked)
    while waiting:
        i = waiting.pop()
        expected.add(i)
        waiting.extend(needs[i] - expected)
    assert {name for name in vars(loaded(text)) if name.startswith("D")} == {f"D{i}" for i in expected}


# What it refuses


def limits(text: str) -> dict[str, str]:
    """Put the text after the good module, so that it starts at line 35."""
    return {"policy/limits.py": PROJECT["policy/limits.py"] + "\n" + text}


def late(*lines: str) -> dict[str, str]:
    """Make the lines, the first of which is line 14 of the file, the tool."""
    return {"plugins/tool.py": tool_using(*lines)}


def tools(body: str, before: str = "") -> dict[str, str]:
    """Put members into class Tools."""
    return {"plugins/tool.py": f"{FRONTMATTER}\n{before}\n\nclass Tools:\n" + textwrap.indent(body, "    ") + "\n"}


def frontmatter(text: str) -> dict[str, str]:
    return {"plugins/tool.py": text + "\n\nclass Tools: ...\n"}


AT = "policy/limits.py:35"
OFFERED = "the language model would be offered it as a tool. Let its name begin with an underscore."

REFUSED: dict[str, tuple[dict[str, str], str]] = {
    # One name with two meanings.
    "function in two modules": (
        limits("def ran() -> None: ...\n"),
        "sandbox/run.py:17: ran: means something else at policy/limits.py:35. Rename one of them.",
    ),
    "class in two modules": (limits("class Tools: ...\n"), f"Tools: means something else at {AT}"),
    "constant in two modules": (limits("answer = 1\n"), f"answer: means something else at {AT}"),
    "annotated constant in two modules": (limits("answer: int = 1\n"), f"answer: means something else at {AT}"),
    "loop variable": (limits("for answer in ():\n    pass\n"), f"answer: means something else at {AT}"),
    "with name": (limits("with FASTEST as answer:\n    pass\n"), f"answer: means something else at {AT}"),
    "except name": (
        limits("try:\n    pass\nexcept OSError as answer:\n    pass\n"),
        "answer: means something else at policy/limits.py:37",
    ),
    "walrus": (limits("OTHER = [answer := 1 for _ in ()]\n"), f"answer: means something else at {AT}"),
    "walrus in a default": (
        limits("def f(x: int = (answer := 1)) -> None: ...\n"),
        f"answer: means something else at {AT}",
    ),
    "match name": (
        limits("match FASTEST:\n    case answer:\n        pass\n"),
        "answer: means something else at policy/limits.py:36",
    ),
    "unpacked name": (limits("OTHER, (*answer,) = 1, ()\n"), f"answer: means something else at {AT}"),
    "import against definition": (limits("from json import dumps as _\n"), "`as` gives one thing two names"),
    "imported name defined elsewhere": (limits("json = 1\n"), f"json: means something else at {AT}"),
    "one name imported from two places": (
        limits("from typing import Mapping\n"),
        f"sandbox/run.py:4: Mapping: means something else at {AT}",
    ),
    "module and its member of one name": (limits("from json import json\n"), "json: means something else"),
    "builtin hidden": (limits("def open() -> None: ...\n"), f"{AT}: open: hides the builtin from all other modules"),
    "Pipe": (limits("class Pipe: ...\n"), f"{AT}: Pipe: Open WebUI takes that for a function's type"),
    "Filter": (limits("Filter = 1\n"), f"{AT}: Filter: Open WebUI takes"),
    "Event imported": (limits("from asyncio import Event\n"), f"{AT}: Event: Open WebUI takes"),
    # What may be imported, and how.
    "import as": (limits("import json as other\n"), f"{AT}: other: `as` gives one thing two names in one file"),
    "star": (limits("from json import *\n"), f"{AT}: json: a star hides what is imported"),
    "relative": (limits("from . import errors\n"), f"{AT}: import: is relative. Write the whole name"),
    "future": (
        {"policy/limits.py": "from __future__ import annotations\n"},
        "policy/limits.py:1: __future__: would change every other module in the file. Do without it.",
    ),
    "project module as module": (
        {"plugins/tool.py": tool_using("return str(policy)", imports="import policy.limits")},
        "plugins/tool.py:9: policy.limits: is bound as a module, and a single file has none.",
    ),
    "submodule as a name": (
        {"plugins/tool.py": tool_using("return str(limits)", imports="from policy import limits")},
        "plugins/tool.py:9: limits: policy does not define it",
    ),
    "name passed on by another module": (
        {"plugins/tool.py": tool_using("return str(Limit)", imports="from sandbox.run import Limit")},
        "plugins/tool.py:9: Limit: sandbox.run does not define it. Import it out of where it is defined.",
    ),
    "project import in a function of what imports it": (
        limits("def late() -> None:\n    from sandbox.run import ran\n"),
        "policy/limits.py:36: import: modules import one another: policy.limits → sandbox.run → policy.limits.",
    ),
    "project module as module in a function": (
        late("import policy.limits", "return str(policy)"),
        "plugins/tool.py:14: policy.limits: is bound as a module, and a single file has none.",
    ),
    "project import in a function of what is not there": (
        late("from policy.limits import Unknown", "return str(Unknown)"),
        "plugins/tool.py:14: Unknown: policy.limits does not define it",
    ),
    "project import in a function by another name": (
        late("from policy.limits import FASTEST as ran", "return str(ran)"),
        "plugins/tool.py:14: ran: `as` gives one thing two names in one file",
    ),
    "project import behind another statement": (
        late("x = 1; from policy.limits import FASTEST", "return str(x + FASTEST)"),
        "plugins/tool.py:14: import: shares its line with what stays. Give it its own line.",
    ),
    "project import before another statement": (
        late("from policy.limits import FASTEST; x = 1", "return str(x + FASTEST)"),
        "plugins/tool.py:14: import: shares its line",
    ),
    "project import alone in its block": (
        late("if code:", "    from policy.limits import FASTEST", "return str(FASTEST)"),
        "output: does not compile",
    ),
    "project import bound anew": (
        late("from policy.limits import FASTEST", "FASTEST = FASTEST + 1", "return str(FASTEST)"),
        "plugins/tool.py:14: FASTEST: means something else in this function. Rename one of them.",
    ),
    "project import of a parameter's name": (
        late(
            "def inner(FASTEST):",
            "    def late():",
            "        from policy.limits import FASTEST",
            "        return FASTEST",
        ),
        "plugins/tool.py:16: FASTEST: means something else in this function",
    ),
    "package not in Open WebUI": (limits("import tomli_w\n"), f"{AT}: tomli_w: is not sure to be in Open WebUI"),
    "such a package in a function": (
        limits("def late() -> None:\n    import click\n"),
        "policy/limits.py:36: click: is not sure to be in Open WebUI. Use the standard library or one of cryptography,",
    ),
    "such a package's module": (limits("from rich.table import Table\n"), f"{AT}: rich.table: is not sure"),
    "Open WebUI at the top": (
        limits("from open_webui.models.groups import Groups\n"),
        f"{AT}: open_webui.models.groups: exists in Open WebUI only. Import it inside the function",
    ),
    "Open WebUI's users": (
        limits("def late() -> None:\n    from open_webui.models.users import Users\n"),
        "policy/limits.py:36: open_webui.models.users: is not what plugins may ask of Open WebUI. Of Open WebUI, use",
    ),
    "Open WebUI's package of models": (
        limits("def late() -> None:\n    from open_webui.models import groups\n"),
        "policy/limits.py:36: open_webui.models: is not what plugins may ask",
    ),
    "all of Open WebUI": (
        limits("def late() -> None:\n    import open_webui\n"),
        "policy/limits.py:36: open_webui: is not what plugins may ask",
    ),
    "import in try": (
        limits("try:\n    import json\nexcept ImportError:\n    pass\n"),
        "policy/limits.py:36: import: stands inside another statement",
    ),
    "import in a class": (limits("class C:\n    import json\n"), "policy/limits.py:36: import: stands inside another"),
    "TYPE_CHECKING": (
        limits("from typing import TYPE_CHECKING\n"),
        f"{AT}: TYPE_CHECKING: hides an import at run time",
    ),
    "typing.TYPE_CHECKING": (
        limits("import typing\nif typing.TYPE_CHECKING:\n    pass\n"),
        "policy/limits.py:36: TYPE_CHECKING: hides an import at run time",
    ),
    "import_module": (limits("from importlib import import_module\n"), f"{AT}: import_module: hides an import"),
    "package data": (limits("from importlib.resources import files\n"), f"{AT}: importlib.resources: a plugin has no"),
    "package data by module": (limits("from importlib import resources\n"), f"{AT}: importlib: a plugin has no file"),
    "pkgutil": (limits("import pkgutil\n"), f"{AT}: pkgutil: a plugin has no file or package"),
    # What names may be used.
    "__file__": (limits("HERE = __file__\n"), f"{AT}: __file__: a plugin has no file or package once it is loaded"),
    "__file__ of a module": (limits("HERE = re.__file__\n"), f"{AT}: __file__: a plugin has no file"),
    "global": (limits("def f() -> None:\n    global FASTEST\n    FASTEST = 8\n"), "policy/limits.py:36: global: makes"),
    "globals": (limits('LATE = globals()["Limit"]\n'), f"{AT}: globals: reaches names as text"),
    "eval": (limits('LATE = eval("Limit")\n'), f"{AT}: eval: reaches names as text"),
    "vars of the module": (limits("LATE = vars()\n"), f"{AT}: vars: reaches names as text"),
    "subclasses": (limits("ALL = Limit.__subclasses__()\n"), f"{AT}: __subclasses__: makes a class count that nobody"),
    "annotation in quotes": (
        limits('def f(x: list["Limit"]) -> None: ...\n'),
        f"{AT}: 'Limit': an annotation in quotes hides the names it uses. Define the name first, or use Self.",
    ),
    "result in quotes": (limits('async def f() -> "Limit": ...\n'), f"{AT}: 'Limit': an annotation in quotes"),
    "forgotten import": (
        limits("def f() -> None:\n    return deque()\n"),
        "policy/limits.py:36: deque: is used but neither defined nor imported. Import or define it.",
    ),
    "name only another module has": (limits("def f() -> None:\n    ran('x')\n"), "ran: is used but neither defined"),
    # The source as text.
    "comment that would be rewritten": (
        limits(f"# read {REWRITTEN_TEXTS[3]}uration\n"),
        f"{AT}: {REWRITTEN_TEXTS[3]!r}: is rewritten by Open WebUI. Word it in another way.",
    ),
    "import that would be rewritten": (
        limits(f"{REWRITTEN_TEXTS[3]}parser import ConfigParser\n"),
        f"{AT}: {REWRITTEN_TEXTS[3]!r}: is rewritten",
    ),
    "white space at a line's end": (limits("X = '''  \n'''\n"), f"{AT}: text: has white space at its end"),
    "bidi character": (limits("X = '\u202e'\n"), f"{AT}: U+202E: cannot be seen by a reviewer"),
    "paragraph separator": (limits("X = '\u2029'\n"), f"{AT}: U+2029: cannot be seen"),
    "carriage return": (limits("X = 1\r\n"), f"{AT}: U+000D: cannot be seen"),
    "byte order mark": ({"policy/limits.py": "\ufeffX = 1\n"}, "policy/limits.py:1: U+FEFF: cannot be seen"),
    "no line feed at the end": (limits("X = 1"), f"{AT}: text: does not end in a line feed"),
    "two statements in a line": (limits("X = 1; Y = 2\n"), f"{AT}: line: holds two statements"),
    "main part outside the entry": (
        limits('if __name__ == "__main__":\n    print(FASTEST)\n'),
        f"{AT}: __name__: only the entry module may be a script",
    ),
    # What the model would be offered.
    "public method": (tools("def helper(self): ..."), f"plugins/tool.py:12: Tools.helper: {OFFERED}"),
    "public coroutine": (tools("async def helper(self): ..."), f"Tools.helper: {OFFERED}"),
    "static method": (tools("@staticmethod\ndef helper(): ..."), f"Tools.helper: {OFFERED}"),
    "class method": (tools("@classmethod\ndef helper(cls): ..."), f"Tools.helper: {OFFERED}"),
    "property": (tools("@property\ndef helper(self): ..."), f"Tools.helper: {OFFERED}"),
    "lambda": (tools("helper = lambda self: 1"), f"Tools.helper: {OFFERED}"),
    "lambda as valves": (tools("valves = lambda self: 1"), f"Tools.valves: {OFFERED}"),
    "annotated lambda": (tools("helper: object = lambda self: 1"), f"Tools.helper: {OFFERED}"),
    "function assigned": (tools("helper = _f", "def _f(self): ..."), f"plugins/tool.py:12: Tools.helper: {OFFERED}"),
    "partial": (tools("helper = partial(print)", "from functools import partial"), f"Tools.helper: {OFFERED}"),
    "method under a condition": (tools("if True:\n    def helper(self): ..."), f"Tools.helper: {OFFERED}"),
    "method in a loop": (tools("for helper in (print,):\n    pass"), f"Tools.helper: {OFFERED}"),
    "unpacked functions": (tools("helper, other = print, print"), f"Tools.other: {OFFERED}"),
    "valves and more unpacked from a call": (tools("Valves, helper = made()"), f"Tools.helper: {OFFERED}"),
    "valves unpacked from functions": (tools("Valves, UserValves = print, print"), f"Tools.Valves: {OFFERED}"),
    "attribute of the instance": (
        tools("def __init__(self):\n    self.helper = print"),
        f"plugins/tool.py:13: Tools.helper: {OFFERED}",
    ),
    "setattr": (tools("def __init__(self):\n    setattr(self, 'x', print)"), "setattr: may add public methods"),
    "inherited method": (
        {
            **limits("class Parent:\n    def helper(self): ...\n"),
            "plugins/tool.py": (
                f"{FRONTMATTER}\nfrom policy.limits import Parent\n\n\n"
                "class Middle(Parent): ...\n\n\nclass Tools(Middle): ...\n"
            ),
        },
        f"policy/limits.py:36: Tools.helper: {OFFERED}",
    ),
    "base class from outside": (
        {"plugins/tool.py": f"{FRONTMATTER}\nfrom json import JSONDecoder\n\n\nclass Tools(JSONDecoder): ...\n"},
        "plugins/tool.py:12: JSONDecoder: the methods of this base class cannot be seen",
    ),
    "metaclass": (
        {"plugins/tool.py": f"{FRONTMATTER}\nclass Tools(metaclass=type): ...\n"},
        "Tools: a decorator or metaclass may add public methods",
    ),
    "method added from outside": (
        {"plugins/tool.py": f"{FRONTMATTER}\nclass Tools: ...\n\n\nTools.helper = print\n"},
        "plugins/tool.py:12: Tools: is changed outside its definition",
    ),
    # The entry module.
    "no docstring": (frontmatter(""), "plugins/tool.py:1: frontmatter: Open WebUI would not read it"),
    "docstring that starts on line 1": (
        frontmatter(FRONTMATTER.replace('"""\n', '"""', 1)),
        "plugins/tool.py:1: frontmatter: Open WebUI would not read it",
    ),
    "no licence": (
        frontmatter(FRONTMATTER.replace("license", "licence")),
        "license: is missing in the frontmatter. Add a line `license: …`.",
    ),
    "old version": (
        frontmatter(FRONTMATTER.replace("1.2.3", "1.2.2")),
        "plugins/tool.py:1: version: is not the project's 1.2.3. Change the line.",
    ),
    "no class": (
        {"plugins/tool.py": f"{FRONTMATTER}\nTABLE = 1\n"},
        "plugins/tool.py:1: Tools: Open WebUI looks for this class. Define it in plugins/tool.py.",
    ),
    "cycle": (
        {
            "policy/limits.py": "X = 1\nfrom policy.other import Y\n",
            "policy/other.py": "from policy.third import Z\n",
            "policy/third.py": "from policy.limits import X\n",
        },
        "2: import: modules import one another: policy.limits → policy.other → policy.third → policy.limits. Move what",
    ),
    # What cannot be read.
    "module that is missing": (
        limits("from policy.nowhere import X\n"),
        f"{AT}: import: there is no module policy.nowhere. Correct the import.",
    ),
    "syntax error": (limits("def\n"), f"{AT}: policy.limits: is not Python (invalid syntax). Mend it."),
    "error that only the compiler finds": (
        limits("return\n"),
        f"{AT}: policy.limits: is not Python ('return' outside function). Mend it.",
    ),
    "broken pyproject": ({"pyproject.toml": "["}, "pyproject.toml:1: project: cannot be read"),
    "pyproject without version": ({"pyproject.toml": "[project]\nname='x'\n"}, "project: cannot be read ('version')"),
}


@pytest.mark.parametrize(("changes", "expected"), REFUSED.values(), ids=REFUSED)
def test_refuses(changes: dict[str, str], expected: str, tmp_path: Path) -> None:
    # The tool's entry imports policy.limits and sandbox.run, unless the case has an entry of its own.
    found = problems(project(tmp_path, changes))

    assert any(expected in problem for problem in found), "\n".join(found)


@pytest.mark.parametrize("text", REWRITTEN_TEXTS)
def test_each_rewritten_text_is_refused_in_a_string(text: str, tmp_path: Path) -> None:
    assert f"{AT}: {text!r}: is rewritten" in "".join(problems(project(tmp_path, limits(f'X = "{text}"\n'))))


def test_rewritten_text_that_only_merging_makes_is_refused(tmp_path: Path) -> None:
    spaced = REWRITTEN_TEXTS[3].replace(" ", "  ")
    tool = tool_using("return str(ConfigParser)", imports=f"{spaced}parser import ConfigParser")

    assert "plugins/generated/tools/run_code.py:" in problems(project(tmp_path, {"plugins/tool.py": tool}))[0]


def test_own_sources_hold_no_rewritten_text() -> None:
    for path in Path(inspect.getfile(flatten)).parent.glob("flatten*.py"):
        assert not any(text in path.read_text(encoding="utf-8") for text in REWRITTEN_TEXTS)


def test_source_that_is_not_utf_8_is_unreadable(tmp_path: Path) -> None:
    (project(tmp_path) / "policy/limits.py").write_bytes(b"# \xff\n")

    with pytest.raises(UnreadableError, match=r"policy/limits.py:1: .* cannot be read"):
        flatten(tmp_path, TOOL)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    changes = {
        **limits("import click\nHERE = __file__\n"),
        **tools("def helper(self): ...", "from policy.limits import HERE"),
    }

    assert len(problems(project(tmp_path, changes))) == 3


@pytest.mark.parametrize(
    "text",
    [
        'from typing import Annotated, Literal\n\n\ndef f(x: Literal["a"], y: Annotated[int, "unit"]) -> None: ...\n',
        "from typing import overload\n@overload\ndef f(x: int) -> int: ...\n@overload\ndef f(x: str) -> str: ...\n",
        "X = [one for one in (1, 2)]\nY = {one: two for one, two in ()}\n",
        "def f() -> None:\n    import json\n    from time import time\n",
        "def f(code: str) -> str:\n    ran = json = code\n    return ran + json\n",
        "def f(x: object) -> object:\n    return vars(x)\n",
        "def f(x: object) -> object:\n    return [ran := x, lambda answer: answer]\n",
    ],
    ids=[
        "strings that are values",
        "overloads",
        "comprehension variables",
        "local imports",
        "local names",
        "vars of x",
        "local walrus",
    ],
)
def test_accepts(text: str, tmp_path: Path) -> None:
    assert ast.parse(flatten(project(tmp_path, limits(text)), TOOL))


# The command


def generated(root: Path) -> dict[str, str]:
    return {target.output: (root / target.output).read_text(encoding="utf-8") for target in TARGETS}


def test_command_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(project(tmp_path))]) == 0
    assert generated(tmp_path) == {target.output: flatten(tmp_path, target) for target in TARGETS}
    assert "plugins/generated/tools/run_code.py: " in capsys.readouterr().out


def test_check_of_what_was_just_written_is_silent_and_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--root", str(project(tmp_path))])
    capsys.readouterr()

    assert main(["--check", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", "")


def test_check_of_an_edited_file_shows_the_difference_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--root", str(project(tmp_path))])
    path = tmp_path / FUNCTION.output
    edited = path.read_text(encoding="utf-8").replace("FASTEST = 7", "FASTEST = 9999")
    path.write_text(edited, encoding="utf-8")

    assert main(["--check", "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "-FASTEST = 9999\n+FASTEST = 7\n" in shown
    assert shown.endswith("plugins/generated/functions/run_code.py differs from its sources; run make plugins.\n")
    assert path.read_text(encoding="utf-8") == edited


def test_check_without_files_says_so_in_an_excerpt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(project(tmp_path))]) == 1
    assert " more lines\nplugins/generated/tools/run_code.py differs" in capsys.readouterr().err
    assert not (tmp_path / "plugins/generated").exists()


def test_check_sees_a_changed_line_ending(tmp_path: Path) -> None:
    main(["--root", str(project(tmp_path))])
    path = tmp_path / TOOL.output
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert main(["--check", "--root", str(tmp_path)]) == 1


def test_refused_second_file_leaves_both_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--root", str(project(tmp_path))])
    before = generated(tmp_path)
    changed = {
        "plugins/tool.py": PROJECT["plugins/tool.py"].replace("seconds: int = 3", "seconds: int = 4"),
        "plugins/function.py": FRONTMATTER + "\nclass Action:\n    HERE = __file__\n",
    }

    assert main(["--root", str(project(tmp_path, changed))]) == 1
    assert "plugins/function.py:10: __file__: " in capsys.readouterr().err
    assert generated(tmp_path) == before


def test_writing_leaves_nothing_beside_the_files(tmp_path: Path) -> None:
    main(["--root", str(project(tmp_path))])

    found = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "plugins/generated").rglob("*.*"))
    assert found == [FUNCTION.output, TOOL.output]


def test_file_that_cannot_be_written_is_named_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project(tmp_path) / TOOL.output).mkdir(parents=True)

    assert main(["--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path / TOOL.output}: cannot be read or written (Is a directory).\n"
    assert [path.name for path in (tmp_path / TOOL.output).parent.iterdir()] == ["run_code.py"]


def test_problems_of_both_files_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {**limits("import click\n"), "plugins/function.py": PROJECT["plugins/function.py"] + "HERE = __file__\n"}

    assert main(["--root", str(project(tmp_path, changes))]) == 1
    shown = capsys.readouterr().err
    assert shown.count("click: is not sure") == 1
    assert shown.count("plugins/function.py:15: __file__: ") == 1


def test_folder_that_is_no_checkout_is_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 2
    assert "Run it at the root of the checkout" in capsys.readouterr().err


def test_entry_that_is_missing_is_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project(tmp_path) / "plugins/tool.py").unlink()

    assert main(["--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "plugins.tool: plugins.tool: there is no such module. Write it.\n"
