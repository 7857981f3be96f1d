import pytest

from tests.policy.lint.linting import findings, of_rule, places


@pytest.mark.parametrize(
    "name",
    [
        "SANDBOX_NETWORKING_ALOWED",
        "SANDBOX_MAX_RAM_MEGABYTES__CIELING",
        "SANDBOX_DEBUG__FLOOR",
        "sandbox_debug",
        "SANDBOX_POLICY_FOLDER",
    ],
)
def test_each_kind_of_misspelling_is_found_where_it_stands(name: str) -> None:
    assert places("SBP401", environment=f"# ours\nSANDBOX_MAX_CPUS=1\n{name}=false\n") == [(3, 1, name)]


def test_the_remedy_names_the_variable_that_was_meant() -> None:
    found = of_rule("SBP401", findings(environment="SANDBOX_NETWORKING_ALOWED=false\n"))

    assert "Did you mean SANDBOX_NETWORKING_ALLOWED?" in found[0].remedy


@pytest.mark.parametrize("name", ["SANDBOX_TIMEOUT", "SANDBOX_WALLPAPER", "PATH", "DEBUG"])
def test_names_that_belong_to_others_are_not_found(name: str) -> None:
    assert not places("SBP401", environment=f"{name}=1\n")


def test_a_name_that_is_said_to_be_foreign_is_not_found() -> None:
    environment = "SANDBOX_DEBUGS=1\nSANDBOX_FOREIGN_OK=SANDBOX_DEBUGS\n"

    assert not places("SBP401", environment=environment)


def test_its_value_is_not_shown() -> None:
    found = of_rule("SBP401", findings(environment="SANDBOX_POLICY_KEYZ=hunter2\n"))

    assert [each.excerpt for each in found] == ["SANDBOX_POLICY_KEYZ=…"]


def test_no_comment_takes_it_out() -> None:
    environment = '# policy: ignore[SBP401] reason="ours" until=2027-01-31\nSANDBOX_DEBUGS=1\n'

    assert places("SBP401", environment=environment) == [(2, 1, "SANDBOX_DEBUGS")]
