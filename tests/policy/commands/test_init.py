"""`policy init`: a policy file to begin from, on standard output or new on disk, and what to do next."""

import json
import re
import shlex
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policy.profiles import PROFILES
from policy.starters import checked_starter
from tests.policy.commands.conftest import GOLDENS, Command

NAMED = ("--audience", "prod-eu", "--owner", "ops@acme.example")
EVERY_PROFILE = pytest.mark.parametrize("profile", PROFILES)


def arguments_for(profile: str) -> tuple[str, ...]:
    return ("init", "--profile", profile, *(NAMED if profile == "production" else ()))


def test_help_of_init_is_golden(policy: Command) -> None:
    assert policy.good("init", "--help") == (GOLDENS / "help-init.txt").read_text()


def test_help_names_every_profile(policy: Command) -> None:
    shown = policy.good("init", "--help")

    for name in PROFILES:
        assert re.search(rf"^    {name}  +\w", shown, re.MULTILINE)


@EVERY_PROFILE
def test_standard_output_is_the_policy_and_nothing_else(policy: Command, profile: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0)

    ended = policy(*arguments_for(profile))

    document = checked_starter(ended.out)
    assert ended.code == 0
    assert (document.policy_id, document.serial) == (profile, 1)
    assert before <= document.issued_at <= datetime.now(UTC)
    assert document.expires_at - document.issued_at == timedelta(days=90)
    golden = (GOLDENS / f"starter-{profile}.toml").read_text()
    dates = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?")
    assert dates.sub("DATE", ended.out) == dates.sub("DATE", golden)


@EVERY_PROFILE
def test_started_policy_is_signed_verified_and_explained_as_it_says(policy: Command, profile: str) -> None:
    """The next steps that it prints, as they are printed."""
    ended = policy(*arguments_for(profile), "--output", "my prod.toml")
    steps = [line.partition("  #")[0].strip() for line in ended.out.splitlines() if line.startswith("  policy ")]

    assert (ended.code, ended.err) == (0, "")
    assert [shlex.split(step)[1] for step in steps] == ["schema", "explain", "lint", "keygen", "sign", "verify"]
    for step in steps:
        command = shlex.split(step.partition(" > ")[0])[1:]
        assert policy(*command).code == 0, step


@EVERY_PROFILE
def test_file_is_new_and_readable_by_all(policy: Command, profile: str) -> None:
    ended = policy(*arguments_for(profile), "--output", "new.toml")

    assert ended.out.startswith(f"Wrote new.toml ({profile}, serial 1, until ")
    assert checked_starter(Path("new.toml").read_text()).policy_id == profile
    assert stat.S_IMODE(Path("new.toml").stat().st_mode) == 0o644


def test_file_that_exists_is_never_overwritten(policy: Command) -> None:
    before = Path("acme.toml").read_bytes()

    ended = policy("init", "--profile", "classroom", "--output", "acme.toml")

    assert (ended.code, ended.out) == (1, "")
    assert "acme.toml: new file: it exists already, and is not overwritten" in ended.err
    assert Path("acme.toml").read_bytes() == before


def test_file_in_a_folder_that_is_not_there_is_refused(policy: Command) -> None:
    ended = policy("init", "--profile", "classroom", "--output", "nowhere/new.toml")

    assert (ended.code, ended.out) == (1, "")
    assert "nowhere/new.toml" in ended.err


def test_next_steps_stand_beside_a_policy_on_standard_output(policy: Command) -> None:
    ended = policy(*arguments_for("production"), "--audience", "prod-us")

    assert ended.err.startswith("Next:\n  policy schema > policy.schema.json ")
    assert "\n  policy lint FILE " in ended.err
    assert "\n  policy sign --key ops.key FILE " in ended.err
    assert ended.err.endswith(
        "Then, in the environment of the server:\n"
        "  SANDBOX_POLICY_PATH=/etc/sandbox/policies\n"
        "  SANDBOX_POLICY_KEYS=/etc/sandbox/keys\n"
        "  SANDBOX_POLICY_STATE=/var/lib/sandbox-policy\n"
        "  SANDBOX_POLICY_IDS=production\n"
        "  SANDBOX_INSTANCE=prod-eu\n"
    )


