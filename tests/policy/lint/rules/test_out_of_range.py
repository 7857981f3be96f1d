import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    ("line", "column", "message", "remedy"),
    [
        (
            "max_processes = 0",
            1,
            "0 is below the least permitted value, 1; it does not mean unlimited",
            "Write 1 or more",
        ),
        ("max_processes.ceiling = -1", 15, "-1 is below the least permitted value, 1; it does not", "Write 1 or more"),
        ("max_ram_megabytes = 31", 1, "31 is below the least permitted value, 32", "Write 32 or more"),
        ("max_processes = 32769", 1, "32769 is above the greatest permitted value, 32768", "Write 32768 or less"),
        ("max_cpus = 0.009", 1, "0.009 is below the least permitted value, 0.01", "Write 0.01 or more"),
        (f"max_processes = {2**64}", 1, "a TOML number has at most 64 bits", "Choose a value in range"),
    ],
)
def test_number_past_either_end_is_found_at_its_key(line: str, column: int, message: str, remedy: str) -> None:
    (found,) = of_rule("SBP010", findings(written(f"[limits]\n{line}\n")))

    assert (found.location.line, found.location.column, found.remedy) == (10, column, remedy)
    assert message in found.message


@pytest.mark.parametrize(
    "line", ["max_processes = 1", "max_processes = 32768", "max_cpus = 0.01", "max_file_megabytes = 0"]
)
def test_both_ends_are_in_range(line: str) -> None:
    assert not places("SBP010", written(f"[limits]\n{line}\n"))
