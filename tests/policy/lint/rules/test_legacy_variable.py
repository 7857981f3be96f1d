import pytest

from tests.policy.lint.linting import findings, of_rule, places

PREFIX = "CODE_EVAL_VALVE_OVERRIDE_"


def remedy(environment: str) -> str:
    (found,) = of_rule("SBP407", findings(environment=environment))
    return found.remedy


def test_each_of_them_is_found_where_it_stands() -> None:
    environment = f"SANDBOX_DEBUG=false\n{PREFIX}DEBUG=false\ncode_eval_whatever=1\n"

    assert places("SBP407", environment=environment) == [(2, 1, f"{PREFIX}DEBUG"), (3, 1, "code_eval_whatever")]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (f"{PREFIX}MAX_RAM_MEGABYTES=512\n", "Write SANDBOX_MAX_RAM_MEGABYTES=512 in its place"),
        (f"{PREFIX}MAX_RAM_MEGABYTES=0\n", "Write SANDBOX_MAX_RAM_MEGABYTES=unlimited in its place"),
        (f"{PREFIX}DEBUG=false\nSANDBOX_DEBUG=false\n", "Remove it; SANDBOX_DEBUG says the same"),
        (f"{PREFIX}DEBUG=false\nSANDBOX_DEBUG=true\n", "Keep one of them"),
        (f"{PREFIX}WEB_ACCESSIBLE_DIRECTORY_URL=/cache\n", "Remove it"),
        (f"{PREFIX}CHECK_FOR_UPDATES=false\n", "Remove it"),
        (f"{PREFIX}NETWORKING_ALOWED=false\n", f"Was {PREFIX}NETWORKING_ALLOWED meant?"),
    ],
)
def test_the_remedy_is_what_import_would_make_of_it(environment: str, expected: str) -> None:
    assert remedy(environment).startswith(expected)


def test_it_is_found_though_other_variables_cannot_be_read() -> None:
    assert places("SBP407", environment=f"SANDBOX_MAX_CPUS=many\n{PREFIX}DEBUG=false\n") == [(2, 1, f"{PREFIX}DEBUG")]


def test_other_names_are_not_found() -> None:
    assert not places("SBP407", environment="ENABLE_CODE_EXECUTION=true\nSANDBOX_DEBUG=false\n")
