import pytest

from tests.policy.lint.linting import places, written

HELD = {
    "max_runtime_seconds": "20",
    "max_ram_megabytes": "128",
    "max_cpus": "0.5",
    "max_processes": "32",
    "max_disk_megabytes": "16",
    "max_output_kilobytes": "64",
}


@pytest.mark.parametrize(("name", "value"), HELD.items())
def test_each_limit_that_holds_a_run_is_found(name: str, value: str) -> None:
    assert places("SBP204", written(f"[limits.{name}]\ndefault = {value}\n")) == [(10, 1, f"limits.{name}.default")]


@pytest.mark.parametrize(("name", "value"), HELD.items())
def test_a_ceiling_beside_it_is_enough(name: str, value: str) -> None:
    assert not places("SBP204", written(f"[limits.{name}]\ndefault = {value}\nceiling = {value}\n"))


@pytest.mark.parametrize("name", ["max_file_megabytes", "max_concurrent_runs", "max_instance_runs"])
def test_other_numbers_are_not_found(name: str) -> None:
    assert not places("SBP204", written(f"[limits.{name}]\ndefault = 1\n"))


def test_the_ceiling_may_stand_in_another_file_of_the_folder() -> None:
    other = written("[limits.max_cpus]\nceiling = 1\n", id='"other"')

    assert not places("SBP204", written("[limits.max_cpus]\ndefault = 0.5\n"), other=other)


@pytest.mark.parametrize("variable", ["SANDBOX_MAX_CPUS=1", "SANDBOX_MAX_CPUS__CEILING=1"])
def test_the_ceiling_may_be_a_variable(variable: str) -> None:
    assert not places("SBP204", written("[limits.max_cpus]\ndefault = 0.5\n"), environment=f"{variable}\n")


def test_a_ceiling_for_some_is_none_for_the_others() -> None:
    text = written('[limits.max_cpus]\ndefault = 0.5\n[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus.ceiling = 1\n')

    assert places("SBP204", text) == [(10, 1, "limits.max_cpus.default")]


def test_a_default_for_some_is_not_found() -> None:
    assert not places("SBP204", written('[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus.default = 0.5\n'))
