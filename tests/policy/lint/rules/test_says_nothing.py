import pytest

from tests.policy.lint.linting import findings, of_rule, places, written

NOTHING = {
    "limits": ("[limits]", (9, 2, "limits"), "State a limit, such as networking_allowed = false"),
    "one limit": ("[limits.max_cpus]", (9, 9, "limits.max_cpus"), "State a lock, a ceiling or a default"),
    "a reason alone": (
        "[limits.max_cpus]\nreason = 'x'",
        (9, 9, "limits.max_cpus"),
        "State a lock, a ceiling or a default",
    ),
    "match": (
        "[[scope]]\nmatch = {}\nlimits.debug = false",
        (10, 1, "scope[0].match"),
        "Write match or except, each with roles, groups, users, models, surface",
    ),
    "scope for nobody": (
        "[[scope]]\nlimits.debug = false",
        (9, 3, "scope[0]"),
        "Write match or except, each with roles, groups, users, models, surface",
    ),
    "list": (
        "[[scope]]\nexcept.groups = []\nlimits.debug = false",
        (10, 8, "scope[0].except.groups"),
        "Name at least one, or leave the key out",
    ),
}


@pytest.mark.parametrize(("fragment", "place", "remedy"), NOTHING.values(), ids=NOTHING)
def test_what_says_nothing_is_found_with_what_to_state(fragment: str, place: tuple[int, int, str], remedy: str) -> None:
    text = written(f"{fragment}\n")

    assert places("SBP016", text) == [place]
    assert of_rule("SBP016", findings(text))[0].remedy == remedy


@pytest.mark.parametrize("limit", ["network_allowlist", "languages"])
def test_empty_set_of_a_limit_says_something(limit: str) -> None:
    assert not places("SBP016", written(f"[limits]\n{limit} = []\n"))
