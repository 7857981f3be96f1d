"""`policy keygen`: a key pair with the right modes, and nothing overwritten."""

import json
import stat
from pathlib import Path

import pytest

from tests.policy.commands.conftest import Command


def test_keygen_writes_a_secret_and_a_public_key(policy: Command) -> None:
    shown = policy.good("keygen", "ops")

    assert shown.startswith(
        "Wrote ops.key (secret; sign with it) and ops.pub (public; verify with it).\nKey id: sha256:"
    )
    assert stat.S_IMODE(Path("ops.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(Path("ops.pub").stat().st_mode) == 0o644
    assert Path("ops.key").read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert Path("ops.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----\n")
    assert Path("ops.key").read_text().splitlines()[1] not in shown


def test_keygen_keeps_dots_of_a_name(policy: Command) -> None:
    policy.good("keygen", "./ops.eu")

    assert Path("ops.eu.key").exists()
    assert Path("ops.eu.pub").exists()


@pytest.mark.parametrize("existing", ["ops.key", "ops.pub"])
def test_keygen_never_overwrites_a_key(policy: Command, existing: str) -> None:
    Path(existing).write_text("precious")

    ended = policy("keygen", "ops")

    assert ended.code == 1
    reason = "it exists already, and is not overwritten. Choose another name, or move it away."
    assert ended.err == f"error: {existing}: new file: {reason}\n"
    assert [path.name for path in Path().glob("ops.*")] == [existing]
    assert Path(existing).read_text() == "precious"


def test_keygen_into_a_folder_that_is_not_there_is_refused(policy: Command) -> None:
    ended = policy("keygen", "nowhere/ops")

    assert ended.code == 1
    assert "nowhere/ops.key" in ended.err


def test_keygen_tells_programs_the_key_id_and_never_the_key(policy: Command) -> None:
    shown = policy.good("keygen", "--json", "ops")

    told = json.loads(shown)
    assert (told["private_key"], told["public_key"]) == ("ops.key", "ops.pub")
    assert told["key_id"].startswith("sha256:")
    assert Path("ops.key").read_text().splitlines()[1] not in shown
