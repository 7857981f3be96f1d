"""Who asks: the server's own record is believed, what a client claims is not, and no failure of a look-up loosens."""

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from plugins.people import GroupRegister, answering_model, open_webui_groups, requester_of
from policy.requester import Requester

NOT_TOLD = "Open WebUI does not tell people's groups, so every policy scope about groups holds: "


@dataclass(frozen=True)
class Group:
    """As much of Open WebUI's record of a group as matters here."""

    id: Any
    name: Any


STUDENTS = Group("g-1", "students")


@dataclass
class Source:
    """Answers a question for groups as told, one answer after the other; an exception is raised."""

    answers: list[Any]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, user: str) -> Any:  # noqa: ANN401 -- as odd as it is told to be
        self.asked.append(user)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@dataclass
class Register:
    """A register with everything that it said."""

    source: Any
    deadline_seconds: float = 5.0
    said: list[str] = field(default_factory=list)

    async def asked(self, *users: str | None) -> list[frozenset[str] | None]:
        register = GroupRegister(self.source, self.said.append, self.deadline_seconds)
        return [await register.groups(user) for user in users]


def metadata_of(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 -- any JSON
    """What Open WebUI tells a tool of a chat that has just begun with the model `llama`."""
    kept = {
        "direct": False,
        "model_id": "llama",
        "model": {"id": "llama", "name": "Llama"},
        "assistant_message_id": None,
        "params": {"function_calling": "native", "tool_approval_mode": "full"},
        "chat_id": "c1",
    }
    return kept | changes


LEGACY = {"function_calling": "legacy"}

# Role and user


def test_person_is_who_the_servers_record_says() -> None:
    user = {"id": "u1", "role": "user", "name": "Uma", "groups": ["staff"], "model": "llama", "surface": "function"}

    assert requester_of(user, surface="tool") == Requester(role="user", user="u1", surface="tool")


def test_model_that_the_server_knows_is_passed_on() -> None:
    assert requester_of({}, surface="tool", model="llama") == Requester(model="llama", surface="tool")


@pytest.mark.parametrize("odd", [None, "", 7, ["admin"], {"a": 1}, True, b"admin"], ids=repr)
def test_attribute_that_is_no_text_is_undetermined(odd: object) -> None:
    assert requester_of({"id": odd, "role": odd}, surface="function") == Requester(surface="function")


@pytest.mark.parametrize("user", [None, "u1", 7, ["id"], [("id", "u1")]], ids=repr)
def test_person_of_whom_there_is_no_record_is_undetermined(user: object) -> None:
    assert requester_of(user, surface="tool") == Requester(surface="tool")


# Model


def test_model_of_a_chat_that_has_just_begun_is_the_one_the_request_goes_to() -> None:
    assert answering_model(metadata_of(), {"id": "llama"}) == "llama"


def test_model_for_the_servers_own_tasks_is_not_taken_for_the_one_that_answers() -> None:
    assert answering_model(metadata_of(), {"id": "task-model"}) == "llama"


def test_second_of_two_models_side_by_side_is_known() -> None:
    assert answering_model(metadata_of(model_id="mistral"), {"id": "mistral"}) == "mistral"


def test_model_of_a_direct_connection_is_a_claim_of_the_browser() -> None:
    assert answering_model(metadata_of(direct=True), {"id": "llama"}) is None


@pytest.mark.parametrize("truth", [1, "yes", None, 0], ids=repr)
def test_direct_that_is_not_plainly_false_counts_as_direct(truth: object) -> None:
    assert answering_model(metadata_of(direct=truth), {"id": "llama"}) is None


@pytest.mark.parametrize(
    "changes",
    [{"assistant_message_id": "m1"}, {"params": LEGACY}, {"params": {"function_calling": "default"}}],
    ids=["continued chat", "legacy mode", "unknown mode"],
)
class TestCallThatNoModelNeedHaveMade:
    """In these the server carries out calls before it checks that the person may use the model."""

    def test_model_is_known_where_the_server_checked_it_at_the_start(self, changes: dict[str, Any]) -> None:
        assert answering_model(metadata_of(**changes), {"id": "llama"}) == "llama"

    def test_model_slipped_in_beside_the_checked_one_is_undetermined(self, changes: dict[str, Any]) -> None:
        assert answering_model(metadata_of(model_id="staff-only", **changes), {"id": "staff-only"}) is None

    def test_call_that_a_task_model_may_have_made_is_undetermined(self, changes: dict[str, Any]) -> None:
        assert answering_model(metadata_of(**changes), {"id": "task-model"}) is None

    @pytest.mark.parametrize("task_model", [None, {}, {"id": None}, "llama", ["llama"]], ids=repr)
    def test_task_model_that_is_not_told_is_undetermined(self, changes: dict[str, Any], task_model: object) -> None:
        assert answering_model(metadata_of(**changes), task_model) is None


@pytest.mark.parametrize("missing", ["direct", "model_id", "model", "assistant_message_id", "params"])
def test_metadata_of_another_shape_tells_no_model(missing: str) -> None:
    metadata = metadata_of()
    del metadata[missing]

    assert answering_model(metadata, {"id": "llama"}) is None


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "llama",
        [],
        {},
        metadata_of(model_id=""),
        metadata_of(model_id=None),
        metadata_of(model_id=["llama"]),
        metadata_of(model="llama"),
        metadata_of(params=None),
    ],
    ids=repr,
)
def test_odd_metadata_tells_no_model(metadata: object) -> None:
    assert answering_model(metadata, {"id": "llama"}) is None


