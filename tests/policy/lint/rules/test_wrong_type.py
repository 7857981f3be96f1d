import pytest

from tests.policy.lint.linting import findings, fixed, of_rule, places, written

WRONG = {
    "quoted number": ("max_cpus = '0.5'", "'0.5' is a text, not a number", "Write 0.5 without quotes"),
    "quoted switch": ("debug = 'False'", "'False' is a text, not true or false", "Write false without quotes"),
    "number for a switch": ("debug = 0", "0 is a whole number, not true or false", "Write true or false"),
    "whole float": ("max_processes = 8.0", "8.0 is a number with a point, not a whole number", "Write 8"),
    "word for a list": ("languages = 'bash'", "'bash' is a text, not a list", 'Write ["bash"]'),
    "none for a list": ("network_allowlist = 'none'", "'none' is a text, not a list", "Write [] for none"),
    "number with a unit": (
        "max_runtime_seconds = '30s'",
        "'30s' is a text, not a number",
        'Write a number without quotes, or the word "unlimited"',
    ),
    "unlimited in capitals": (
        "max_cpus = 'Unlimited'",
        "'Unlimited' is a text, not a number",
        'Write a number, or "unlimited" in lower case',
    ),
    "unlimited where it cannot be": (
        "max_output_kilobytes = 'unlimited'",
        "it cannot be unlimited",
        "Write a whole number",
    ),
    "list for a number": ("max_cpus = [1]", "it is a list, not a number", "Write a number"),
}


@pytest.mark.parametrize(("line", "message", "remedy"), WRONG.values(), ids=WRONG)
def test_value_of_another_type_is_told_with_what_to_write(line: str, message: str, remedy: str) -> None:
    (found,) = of_rule("SBP009", findings(written(f"[limits]\n{line}\n")))

    key = f"limits.{line.partition(' ')[0]}"
    assert (found.location.line, found.location.key) == (10, key)
    assert (found.message, found.remedy) == (f"{key}: {message}", remedy)


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("max_cpus = '0.5' # half", "max_cpus = 0.5 # half"),
        ('max_runtime_seconds.ceiling = "30"', "max_runtime_seconds.ceiling = 30"),
        (
            'max_ram_megabytes = { ceiling = "64", reason = "64" }',
            'max_ram_megabytes = { ceiling = 64, reason = "64" }',
        ),
        ('debug = """false"""', "debug = false"),
        ("networking_allowed.lock = 'true'", "networking_allowed.lock = true"),
        ('max_file_megabytes = "0"', "max_file_megabytes = 0"),
    ],
)
def test_quotes_are_removed_around_what_is_a_valid_value_without_them(bad: str, good: str) -> None:
    assert fixed(written(f"[limits]\n{bad}\n")) == written(f"[limits]\n{good}\n")


def test_quotes_are_removed_in_scopes_too() -> None:
    bad = written("[[scope]]\nmatch.roles = ['user']\nlimits.max_cpus.ceiling = '1'\n")

    assert fixed(bad) == bad.replace("'1'", "1")


@pytest.mark.parametrize(
    "line",
    [
        "max_output_kilobytes = 'unlimited'",
        "max_cpus = 'Unlimited'",
        "max_runtime_seconds = '0'",
        "max_runtime_seconds = '90000'",
        "max_runtime_seconds = '030'",
        "max_runtime_seconds = '3_0'",
        "max_runtime_seconds = '30.0'",
        "max_runtime_seconds = ' 30'",
        "max_runtime_seconds = '-1'",
        "max_cpus = '0.1234'",
        "max_cpus = 'nan'",
        "debug = 'False'",
        "debug = '0'",
        "debug = 0",
        "languages = 'bash'",
        "max_cpus = { ceiling = 1, env_may_loosen = 'false' }",
    ],
)
def test_nothing_else_is_fixed(line: str) -> None:
    text = written(f"[limits]\n{line}\n")

    assert fixed(text) == text
    assert places("SBP009", text)


def test_key_of_a_limit_outside_of_limits_is_not_fixed() -> None:
    text = written("limits.debug = false\n", serial='"7"')

    assert places("SBP009", text) == [(3, 1, "serial")]
    assert fixed(text) == text
