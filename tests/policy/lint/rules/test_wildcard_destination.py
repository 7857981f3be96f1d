import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


@pytest.mark.parametrize(
    "item",
    [
        "*.com",
        "*.dev:443",
        "*.co.uk",
        "*.github.io",
        "*.amazonaws.com",
        "*.windows.net",
        "0.0.0.0/0",
        "::/0",
        "8.0.0.0/7",
        "[2000::/3]:443",
        "2600::/15",
        "fc00::/6",
        "128.0.0.0/1",
    ],
)
def test_what_leads_to_anybody_is_found(item: str) -> None:
    text = written(f'[limits]\nnetwork_allowlist = ["pypi.org", "{item}"]\n')

    assert places("SBP211", text) == [(10, 34, "limits.network_allowlist[1]")]
    assert of_rule("SBP211", findings(text))[0].message.startswith(f"{item} in network_allowlist")


@pytest.mark.parametrize(
    "item",
    [
        "public",
        "com",
        "pypi.org",
        "*.acme.com",
        "*.acme.github.io",
        "*.acme.co.uk",
        "*.internal",
        "*.localhost",
        "10.0.0.0/8",
        "8.0.0.0/8",
        "2600::/16",
        "fc00::/7",
        "fe80::/10",
        "224.0.0.0/4",
        "203.0.113.7",
    ],
)
def test_what_belongs_to_somebody_is_not_found(item: str) -> None:
    assert not places("SBP211", written(f'[limits]\nnetwork_allowlist = ["{item}"]\n'))


def test_items_that_another_item_covers_and_items_of_scopes_are_found_where_they_stand() -> None:
    text = written(
        '[limits.network_allowlist]\nceiling = [\n  "public",\n  "*.com", # for now\n]\n'
        '[[scope]]\nmatch.roles = ["user"]\nlimits.network_allowlist = { lock = ["*.net"] }\n'
    )

    assert places("SBP211", text) == [
        (12, 3, "limits.network_allowlist.ceiling[1]"),
        (16, 38, "scope[0].limits.network_allowlist.lock[0]"),
    ]


def test_the_words_elsewhere_in_a_file_are_not_taken_for_items() -> None:
    assert not places("SBP211", written('description = "*.com stays out of network_allowlist"\n'))
