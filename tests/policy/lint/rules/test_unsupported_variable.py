import pytest

from policy.settings import SETTINGS
from tests.policy.lint.linting import places


@pytest.mark.parametrize("name", [setting.variable for setting in SETTINGS if not setting.supported])
def test_each_variable_of_a_version_to_come_is_found_where_it_stands(name: str) -> None:
    assert places("SBP404", environment=f"SANDBOX_MAX_CPUS=1\n{name}=/srv\n") == [(2, 1, name)]


def test_a_variable_that_is_honoured_is_not_found() -> None:
    assert not places("SBP404", environment="SANDBOX_AUDIT_LOG=/var/log/sandbox.jsonl\n")
