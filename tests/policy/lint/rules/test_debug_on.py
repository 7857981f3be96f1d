import pytest

from tests.policy.lint.linting import places, written


@pytest.mark.parametrize("verb", ["lock", "ceiling", "default"])
def test_every_way_to_permit_it_is_found(verb: str) -> None:
    assert places("SBP208", written(f"[limits]\ndebug.{verb} = true\n")) == [(10, 7, f"limits.debug.{verb}")]


def test_false_and_silence_are_not_found() -> None:
    assert not places("SBP208", written("[limits]\ndebug = false\n"))
    assert not places("SBP208", written("[limits]\nmax_cpus = 1\n"))


def test_what_a_variable_forbids_is_not_found() -> None:
    assert not places("SBP208", written("[limits]\ndebug.default = true\n"), environment="SANDBOX_DEBUG=false\n")