# Groups


async def test_groups_are_known_by_id_and_by_name() -> None:
    source = Source([[STUDENTS, Group("g-2", "Klasse 7b ✓")]])

    assert await Register(source).asked("u1") == [frozenset({"g-1", "students", "g-2", "Klasse 7b ✓"})]
    assert source.asked == ["u1"]


async def test_person_in_no_group_is_known_to_be_in_none() -> None:
    register = Register(Source([[]]))

    assert await register.asked("u1") == [frozenset()]
    assert register.said == []


async def test_groups_of_nobody_are_undetermined_without_asking() -> None:
    source = Source([[STUDENTS]])
    register = Register(source)

    assert await register.asked(None) == [None]
    assert (source.asked, register.said) == ([], [])


async def test_change_of_membership_is_seen_at_the_next_question() -> None:
    source = Source([[STUDENTS], []])

    assert await Register(source).asked("u1", "u1") == [frozenset({"g-1", "students"}), frozenset()]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ModuleNotFoundError("No module named 'open_webui'"), "ModuleNotFoundError: No module named 'open_webui'"),
        (RuntimeError("database\nis locked\x1b[31m"), "RuntimeError: database is locked"),
        (KeyError("u1"), "KeyError: 'u1'"),
        (TimeoutError(), "no answer within 5 seconds"),
        (None, "TypeError: it answered NoneType, not a list of groups"),
        ({"g-1": STUDENTS}, "TypeError: it answered dict, not a list of groups"),
        ("students", "TypeError: it answered str, not a list of groups"),
        ([STUDENTS, None], "AttributeError: 'NoneType' object has no attribute 'id'"),
        ([Group("g-1", None)], "TypeError: it answered groups whose id or name is no text"),
        ([Group(7, "students")], "TypeError: it answered groups whose id or name is no text"),
        ([Group("g-1", ["staff"])], "TypeError: it answered groups whose id or name is no text"),
    ],
    ids=repr,
)
async def test_failed_question_leaves_groups_undetermined_and_says_why_once(answer: object, reason: str) -> None:
    register = Register(Source([answer]))

    assert await register.asked("u1", "u2", "u1") == [None, None, None]
    assert register.said == [NOT_TOLD + reason]


