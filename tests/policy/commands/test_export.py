"""`policy export`: what it writes where, what it refuses, and that another tool can use it."""

import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined] # it has no __all__

from policy.dsse import document_of_envelope
from policy.main import main
from tests.policy.factories import text_of

HELP = """\
Usage: policy export [OPTIONS] FILE

  Write the signed policy FILE, its text and its signatures, in a format that
  other tools read.

  Nothing is verified here: `policy verify` does that, of the file and of the
  envelope alike.

  Examples:
    policy export --dsse prod.toml
    policy export --dsse --output prod.dsse.json prod.toml

Options:
  --dsse         As a DSSE v1 envelope, which is JSON. Required: the one
                 format there is.
  --output PATH  A new file to write to, in place of standard output.
  -h, --help     Show this message and exit.
"""


def exit_code(*arguments: str) -> int:
    try:
        main(arguments)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


@pytest.fixture
def prod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A policy file signed with ops.key, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("prod.toml").write_text(text_of({"networking_allowed": False}))
    assert exit_code("keygen", "ops") == 0
    assert exit_code("sign", "--key", "ops.key", "prod.toml") == 0
    capsys.readouterr()
    return Path("prod.toml")


def test_help_is_golden(prod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("export", "--help", str(prod)) == 0

    assert capsys.readouterr().out == HELP


def test_envelope_goes_to_standard_output_and_nothing_else(prod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("export", "--dsse", str(prod)) == 0

    captured = capsys.readouterr()
    assert document_of_envelope(captured.out.encode(), origin="-") == prod.read_bytes()
    assert captured.err == ""


def test_envelope_goes_to_a_new_file(prod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("export", "--dsse", "--output", "prod.json", str(prod)) == 0

    assert capsys.readouterr().out == "Wrote prod.json, a DSSE envelope of prod.toml.\n"
    assert document_of_envelope(Path("prod.json").read_bytes(), origin="prod.json") == prod.read_bytes()
    assert stat.S_IMODE(Path("prod.json").stat().st_mode) == 0o644


def test_securesystemslib_verifies_it_with_the_key_of_keygen(prod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("export", "--dsse", str(prod)) == 0
    theirs = Envelope.from_dict(json.loads(capsys.readouterr().out))
    public = load_pem_public_key(Path("ops.pub").read_bytes())
    assert isinstance(public, Ed25519PublicKey)
    (key_id,) = theirs.signatures

    accepted = theirs.verify([SSlibKey.from_crypto(public, keyid=key_id)], 1)

    assert set(accepted) == {key_id}
    assert prod.read_bytes().startswith(theirs.payload)


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_existing_output_is_never_overwritten(prod: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    Path("mine").write_text("mine")
    output = Path("mine")
    if kind != "file":
        output = Path("link")
        output.symlink_to("mine" if kind == "link" else "nothing")

    assert exit_code("export", "--dsse", "--output", str(output), str(prod)) == 1

    assert "it exists already, and is not overwritten" in capsys.readouterr().err
    assert Path("mine").read_text() == "mine"
    assert not Path("nothing").exists()


def test_output_into_a_missing_folder_is_refused(prod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("export", "--dsse", "--output", "no/prod.json", str(prod)) == 1

    assert "no/prod.json: new file: its folder does not exist" in capsys.readouterr().err


def test_no_format_is_wrong_usage_that_names_the_one_there_is(prod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("export", str(prod)) == 2

    captured = capsys.readouterr()
    assert "--dsse is the one there is" in captured.err
    assert captured.out == ""


def test_unsigned_file_is_refused_and_nothing_is_written(prod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prod.write_text(text_of({}))

    assert exit_code("export", "--dsse", "--output", "prod.json", str(prod)) == 1

    assert "it has no signature" in capsys.readouterr().err
    assert not Path("prod.json").exists()


def test_envelope_is_not_exported_again(prod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("export", "--dsse", "--output", "prod.json", str(prod)) == 0

    assert exit_code("export", "--dsse", "prod.json") == 1

    assert "it is one already" in capsys.readouterr().err


def test_missing_file_is_unreadable_input(prod: Path) -> None:
    prod.unlink()

    assert exit_code("export", "--dsse", str(prod)) == 2


def test_name_that_would_steer_a_terminal_is_shown_and_not_obeyed(
    prod: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "\x1b[2J\u202e.toml"
    prod.rename(name)

    assert exit_code("export", "--dsse", "--output", f"{name}.json", name) == 0

    assert capsys.readouterr().out == ("Wrote \\x1b[2J\\u202e.toml.json, a DSSE envelope of \\x1b[2J\\u202e.toml.\n")
    assert f"{name}.json" in {path.name for path in Path().iterdir()}
