import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

LIST = 'network_allowlist = ["pypi.org"]\n'


@pytest.mark.parametrize("off", ["networking_allowed = false\n", "networking_allowed.ceiling = false\n"])
@pytest.mark.parametrize(
    ("line", "key"),
    [
        (LIST, "limits.network_allowlist"),
        ('network_allowlist.ceiling = ["pypi.org"]\n', "limits.network_allowlist.ceiling"),
        ('network_allowlist.default = ["pypi.org"]\n', "limits.network_allowlist.default"),
        ("network_private_allowed = true\n", "limits.network_private_allowed"),
    ],
)
def test_what_opens_reach_is_found_where_nothing_is_reached(off: str, line: str, key: str) -> None:
    (found,) = of_rule("SBP115", findings(written(f"[limits]\n{off}{line}")))

    assert (found.location.line, found.location.key) == (11, key)
    assert [place.line for place in found.related] == [10]


def test_what_scopes_open_is_found_too() -> None:
    scope = '[[scope]]\nmatch.roles = ["admin"]\nlimits.network_private_allowed = true\n'

    assert places("SBP115", written(f"[limits]\nnetworking_allowed = false\n{scope}")) == [
        (13, 8, "scope[0].limits.network_private_allowed")
    ]


@pytest.mark.parametrize(
    "lines",
    [
        "networking_allowed = false\nnetwork_allowlist = []\nnetwork_private_allowed = false\n",
        f"networking_allowed = true\n{LIST}",
        f"networking_allowed.default = false\n{LIST}",
        LIST,
    ],
    ids=["closed", "on", "off by default", "not stated"],
)
def test_what_closes_reach_or_can_be_reached_is_not_found(lines: str) -> None:
    assert not places("SBP115", written(f"[limits]\n{lines}"))


def test_networking_that_a_scope_turns_off_is_still_there_for_others() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits.networking_allowed = false\n'

    assert not places("SBP115", written(f"[limits]\n{LIST}{scope}"))


def test_a_variable_that_turns_networking_on_gives_the_list_a_use_unless_it_may_not() -> None:
    on = "SANDBOX_NETWORKING_ALLOWED=true\n"
    firm = "networking_allowed = { lock = false, env_may_loosen = false }\n"

    assert not places("SBP115", written(f"[limits]\nnetworking_allowed = false\n{LIST}"), environment=on)
    assert places("SBP115", written(f"[limits]\n{firm}{LIST}"), environment=on)
