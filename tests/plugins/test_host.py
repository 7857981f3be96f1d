"""The plugins' host: every end is told, none is an exception, and nothing of one request stays for the next."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.host import LOGGER_NAME, PluginEnd, PluginHost, run_order, situation_or_error
from plugins.presentation import end_json
from plugins.valves import admin_valves_model, person_valves_model
from policy.errors import ConfigurationError, PolicyError, SetRefusedError
from policy.requester import Requester
from policy.situation import Situation
from sandbox.errors import SandboxError
from sandbox.session import RunOrder
from tests.plugins.conftest import Events, scoped_variables

QUIET = {"SANDBOX_NETWORKING_ALLOWED": "false"}


def order_of(code: str = "print(1)", language: str = "python", **user: Any) -> RunOrder:  # noqa: ANN401 -- any JSON
    return run_order(language, code, None, user, surface="tool")


async def refused(environ: dict[str, str], order: RunOrder, events: Events) -> PluginEnd:
    """Ask for a run that never comes to a box, and check that it is told as such."""
    end = await PluginHost(environ).run(order, events)

    assert events.statuses[-1] == ("error", True)
    assert events.descriptions[-1] == end_json(end)["error"]
    return end


def test_order_takes_a_snapshot_of_all_valves() -> None:
    admin = admin_valves_model(situation_here())(MAX_CPUS=1)
    person = person_valves_model(situation_here())(MAX_CPUS=2)

    order = run_order("python", "print(1)", admin, {"id": "u1", "valves": person}, surface="tool")
    admin.MAX_CPUS = 3  # type: ignore[attr-defined]  # a field that the model got when it was made
    person.MAX_CPUS = 4  # type: ignore[attr-defined]

    assert order.untrusted_admin_valves["MAX_CPUS"] == 1
    assert order.untrusted_person_valves["MAX_CPUS"] == 2


def situation_here() -> Situation:
    situation = situation_or_error()
    assert isinstance(situation, Situation)
    return situation


@pytest.mark.parametrize(
    ("user", "person"),
    [
        (None, "unknown"),
        ({}, "unknown"),
        ({"id": None}, "unknown"),
        ({"id": ""}, "unknown"),
        ({"id": "u1"}, "u1"),
        ({"id": 7}, "7"),
        ({"id": "../../etc\x00\ud800"}, "../../etc\x00\ud800"),
    ],
    ids=ascii,
)
def test_order_names_the_person_or_nobody(user: dict[str, Any] | None, person: str) -> None:
    assert run_order("python", "print(1)", None, user, surface="tool").person == person


@pytest.mark.parametrize("valves", [None, "text", 7, [1], {}], ids=str)
def test_order_of_valves_that_are_none_holds_none(valves: object) -> None:
    order = run_order("python", "print(1)", valves, {"id": "u1", "valves": valves}, surface="tool")

    assert (order.untrusted_admin_valves, order.untrusted_person_valves) == ({}, {})


def test_order_names_who_asks_but_for_their_groups() -> None:
    user = {"id": "u1", "role": "user", "groups": ["staff"]}

    order = run_order("python", "print(1)", None, user, surface="function", model="llama")

    assert order.requester == Requester(role="user", user="u1", model="llama", surface="function")


async def groups_of_students(user: str) -> list[SimpleNamespace]:
    """As Open WebUI answers; everybody but u2 is a student."""
    return [] if user == "u2" else [SimpleNamespace(id="g-1", name="students")]


async def no_groups_told(_user: str) -> None:
    raise ConnectionError("the database is away")


BASH_ONLY = {"languages": ["bash"]}


@pytest.mark.parametrize(
    "scope",
    [
        {"match": {"groups": ["students"]}},
        {"match": {"groups": ["g-1"]}},
        {"match": {"roles": ["user"]}},
        {"match": {"users": ["u1"]}},
        {"match": {"surface": "tool"}},
        {"match": {"models": ["llama"]}},
        {"except": {"groups": ["staff"]}},
        {"match": {"groups": ["students"], "roles": ["user"]}, "except": {"users": ["u2"]}},
    ],
    ids=str,
)
async def test_scope_for_this_person_holds(scope: dict[str, Any], tmp_path: Path, events: Events) -> None:
    environ = scoped_variables(tmp_path, {**scope, "limits": BASH_ONLY})
    order = run_order("python", "1", None, {"id": "u1", "role": "user"}, surface="tool", model="llama")

    await PluginHost(environ, groups_of_students).run(order, events)

    assert "python is not among the permitted languages" in events.descriptions[-1]


@pytest.mark.parametrize(
    "scope",
    [
        {"match": {"groups": ["students", "g-1"]}},
        {"match": {"roles": ["user"]}},
        {"match": {"users": ["u1"]}},
        {"match": {"surface": "tool"}},
        {"match": {"models": ["mistral"]}},
        {"except": {"roles": ["admin"]}},
        {"match": {"roles": ["admin"], "groups": ["students"]}},
    ],
    ids=str,
)
async def test_scope_for_others_does_not_hold(scope: dict[str, Any], tmp_path: Path, events: Events) -> None:
    environ = scoped_variables(tmp_path, {**scope, "limits": BASH_ONLY})
    order = run_order("python", "a\x00b", None, {"id": "u2", "role": "admin"}, surface="function", model="llama")

    await PluginHost(environ, groups_of_students).run(order, events)

    assert "NUL" in events.descriptions[-1]  # what is refused next, in a language that may run


@pytest.mark.parametrize("scope", [{"match": {"groups": ["students"]}}, {"except": {"groups": ["staff"]}}], ids=str)
async def test_groups_that_open_webui_does_not_tell_meet_every_scope_about_groups(
    scope: dict[str, Any], tmp_path: Path, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    host = PluginHost(scoped_variables(tmp_path, {**scope, "limits": BASH_ONLY}), no_groups_told)
    order = run_order("python", "1", None, {"id": "u2"}, surface="tool")

    with caplog.at_level(logging.WARNING, LOGGER_NAME):
        await host.run(order, events)
        await host.run(order, events)

    assert "python is not among the permitted languages" in events.descriptions[-1]
    of_groups = [record for record in caplog.records if "groups" in record.getMessage()]
    assert len(of_groups) == 1
    assert of_groups[0].exc_info is None


async def test_malformed_environment_runs_nothing_and_is_told(events: Events) -> None:
    end = await refused({"SANDBOX_MAX_CPUS": "many"}, order_of(), events)

    assert isinstance(end, ConfigurationError)
    assert "SANDBOX_MAX_CPUS" in events.descriptions[-1]
    assert events.descriptions[:-1] == ["Checking if environment supports sandboxing..."]


async def test_refused_policy_set_runs_nothing_and_is_told(events: Events) -> None:
    end = await refused({"SANDBOX_POLICY_REQUIRED": "true"}, order_of(), events)

    assert isinstance(end, SetRefusedError)
    assert "SANDBOX_POLICY_PATH" in events.descriptions[-1]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (order_of("a\x00b"), "NUL"),
        (order_of("\ud800"), "surrogate"),
        (order_of("#" * 10_000_000), "more than 1048576"),
        (order_of(language="cobol\x1b[31m"), "'cobol?[31m' cannot run here"),
    ],
    ids=["NUL", "half a surrogate pair", "10 MB", "unknown language"],
)
async def test_code_that_no_box_could_run_is_refused_and_told(order: RunOrder, words: str, events: Events) -> None:
    end = await refused(QUIET, order, events)

    assert isinstance(end, SandboxError)
    assert words in events.descriptions[-1]


async def test_language_that_the_limits_forbid_is_refused_and_told(events: Events) -> None:
    await refused({"SANDBOX_LANGUAGES": "bash"}, order_of(), events)

    assert "SANDBOX_LANGUAGES" in events.descriptions[-1]


async def test_defect_of_ours_is_told_without_particulars_and_logged(
    events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    order = order_of(7)  # type: ignore[arg-type]  # what a model may hand over for code

    with caplog.at_level(logging.ERROR, LOGGER_NAME):
        end = await refused(QUIET, order, events)

    assert "internal error (TypeError)" in str(end)
    assert "argument of type" not in str(end)
    assert caplog.records[0].exc_info


async def test_run_without_emitter_is_told_by_its_end_alone() -> None:
    end = await PluginHost({"SANDBOX_DEBUG": "maybe"}).run(order_of(), None)

    assert isinstance(end, PolicyError)


async def test_foreign_variable_is_warned_of_once(events: Events, caplog: pytest.LogCaptureFixture) -> None:
    host = PluginHost({"SANDBOX_WHATEVER": "1"})

    with caplog.at_level(logging.WARNING, LOGGER_NAME):
        await host.run(order_of("\x00"), events)
        await host.run(order_of("\x00"), events)

    assert [record.getMessage().split()[0] for record in caplog.records] == ["SANDBOX_WHATEVER"]


def test_situation_for_descriptions_is_what_holds_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_CPUS", "0.25")

    assert situation_here().limits().values["max_cpus"] == 0.25


def test_situation_for_descriptions_is_the_error_where_nothing_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAX_CPUS", "")

    assert isinstance(situation_or_error(), ConfigurationError)


@pytest.mark.gvisor
@pytest.mark.usefixtures("boxes")
async def test_run_whose_person_is_gone_still_comes_to_its_end() -> None:
    async def emit_to_nobody(_event: dict[str, Any]) -> None:
        raise ConnectionError("the browser has left")

    end = await PluginHost({**os.environ, **QUIET}).run(order_of("print(6 * 7)"), emit_to_nobody)

    assert end_json(end)["output"] == "42\n"


def test_key_path_that_no_system_takes_still_lets_the_plugin_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_POLICY_KEYS", "/" + "x" * 5_000)

    situation = situation_or_error()

    assert isinstance(situation, PolicyError)
    assert "longer than the system permits" in str(situation)