def test_schema_belongs_beside_the_file(policy: Command) -> None:
    Path("deep").mkdir()

    ended = policy("init", "--profile", "classroom", "--output", "deep/new.toml")

    assert "policy schema > deep/policy.schema.json " in ended.out


def test_what_people_say_stands_in_the_policy(policy: Command) -> None:
    ended = policy(
        "init", "--profile", "single-user", "--id", "my-own", "--days", "7", "--owner", 'me "myself"',
        "--audience", "laptop", "--audience", "desk", "--audience", "laptop",
    )  # fmt: skip

    document = checked_starter(ended.out)
    assert (document.policy_id, document.audience) == ("my-own", ("laptop", "desk"))
    assert document.expires_at - document.issued_at == timedelta(days=7)
    assert 'owner = "me \\"myself\\""\n' in ended.out


def test_programs_are_told_all_of_it(policy: Command) -> None:
    told = json.loads(policy.good(*arguments_for("production"), "--json", "--output", "new.toml"))

    document = checked_starter(told["text"])
    assert told["text"] == Path("new.toml").read_text()
    assert told["issued_at"] == document.issued_at.isoformat()
    assert told["expires_at"] == document.expires_at.isoformat()
    assert {key: told[key] for key in ("file", "profile", "id", "serial", "audience")} == {
        "file": "new.toml",
        "profile": "production",
        "id": "production",
        "serial": 1,
        "audience": ["prod-eu"],
    }
    assert "policy sign --key ops.key new.toml" in told["next"]
    assert told["variables"]["SANDBOX_INSTANCE"] == "prod-eu"


def test_programs_are_told_where_nothing_is_written(policy: Command) -> None:
    told = json.loads(policy.good("init", "--profile", "classroom", "--json"))

    assert told["file"] is None
    assert "SANDBOX_INSTANCE" not in told["variables"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["--owner TEXT", "--audience NAME"]),
        (("--audience", "prod-eu"), ["--owner TEXT"]),
        (("--owner", "ops"), ["--audience NAME"]),
        (("--owner", "ops", "--audience", "*"), ["--audience NAME"]),
        (("--owner", "ops", "--audience", "prod-eu", "--audience", "*"), ["--audience NAME"]),
        ((*NAMED, "--days", "91"), ["--days of at most 90"]),
        (("--days", "365"), ["--owner TEXT", "--audience NAME", "--days of at most 90"]),
    ],
    ids=lambda item: " ".join(item) or "nothing",
)
def test_production_wants_names_and_an_end(policy: Command, arguments: tuple[str, ...], words: list[str]) -> None:
    ended = policy("init", "--profile", "production", *arguments)

    assert (ended.code, ended.out) == (2, "")
    (error,) = re.findall("Error: the profile production wants (.*)", ended.err)
    assert [part.startswith(word) for part, word in zip(error.split("; "), words, strict=True)] == [True] * len(words)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--profile", "nonsense"),
        ("--profile", "classroom", "--id", "Acme"),
        ("--profile", "classroom", "--id", "../acme"),
        ("--profile", "classroom", "--id", "acme\n"),
        ("--profile", "classroom", "--id", ""),
        ("--profile", "classroom", "--owner", ""),
        ("--profile", "classroom", "--owner", " me"),
        ("--profile", "classroom", "--owner", "a\nb"),
        ("--profile", "classroom", "--owner", "a\u202eb"),
        ("--profile", "classroom", "--owner", "x" * 1_001),
        ("--profile", "classroom", "--audience", ""),
        ("--profile", "classroom", "--audience", "a\0b"),
        ("--profile", "classroom", "--days", "0"),
        ("--profile", "classroom", "--days", "3651"),
        ("--profile", "classroom", "extra"),
    ],
    ids=lambda item: ascii(" ".join(item))[:60],
)
def test_wrong_usage_of_init_writes_nothing(policy: Command, arguments: tuple[str, ...]) -> None:
    ended = policy("init", *arguments, "--output", "new.toml")

    assert (ended.code, ended.out) == (2, "")
    assert "Error: " in ended.err
    assert not Path("new.toml").exists()
