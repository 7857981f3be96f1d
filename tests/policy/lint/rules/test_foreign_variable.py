import pytest

from tests.policy.lint.linting import findings, of_rule, places


def test_a_variable_with_our_prefix_is_found_where_it_stands() -> None:
    environment = "SANDBOX_MAX_CPUS=1\nSANDBOX_WALLPAPER=blue\nSANDBOX_ACME_TOKEN=hunter2\n"

    assert places("SBP406", environment=environment) == [
        (2, 1, "SANDBOX_WALLPAPER"),
        (3, 1, "SANDBOX_ACME_TOKEN"),
    ]


@pytest.mark.parametrize("line", ["SANDBOX_TIMEOUT=30", "SANDBOX_DEBUG=false", "WALLPAPER=blue"])
def test_known_names_of_others_and_our_own_are_not_found(line: str) -> None:
    assert not places("SBP406", environment=f"{line}\n")


def test_what_belongs_to_others_by_name_is_not_found() -> None:
    environment = "SANDBOX_WALLPAPER=blue\nSANDBOX_FOREIGN_OK=SANDBOX_WALLPAPER\n"

    assert not places("SBP406", environment=environment)


def test_its_value_is_not_shown() -> None:
    found = of_rule("SBP406", findings(environment="SANDBOX_ACME_TOKEN=hunter2\n"))

    assert [each.excerpt for each in found] == ["SANDBOX_ACME_TOKEN=…"]


def test_a_misspelling_keeps_it_silent() -> None:
    assert not places("SBP406", environment="SANDBOX_WALLPAPER=blue\nSANDBOX_DEBUGS=1\n")
