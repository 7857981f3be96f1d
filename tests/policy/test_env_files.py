"""Files of environment variables: what every reader agrees on is read, and what they differ about is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.env_files import ENV_FILE, EnvFile, read_env_file, read_env_path
from policy.errors import ConfigurationError, DocumentError

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="'\"`#$\\\ufeff"))


def read(text: str | bytes) -> EnvFile:
    return read_env_file(text if isinstance(text, bytes) else text.encode(), "server.env")


def refusals(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        read(text).environ()
    return [str(problem) for problem in refused.value.problems]


def test_names_values_and_lines_are_read() -> None:
    file = read("# a comment\n\n  # another\nSANDBOX_DEBUG=false\n\tOTHER=a b=c\n \t \nSANDBOX_LANGUAGES=python,bash")

    assert [(each.name, each.value, each.line) for each in file.variables] == [
        ("SANDBOX_DEBUG", "false", 4),
        ("OTHER", "a b=c", 5),
        ("SANDBOX_LANGUAGES", "python,bash", 7),
    ]
    assert file.environ() == {"SANDBOX_DEBUG": "false", "OTHER": "a b=c", "SANDBOX_LANGUAGES": "python,bash"}


def test_the_example_that_ships_is_read() -> None:
    text = Path(__file__).parents[2].joinpath("examples", "lockdown.env").read_bytes()

    assert read(text).environ()["SANDBOX_REQUIRE_RESOURCE_LIMITING"] == "true"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_file_may_say_nothing(text: str) -> None:
    assert read(text).variables == ()


def test_empty_value_is_a_value() -> None:
    assert read("SANDBOX_DEBUG=\n").environ() == {"SANDBOX_DEBUG": ""}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"4"', "is quoted"),
        ("'4'", "is quoted"),
        ("`4`", "is quoted"),
        ('"4" # four', "is quoted"),
        (" 4", "space around"),
        ("4 ", "space around"),
        ("4\t", "space around"),
        ("4\u00a0", "space around"),
        ("4 # four", "# in its value"),
        ("4#four", "# in its value"),
        ("$HOME", "$ in its value"),
        ("${HOME}", "$ in its value"),
        ("a\\nb", "a backslash"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["SANDBOX_MAX_CPUS", "sandbox_max_cpus", "CODE_EVAL_VALVE_OVERRIDE_DEBUG"])
def test_value_of_ours_that_readers_see_differently_is_refused(name: str, value: str, words: str) -> None:
    (refusal,) = refusals(f"OTHER=1\n{name}={value}\n")

    assert refusal.startswith(f"server.env:2: {name}: ")
    assert words in refusal
    assert "Write the value plainly" in refusal


@pytest.mark.parametrize("value", ['"4"', " 4", "4 # four", "${HOME}", "a\\nb", "'it is' mine"])
def test_value_of_others_is_none_of_our_business(value: str) -> None:
    assert read(f"WEBUI_NAME={value}\n").environ() == {"WEBUI_NAME": value}


@pytest.mark.parametrize("quote", ["'", '"', "`"])
@pytest.mark.parametrize("name", ["SANDBOX_MAX_CPUS", "PRIVATE_KEY"])
def test_quote_that_swallows_the_next_line_is_refused_whosever_it_is(name: str, quote: str) -> None:
    (refusal,) = refusals(f"{name}={quote}x\nSANDBOX_DEBUG=true\n")

    assert refusal.startswith(f"server.env:1: {name}: its quote does not end in this line")


def test_escaped_quote_does_not_end_a_value() -> None:
    (refusal,) = refusals('NAME="x\\"\n')

    assert "its quote does not end" in refusal


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("export SANDBOX_DEBUG=true", "Leave out export"),
        ("SANDBOX_DEBUG =true", "Leave out the space"),
        ("SANDBOX_DEBUG: true", "Write NAME=VALUE"),
        ("SANDBOX DEBUG=true", "Write NAME=VALUE"),
        ("=true", "Write NAME=VALUE"),
        ("1A=true", "Write NAME=VALUE"),
        ("; a comment", "begin a comment with #"),
        ("[section]", "Write NAME=VALUE"),
        ("ÄPFEL=1", "Write NAME=VALUE"),
    ],
)
def test_line_that_is_no_assignment_is_refused(line: str, words: str) -> None:
    (refusal,) = refusals(f"\n{line}\n")

    assert refusal.startswith("server.env:2: the line: ")
    assert words in refusal


def test_line_that_may_be_a_secret_is_not_shown() -> None:
    (refusal,) = refusals("MIIEvQIBADANBgkqhkiG9w0/BAQEFAASCBKcw\n")

    assert "MII" not in refusal


def test_variable_of_ours_without_a_value_is_refused() -> None:
    (refusal,) = refusals("SANDBOX_DEBUG\n")

    assert refusal.startswith("server.env:1: SANDBOX_DEBUG: it has no value here, and takes it from whoever starts")
    assert refusal.endswith("Write SANDBOX_DEBUG=VALUE, or remove the line.")


def test_variable_of_others_handed_on_by_its_name_is_passed_over() -> None:
    assert read("HTTPS_PROXY\nSANDBOX_DEBUG=false\n").environ() == {"SANDBOX_DEBUG": "false"}


def test_second_value_for_one_name_is_refused() -> None:
    assert refusals("SANDBOX_DEBUG=false\nOTHER=1\nSANDBOX_DEBUG=true\nSANDBOX_DEBUG=false\n") == [
        "server.env:3: SANDBOX_DEBUG: it stands in line 1 already. Keep one of them.",
        "server.env:4: SANDBOX_DEBUG: it stands in line 1 already. Keep one of them.",
    ]


def test_all_problems_are_told_at_once() -> None:
    told = refusals("export A=1\nB =2\nC=1\nC=2\n")

    assert [line.split(": ")[0] for line in told] == ["server.env:1", "server.env:2", "server.env:4"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"A=1\nB=\xff\n", "server.env:2: the file: it is not UTF-8"),
        (b"A=1\nB=2\r\n", "server.env:2: the file: it holds a carriage return"),
        (b"A=1\0\n", "server.env:1: the file: it holds a carriage return, a NUL"),
        (b"\xef\xbb\xbfA=1\n", "server.env:1: the file: it holds"),
    ],
    ids=["not UTF-8", "carriage return", "NUL", "byte order mark"],
)
def test_bytes_that_readers_treat_differently_are_refused(data: bytes, words: str) -> None:
    (refusal,) = refusals(data)

    assert refusal.startswith(words)


@given(st.dictionaries(NAMES, VALUES))
def test_what_is_written_plainly_is_read_back(variables: dict[str, str]) -> None:
    text = "".join(f"{name}={value}\n" for name, value in variables.items())

    assert read(text).environ() == variables


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read(data)
    except ConfigurationError as refused:
        assert refused.problems  # noqa: PT017 -- either outcome is right


def test_file_is_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "server.env"
    path.write_text("SANDBOX_DEBUG=false\n")

    assert read_env_path(path).environ() == {"SANDBOX_DEBUG": "false"}
    assert read_env_path(path).origin == str(path)


@pytest.mark.parametrize("size", [ENV_FILE.max_bytes, ENV_FILE.max_bytes + 1])
def test_file_has_a_largest_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "server.env"
    path.write_bytes(b"#" * size)

    if size <= ENV_FILE.max_bytes:
        assert read_env_path(path).variables == ()
    else:
        with pytest.raises(DocumentError, match="larger than 65536 bytes"):
            read_env_path(path)


def test_folder_and_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.env"):
        with pytest.raises(DocumentError, match="env file"):
            read_env_path(path)
