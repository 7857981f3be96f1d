"""A request that no box could run, or that its limits do not permit, is refused before anything is started."""

import pytest

from sandbox.errors import SandboxError
from sandbox.request import MAX_CODE_BYTES
from tests.sandbox.conftest import limits_of, request_of


def refusal(code: str, language: str = "python", **values: object) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        request_of(code, language, **values)
    return caught.value


def test_code_is_handed_over_as_utf_8() -> None:
    assert request_of("print('é')").code_bytes == "print('é')".encode()


def test_empty_code_is_a_request() -> None:
    assert request_of("").code_bytes == b""


@pytest.mark.parametrize("language", ["ruby", "", "Python", "python ", "python\x00", "../../bin/sh"])
def test_an_unknown_language_is_refused_and_the_known_ones_named(language: str) -> None:
    error = refusal("1", language)

    assert (error.key, error.remedy) == ("language", "Use python, bash")


def test_a_hostile_language_is_shown_short_and_without_control_characters() -> None:
    error = refusal("1", "\x1b[31m" + "x\n" * 100_000)

    assert "\x1b" not in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 200


def test_a_language_outside_the_permitted_ones_is_refused_with_who_decided() -> None:
    error = refusal("echo", "bash", languages=frozenset({"python"}))

    assert error.key == "languages"
    assert error.origin == limits_of().origin_of(limits_of().decisions["languages"].limit)
    assert "bash is not among the permitted languages (python)" in error.reason


def test_no_language_runs_where_none_is_permitted() -> None:
    assert "(none)" in refusal("1", languages=frozenset()).reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param("print(1)\nx = '\x00'\n", "it holds a NUL character in line 2", id="NUL"),
        pytest.param("x = '\ud800'", "it holds half a surrogate pair, which is no text", id="lone-surrogate"),
        pytest.param("x" * (10 << 20), f"it has {10 << 20} bytes, more than {MAX_CODE_BYTES}", id="10-MiB"),
        pytest.param("é" * (MAX_CODE_BYTES // 2) + "x", "bytes, more than", id="one-byte-too-many"),
    ],
)
def test_code_that_no_interpreter_could_take_is_refused_with_reason_and_remedy(code: str, reason: str) -> None:
    error = refusal(code)

    assert error.key == "code"
    assert reason in error.reason
    assert error.remedy
    assert len(str(error)) < 300


def test_code_of_exactly_the_longest_length_is_a_request() -> None:
    assert len(request_of("é" * (MAX_CODE_BYTES // 2)).code_bytes) == MAX_CODE_BYTES
