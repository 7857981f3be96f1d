"""`policy sign`: one line more and every other byte as it was; what is no policy is not signed."""

import json
import re
import stat
from pathlib import Path

import pytest

from tests.policy.commands.conftest import POLICY, Command, signature_lines


def test_sign_adds_one_line_and_leaves_the_text_as_it_is(policy: Command, keys: tuple[str, str]) -> None:
    shown = policy.good("sign", "--key", "ops.key", "acme.toml")

    assert shown == f"Signed acme.toml (acme-prod, serial 7) with {keys[0]}.\n"
    text, _, block = Path("acme.toml").read_text().partition("# -----BEGIN POLICY SIGNATURES-----\n")
    assert text == POLICY
    assert re.fullmatch(rf"# ed25519 {keys[0]} \S{{88}}\n# -----END POLICY SIGNATURES-----\n", block)


def test_signing_twice_with_one_key_changes_nothing(policy: Command, keys: tuple[str, str]) -> None:
    policy.good("sign", "--key", "ops.key", "acme.toml")
    once = Path("acme.toml").read_bytes()
    policy.good("sign", "--key", "ops.key", "acme.toml")

    assert Path("acme.toml").read_bytes() == once
    assert [line.split()[2] for line in signature_lines()] == [keys[0]]


def test_two_keys_stand_sorted_whatever_their_order(policy: Command, keys: tuple[str, str]) -> None:
    Path("other.toml").write_text(POLICY)
    for path, names in (("acme.toml", ("ops", "sec")), ("other.toml", ("sec", "ops"))):
        for name in names:
            policy.good("sign", "--key", f"{name}.key", path)

    assert Path("acme.toml").read_bytes() == Path("other.toml").read_bytes()
    assert [line.split()[2] for line in signature_lines()] == sorted(keys)


def test_sign_keeps_the_mode_of_the_file(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    Path("acme.toml").chmod(0o640)
    policy.good("sign", "--key", "ops.key", "acme.toml")

    assert stat.S_IMODE(Path("acme.toml").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (POLICY.replace("max_cpus", "max_cpu"), "acme.toml:16: limits.max_cpu: there is no such key"),
        (POLICY.replace("serial = 7", 'serial = "7"'), "acme.toml:3: serial:"),
        (POLICY.replace("[limits]", "[limits"), "acme.toml:8: the file: it is not TOML"),
        (POLICY.replace("\n", "\r\n"), "acme.toml:1: policy file: it holds a carriage return"),
        (POLICY.rstrip("\n"), "acme.toml: policy file: it does not end in a line feed"),
        (POLICY + "# -----BEGIN POLICY SIGNATURES-----\n", "acme.toml: signatures: the marker"),
        ("", "acme.toml:1: the file: it lacks schema"),
        (f"{POLICY}#{'x' * 70_000}\n", "acme.toml: policy file: it is larger than 65536 bytes"),
    ],
    ids=[
        "unknown key",
        "wrong type",
        "no TOML",
        "carriage returns",
        "no last line feed",
        "marker",
        "empty",
        "too large",
    ],
)
def test_file_that_is_no_policy_is_not_signed(policy: Command, keys: tuple[str, str], text: str, words: str) -> None:
    assert keys
    Path("acme.toml").write_bytes(text.encode())

    ended = policy("sign", "--key", "ops.key", "acme.toml")

    assert (ended.code, ended.out) == (1, "")
    assert words in ended.err
    assert Path("acme.toml").read_bytes() == text.encode()


def test_all_problems_of_a_file_are_told_each_in_its_line(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    Path("acme.toml").write_text(POLICY.replace("ceiling = 0.5", 'ceiling = "half"\ncieling = 1').replace("7", "0"))

    ended = policy("sign", "--key", "ops.key", "acme.toml")

    lines = sorted(ended.err.splitlines())
    assert [line.split(": ")[1] for line in lines] == ["acme.toml:17", "acme.toml:18", "acme.toml:3"]
    assert lines[1].endswith("there is no such key. You may have meant ceiling.")


def test_key_that_others_can_read_signs_nothing(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    Path("ops.key").chmod(0o644)

    ended = policy("sign", "--key", "ops.key", "acme.toml")

    assert ended.code == 1
    assert "others than its owner may use it (mode 0644). Take that away: chmod 600 " in ended.err
    assert signature_lines() == []


def test_public_key_cannot_sign(policy: Command, keys: tuple[str, str]) -> None:
    assert keys

    ended = policy("sign", "--key", "ops.pub", "acme.toml")

    assert ended.code == 2
    assert "ops.pub is a public key; sign with the private one, NAME.key" in ended.err
    assert signature_lines() == []


def test_private_key_cannot_verify_and_is_not_shown(policy: Command, keys: tuple[str, str]) -> None:
    assert keys
    policy.good("sign", "--key", "ops.key", "acme.toml")

    ended = policy("verify", "--key", "ops.key", "acme.toml")

    assert ended.code == 1
    assert "it is a private key. Name the public key (NAME.pub) here" in ended.err
    assert Path("ops.key").read_text().splitlines()[1] not in ended.err


@pytest.mark.parametrize(
    "content", ["", "nonsense\n", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_file_that_is_no_key_is_refused(policy: Command, content: str) -> None:
    Path("ops.key").write_text(content)
    Path("ops.key").chmod(0o600)

    assert policy("sign", "--key", "ops.key", "acme.toml").code == 1
    assert policy("verify", "--key", "ops.key", "acme.toml").code == 1


def test_signing_tells_programs_what_was_signed_and_by_whom(policy: Command, keys: tuple[str, str]) -> None:
    policy.good("sign", "--key", "ops.key", "acme.toml")

    told = json.loads(policy.good("sign", "--json", "--key", "sec.key", "acme.toml"))

    assert (told["file"], told["id"], told["serial"]) == ("acme.toml", "acme-prod", 7)
    assert told["signed_by"] == sorted(keys)
    assert told["key_id"] == keys[1]
    assert len(told["payload_sha256"]) == 64
