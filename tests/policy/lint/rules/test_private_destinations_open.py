import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

OPEN = "[limits]\nnetworking_allowed = true\nnetwork_private_allowed = true\n"


@pytest.mark.parametrize(
    ("statement", "key"),
    [
        ("network_private_allowed = true", "limits.network_private_allowed"),
        ("network_private_allowed.lock = true", "limits.network_private_allowed.lock"),
        ("network_private_allowed.ceiling = true", "limits.network_private_allowed.ceiling"),
        ("network_private_allowed.default = true", "limits.network_private_allowed.default"),
    ],
)
def test_every_kind_of_statement_that_opens_is_found_where_it_stands(statement: str, key: str) -> None:
    column = 25 if "." in statement else 1

    assert places("SBP202", written(f"[limits]\n{statement}\n")) == [(10, column, key)]


@pytest.mark.parametrize(
    "closing",
    [
        "networking_allowed = false",
        "networking_allowed.ceiling = false",
        'network_allowlist = ["10.1.2.3:5432"]',
        'network_allowlist.ceiling = ["10.1.2.0/24", "fd00::1"]',
        "network_allowlist = []",
    ],
)
def test_what_the_file_closes_by_other_means_is_not_found(closing: str) -> None:
    assert not places("SBP202", written(f"[limits]\n{closing}\nnetwork_private_allowed = true\n"))


@pytest.mark.parametrize(
    "no_help",
    [
        "networking_allowed.default = false",
        'network_allowlist = ["*.evil.example"]',
        'network_allowlist = ["10.1.2.3", "db.acme.example"]',
        'network_allowlist.default = ["10.1.2.3"]',
        'network_allowlist = ["public"]',
    ],
)
def test_a_name_or_a_mere_default_closes_nothing(no_help: str) -> None:
    assert places("SBP202", written(f"[limits]\n{no_help}\nnetwork_private_allowed = true\n"))


def test_what_another_file_of_the_folder_closes_is_not_found() -> None:
    other = written("[limits.network_private_allowed]\nceiling = false\n", id='"other"')

    assert not places("SBP202", written("[limits.network_private_allowed]\ndefault = true\n"), other=other)


def test_what_a_variable_closes_is_not_found() -> None:
    assert not places("SBP202", written(OPEN), environment="SANDBOX_NETWORKING_ALLOWED=false\n")


def test_a_variable_that_opens_the_network_takes_away_what_closed_it() -> None:
    text = written("[limits]\nnetworking_allowed = false\nnetwork_private_allowed = true\n")

    assert places("SBP202", text, environment="SANDBOX_NETWORKING_ALLOWED=true\n")


def test_false_and_scopes_are_not_found() -> None:
    text = written(
        '[limits]\nnetwork_private_allowed = false\n[[scope]]\nmatch.roles = ["admin"]\n'
        "limits.network_private_allowed.ceiling = true\n"
    )

    assert not places("SBP202", text)


def test_in_production_no_comment_takes_it_out() -> None:
    text = written(OPEN).replace(
        "network_private_allowed = true",
        'network_private_allowed = true  # policy: ignore[SBP202] reason="x" until=2027-01-31',
    )

    assert not places("SBP202", text)
    assert of_rule("SBP202", findings(text, production=True))
