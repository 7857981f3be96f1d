"""`policy verify`: who signed, whether they are enough, and that nothing was changed since."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.policy.commands.conftest import Command


def test_verify_shows_who_signed(policy: Command, keys: tuple[str, str]) -> None:
    policy.good("sign", "--key", "ops.key", "acme.toml")

    assert policy.good("verify", "--key", "ops.pub", "acme.toml") == (
        f"acme.toml: acme-prod, serial 7: signed (1 of 1 keys given, 1 needed).\n  {keys[0]}\n"
    )


def test_verify_names_keys_that_were_not_given(policy: Command, keys: tuple[str, str]) -> None:
    for name in ("ops", "sec"):
        policy.good("sign", "--key", f"{name}.key", "acme.toml")

    shown = policy.good("verify", "--key", "ops.pub", "acme.toml")

    assert f"  {keys[1]}: not among the keys given; not checked and not counted\n" in shown


def test_verify_tells_programs_all_of_it(policy: Command, keys: tuple[str, str]) -> None:
    policy.good("sign", "--key", "ops.key", "acme.toml")

    told = json.loads(policy.good("verify", "--json", "--key", "ops.pub", "acme.toml"))

    assert re.fullmatch("[0-9a-f]{64}", told.pop("payload_sha256"))
    assert told == {
        "file": "acme.toml",
        "id": "acme-prod",
        "serial": 7,
        "trusted": [keys[0]],
        "unknown": [],
        "threshold": 1,
    }


def test_threshold_of_two_takes_two_keys(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    both = ("verify", "--key", "ops.pub", "--key", "sec.pub", "--threshold", "2", "acme.toml")
    policy.good("sign", "--key", "ops.key", "acme.toml")
    one = policy(*both)
    policy.good("sign", "--key", "sec.key", "acme.toml")
    two = policy(*both)

    assert (one.code, two.code) == (1, 0)
    assert "acme.toml: signatures: 1 of the trusted keys signed it, and 2 must" in one.err


def test_one_key_given_twice_counts_once(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    policy.good("sign", "--key", "ops.key", "acme.toml")

    ended = policy("verify", "--key", "ops.pub", "--key", "ops.pub", "--threshold", "2", "acme.toml")

    assert ended.code == 1
    assert "2 signatures are required; distinct trusted keys: 1" in ended.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("serial = 7", "serial = 8"), "the signature does not verify"),
        (lambda text: text.replace("# ed25519", "#  ed25519"), "acme.toml:19: signatures: the line is not"),
        (lambda text: text.partition("# -----BEGIN")[0], "it has no signature"),
        (lambda text: f"{text}max_cpus = 4\n", "the file does not end with END"),
    ],
    ids=["edited", "block respelt", "signatures cut off", "text after the block"],
)
def test_changed_file_is_not_verified(policy: Command, keys: tuple[str, str], change: Any, words: str) -> None:  # noqa: ANN401 -- a function
    assert keys
    policy.good("sign", "--key", "ops.key", "acme.toml")
    path = Path("acme.toml")
    path.write_text(change(path.read_text()))

    ended = policy("verify", "--key", "ops.pub", "acme.toml")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: acme.toml")
    assert words in ended.err