async def test_failure_is_said_again_after_an_answer_and_where_it_is_another() -> None:
    register = Register(Source([OSError("one"), [], OSError("two"), OSError("three"), ValueError("four")]))

    await register.asked("u1", "u1", "u1", "u1", "u1")

    assert register.said == [f"{NOT_TOLD}OSError: one", f"{NOT_TOLD}OSError: two", f"{NOT_TOLD}ValueError: four"]


async def test_reason_of_any_length_is_one_short_line() -> None:
    register = Register(Source([RuntimeError("x" * 100_000 + "\n" + "y")]))

    await register.asked("u1")

    assert len(register.said[0]) < 400
    assert "\n" not in register.said[0]


async def test_answer_that_does_not_come_is_waited_for_no_longer_than_the_deadline() -> None:
    async def never(_user: str) -> None:
        await asyncio.sleep(3600)

    register = Register(never, deadline_seconds=0.05)
    before = time.monotonic()

    assert await register.asked("u1") == [None]
    assert time.monotonic() - before < 2
    assert register.said == [f"{NOT_TOLD}no answer within 0.05 seconds"]


async def test_stop_while_groups_are_asked_for_stops() -> None:
    begun = asyncio.Event()

    async def never(_user: str) -> None:
        begun.set()
        await asyncio.sleep(3600)

    register = Register(never)
    task = asyncio.create_task(register.asked("u1"))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert register.said == []


# Open WebUI's own model of groups, in the shapes that it has had


class NestedGroups:
    """As in 0.12.4."""

    async def get_groups_by_member_id(
        self, user_id: str, db: object = None, *, include_inherited: bool = False
    ) -> list[Group]:
        assert (user_id, db) == ("u1", None)
        return [STUDENTS, Group("g-0", "school")] if include_inherited else [STUDENTS]


class FlatGroups:
    """As before groups could be nested."""

    async def get_groups_by_member_id(self, user_id: str, db: object = None) -> list[Group]:
        assert (user_id, db) == ("u1", None)
        return [STUDENTS]


class SynchronousGroups:
    """As before 0.12: it keeps the thread that calls it."""

    def get_groups_by_member_id(self, user_id: str) -> list[Group]:
        assert user_id == "u1"
        time.sleep(0.3)
        return [STUDENTS]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Put a module in place of Open WebUI's own, which the project's environment does not have."""

    def put(groups: object) -> None:
        for name in ("open_webui", "open_webui.models"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        module = ModuleType("open_webui.models.groups")
        module.Groups = groups  # type: ignore[attr-defined]  # what the real one has
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


@pytest.mark.parametrize(
    ("groups", "known"),
    [
        (NestedGroups(), {"g-1", "students", "g-0", "school"}),
        (FlatGroups(), {"g-1", "students"}),
        (SynchronousGroups(), {"g-1", "students"}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_open_webuis_own_groups_are_asked_for(
    install: Callable[[object], None], groups: object, known: set[str]
) -> None:
    install(groups)

    assert await Register(open_webui_groups).asked("u1") == [frozenset(known)]


async def test_synchronous_answer_keeps_nobody_else_waiting(install: Callable[[object], None]) -> None:
    install(SynchronousGroups())
    asking = asyncio.create_task(open_webui_groups("u1"))
    turns = 0

    while not asking.done():
        await asyncio.sleep(0.01)
        turns += 1

    assert turns > 5


@pytest.mark.parametrize(
    "groups", [None, object(), type("Renamed", (), {"groups_of": None})()], ids=["nothing", "object", "renamed"]
)
async def test_open_webui_of_another_shape_leaves_groups_undetermined(
    install: Callable[[object], None], groups: object
) -> None:
    install(groups)
    register = Register(open_webui_groups)

    assert await register.asked("u1") == [None]
    assert "has no attribute 'get_groups_by_member_id'" in register.said[0]


async def test_outside_open_webui_groups_are_undetermined() -> None:
    register = Register(open_webui_groups)

    assert await register.asked("u1") == [None]
    assert register.said == [f"{NOT_TOLD}ModuleNotFoundError: No module named 'open_webui'"]
