import pytest

from tests.policy.lint.linting import places, written


@pytest.mark.parametrize("verb", ["lock", "ceiling", "default"])
def test_every_way_to_permit_it_is_found(verb: str) -> None:
    text = written(f"[limits]\nauto_install.{verb} = true\n")

    assert places("SBP205", text) == [(10, 14, f"limits.auto_install.{verb}")]


@pytest.mark.parametrize("verb", ["lock", "ceiling", "default"])
def test_false_is_not_found(verb: str) -> None:
    assert not places("SBP205", written(f"[limits]\nauto_install.{verb} = false\n"))


def test_what_the_environment_decides_is_not_found() -> None:
    assert not places("SBP205", written("[limits]\nauto_install = true\n"), environment="SANDBOX_AUTO_INSTALL=false\n")


def test_a_variable_past_a_strict_policy_is_no_matter_of_the_policy() -> None:
    assert not places("SBP205", written("[limits]\nauto_install = false\n"), environment="SANDBOX_AUTO_INSTALL=true\n")
