"""`policy status`: each standing in words and in JSON, its exit code, and how an id is forgotten."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policy.environment import read_environment
from policy.keys import load_private_key
from policy.live import LivePolicy, current_moment
from policy.load import trusted_reader
from policy.signatures import add_signature
from policy.state_folder import STATE_NAME
from tests.policy.commands.conftest import GOLDENS, POLICY, Command

LONG_AGO = datetime(2020, 6, 1, tzinfo=UTC)
OLD = POLICY.replace("9999-", "2021-")
EXTRA = POLICY.replace("acme-prod", "acme-extra").replace("serial = 7", "serial = 3")


class Place:
    """An instance with a folder of policies, keys and a state folder, and the command that looks at it."""

    def __init__(self, command: Command, environ: pytest.MonkeyPatch) -> None:
        self.command = command
        self.environ = environ
        self.here = Path.cwd()
        self.policies, self.state = self.here / "policies", self.here / "state"
        self.policies.mkdir()
        for name, path in (("POLICY_PATH", self.policies), ("POLICY_KEYS", "ops.pub"), ("POLICY_STATE", self.state)):
            environ.setenv(f"SANDBOX_{name}", str(self.here / path))

    def ship(self, text: str, name: str = "a.toml") -> None:
        """Put a signed policy there, which may be one that has expired since: `policy sign` would refuse that now."""
        key = load_private_key(Path("ops.key").read_bytes(), "ops.key")
        (self.policies / name).write_bytes(add_signature(text.encode(), key, origin=name))

    def run(self, now: datetime | None = None) -> None:
        """Do what every run does first: ask what holds, so that it is remembered."""
        live = LivePolicy(
            read_environment(os.environ), reader=trusted_reader(), now=(lambda: now) if now else current_moment
        )
        live.standing()

    def told(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        ended = self.command("status", "--json", *arguments)
        assert (ended.code, ended.err) == (code, "")
        told: dict[str, Any] = json.loads(ended.out)
        return told

    def normal(self, text: str) -> str:
        """The text without what differs from place to place and from second to second."""
        for pattern, words in (
            (re.escape(str(self.here)), "/here"),
            (r"sha256:[0-9a-f]{64}", "sha256:OPS"),
            (r"it is now \S+Z?\.", "it is now NOW."),
            (r"From 2\d[2-9]\d-(?!01-02T)\S+ on", "From THEN on"),
        ):
            text = re.sub(pattern, words, text)
        return text


@pytest.fixture
def place(policy: Command, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Place:
    assert keys
    return Place(policy, monkeypatch)


def good(place: Place) -> None:
    place.ship(POLICY)
    place.run()


def last_good(place: Place) -> None:
    good(place)
    place.ship(EXTRA, "b.toml")
    place.run()
    (place.policies / "b.toml").unlink()


def locked_down(place: Place) -> None:
    place.ship(OLD)
    place.run(LONG_AGO)


def refused(place: Place) -> None:
    (place.policies / "a.toml").write_text(POLICY)


def none(place: Place) -> None:
    for name in ("SANDBOX_POLICY_PATH", "SANDBOX_POLICY_KEYS", "SANDBOX_POLICY_STATE"):
        place.environ.delenv(name)


STANDINGS = {"good": good, "last-good": last_good, "locked-down": locked_down, "refused": refused, "none": none}


@pytest.mark.parametrize(("standing", "arrange"), STANDINGS.items(), ids=STANDINGS)
def test_each_standing_in_words_is_golden(place: Place, standing: str, arrange: Callable[[Place], None]) -> None:
    arrange(place)

    ended = place.command("status")

    golden = GOLDENS / f"status-{standing}.txt"
    if os.environ.get("WRITE_GOLDENS"):
        golden.write_text(place.normal(ended.out))
    assert place.normal(ended.out) == golden.read_text()
    assert ended.code == (0 if standing in {"good", "none"} else 1)
    assert ended.err == ""


@pytest.mark.parametrize(
    ("standing", "code", "serials"),
    [
        ("good", None, [7]),
        ("last-good", "id-gone", [7, 3]),
        ("locked-down", "expired", [7]),
        ("refused", "signature-invalid", []),
        ("none", None, []),
    ],
)
def test_each_standing_in_json(place: Place, standing: str, code: str | None, serials: list[int]) -> None:
    STANDINGS[standing](place)

    told = place.told(code=0 if standing in {"good", "none"} else 1)

    assert (told["standing"], told["code"]) == (standing, code)
    assert [each["serial"] for each in told["policies"]] == serials
    assert bool(told["problems"]) == bool(code)
    assert (told["until"] is None) == (standing in {"refused", "none"})


def test_json_tells_programs_all_of_it(place: Place) -> None:
    locked_down(place)
    place.run()

    told = place.told(code=1)

    assert told["until"] == "2021-01-02T00:00:00+00:00"
    (document,) = told["policies"]
    assert document["file"] == f"{place.policies}/a.toml (as last accepted)"
    assert re.fullmatch("sha256:[0-9a-f]{64}", document["signed_by"][0])
    assert document["expires_at"] == "2021-01-01T00:00:00+00:00"
    assert told["remembered"]["policies"] == [{"id": "acme-prod", "serial": 7, "retired_by": None}]
    assert told["remembered"]["newest_issued_at"] == "2020-01-01T00:00:00+00:00"
    assert told["remembered"]["first_refusal"]["code"] == "expired"
    assert told["state"] == str(place.state)


def test_looking_leaves_no_trace(place: Place) -> None:
    place.ship(POLICY)
    place.told()
    assert not place.state.exists()
    place.run()
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.state.iterdir()}
    (place.policies / "a.toml").write_text("garbage")
    place.told(code=1)

    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.state.iterdir()} == before


def test_environment_that_loosens_a_policy_is_said(place: Place) -> None:
    good(place)
    place.environ.setenv("SANDBOX_MAX_CPUS", "2")

    said = f"SANDBOX_MAX_CPUS loosens max_cpus past acme-prod serial 7 ({place.policies}/a.toml:17): 2 CPUs instead of"
    assert place.told()["notices"] == [f"{said} 0.5 CPUs."]
    assert f"note: {said} 0.5 CPUs.\n" in place.command("status").out


def test_environment_that_would_loosen_a_policy_which_does_not_let_it_is_said(place: Place) -> None:
    place.ship(POLICY + "env_may_loosen = false\n")
    place.environ.setenv("SANDBOX_MAX_CPUS", "2")

    (notice,) = place.told()["notices"]
    assert "does not let it loosen the policy, and 0.5 CPUs holds" in notice


def test_variables_of_a_file_take_the_place_of_the_environment(place: Place) -> None:
    good(place)
    Path("other.env").write_text("SANDBOX_MAX_CPUS=1\n")

    assert place.told("--env-file", "other.env")["standing"] == "none"


def test_foreign_variable_is_warned_of(place: Place) -> None:
    place.environ.setenv("SANDBOX_OTHER_PRODUCT", "x")

    ended = place.command("status")

    assert ended.err.startswith("warning: ")
    assert "SANDBOX_OTHER_PRODUCT" in ended.err


def test_help_is_golden(policy: Command) -> None:
    assert policy.good("status", "--help") == (GOLDENS / "help-status.txt").read_text()


# What an older serial could still do


def test_without_state_or_least_serial_the_set_is_rollback_unprotected(place: Place) -> None:
    place.ship(POLICY)
    place.environ.delenv("SANDBOX_POLICY_STATE")

    assert place.told()["rollback_unprotected"] == ["acme-prod"]
    assert "Set SANDBOX_POLICY_STATE, or raise SANDBOX_POLICY_MIN_SERIAL." in place.command("status").out


@pytest.mark.parametrize(("least", "unprotected"), [("6", ["acme-prod"]), ("7", [])])
def test_least_serial_protects_only_where_it_reaches_the_policy_s_own(
    place: Place, least: str, unprotected: list[str]
) -> None:
    place.ship(POLICY)
    place.environ.delenv("SANDBOX_POLICY_STATE")
    place.environ.setenv("SANDBOX_POLICY_MIN_SERIAL", f"acme-prod={least}")

    assert place.told()["rollback_unprotected"] == unprotected


def test_state_protects_once_a_run_has_accepted_the_policy(place: Place) -> None:
    place.ship(POLICY)
    assert place.told()["rollback_unprotected"] == ["acme-prod"]
    place.run()

    assert place.told()["rollback_unprotected"] == []


@pytest.mark.parametrize("damage", ["garbage", "others may read it", "folder is a file", "parent is missing"])
def test_state_that_runs_would_refuse_is_refused_here_too(place: Place, damage: str) -> None:
    good(place)
    match damage:
        case "garbage":
            (place.state / STATE_NAME).write_text("{}")
        case "others may read it":
            place.state.chmod(0o755)
        case "folder is a file":
            place.environ.setenv("SANDBOX_POLICY_STATE", str(place.policies / "a.toml"))
        case _:
            place.environ.setenv("SANDBOX_POLICY_STATE", str(place.here / "no" / "state"))

    told = place.told(code=1)

    assert (told["standing"], told["code"]) == ("refused", "state-invalid")


# Forgetting


def test_forgotten_id_may_be_gone(place: Place) -> None:
    last_good(place)

    ended = place.command("status", "--forget", "acme-extra")

    assert ended.code == 0
    assert ended.err == "Forgot acme-extra: any serial of it would be accepted, and it may be gone.\n"
    assert ended.out.startswith("The policy set holds.\n")
    place.run()
    assert [each["id"] for each in place.told()["remembered"]["policies"]] == ["acme-prod"]


def test_forgotten_id_is_said_to_be_unprotected_until_a_run_accepts_it(place: Place) -> None:
    good(place)

    ended = place.command("status", "--forget", "acme-prod", "--json")

    assert json.loads(ended.out)["rollback_unprotected"] == ["acme-prod"]


def test_forgetting_changes_nothing_else(place: Place) -> None:
    last_good(place)
    place.run()
    before = json.loads((place.state / STATE_NAME).read_text())
    place.command("status", "--forget", "acme-extra")

    after = json.loads((place.state / STATE_NAME).read_text())
    del before["policies"]["acme-extra"], before["sha256"], after["sha256"]
    assert after == before


def test_forgetting_what_is_not_remembered_names_what_is(place: Place) -> None:
    good(place)

    ended = place.command("status", "--forget", "acme")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"error: {place.state}: acme: it is not remembered. Remembered are: acme-prod.\n"


def test_forgetting_where_nothing_was_ever_remembered_makes_no_folder(place: Place) -> None:
    ended = place.command("status", "--forget", "acme-prod")

    assert (ended.code, "Remembered are: none" in ended.err) == (1, True)
    assert not place.state.exists()


def test_forgetting_without_a_state_folder_is_wrong_usage(place: Place) -> None:
    place.environ.delenv("SANDBOX_POLICY_STATE")

    ended = place.command("status", "--forget", "acme-prod")

    assert (ended.code, ended.out) == (2, "")
    assert "SANDBOX_POLICY_STATE is not set, so nothing is remembered" in ended.err


def test_forgetting_in_a_damaged_state_is_refused(place: Place) -> None:
    good(place)
    (place.state / STATE_NAME).write_text("garbage")

    ended = place.command("status", "--forget", "acme-prod")

    assert ended.code == 1
    assert "it is damaged" in ended.err
    assert (place.state / STATE_NAME).read_text() == "garbage"


# What others wrote


def test_name_of_a_file_cannot_write_on_the_terminal(place: Place) -> None:
    good(place)
    (place.policies / "\x1b[31m\u202e[bold]x\n.toml").write_text("garbage")

    out = place.command("status").out

    assert "\x1b" not in out
    assert "\u202e" not in out
    assert r"\x1b[31m\u202e[bold]x" in out


def test_a_signature_of_a_key_that_is_not_trusted_here_is_reported_and_not_counted(
    place: Place, keys: tuple[str, str]
) -> None:
    place.ship(POLICY)
    place.command.good("sign", "--key", "sec.key", "policies/a.toml")

    [document] = place.told()["policies"]
    ended = place.command("status")

    assert (document["signed_by"], document["unknown_keys"]) == ([keys[0]], [keys[1]])
    assert f"  not counted, since that key is not trusted here: {keys[1]}\n" in ended.out
