import pytest

from tests.policy.lint.linting import findings, of_rule, places, written


def scope(limit: str, conditions: str = 'match.groups = ["a"]') -> str:
    return f"[[scope]]\n{conditions}\nlimits.{limit}\n"


@pytest.mark.parametrize(
    ("everywhere", "scoped"),
    [
        ("max_runtime_seconds.ceiling = 30", "max_runtime_seconds.ceiling = 30"),
        ("max_runtime_seconds.ceiling = 30", 'max_runtime_seconds.ceiling = "unlimited"'),
        ("max_runtime_seconds = 30", "max_runtime_seconds.ceiling = 31"),
        ("max_runtime_seconds = 30", "max_runtime_seconds = 60"),
        ("max_runtime_seconds = 30", "max_runtime_seconds.default = 10"),
        ("max_runtime_seconds.default = 10", "max_runtime_seconds.default = 10"),
        ("max_runtime_seconds.ceiling = 20", "max_runtime_seconds.default = 20"),
        ("networking_allowed.ceiling = false", "networking_allowed = true"),
        ("max_instance_runs.ceiling = 4", "max_instance_runs = 4"),
        ("max_instance_runs.ceiling = 40", "max_instance_runs.default = 40"),
        (
            'network_allowlist.ceiling = ["10.0.0.0/8"]',
            'network_allowlist.ceiling = ["::ffff:10.0.0.0/104", "b.example"]',
        ),
    ],
)
def test_what_is_no_stricter_than_what_holds_for_everybody_is_found(everywhere: str, scoped: str) -> None:
    found = of_rule("SBP111", findings(written(f"[limits]\n{everywhere}\n{scope(scoped)}")))

    key = f"scope[0].limits.{scoped.partition(' ')[0]}"
    assert [(each.location.line, each.location.key) for each in found] == [(13, key)]
    assert [place.line for place in found[0].related] == [10]
    assert " for everybody in line 10, since a scope only tightens" in found[0].message


@pytest.mark.parametrize(
    ("everywhere", "scoped"),
    [
        ("max_runtime_seconds.ceiling = 30", "max_runtime_seconds.ceiling = 29"),
        ("max_runtime_seconds.ceiling = 30", "max_runtime_seconds = 30"),
        ("max_runtime_seconds.ceiling = 31", "max_runtime_seconds.default = 40"),
        ("max_runtime_seconds.default = 10", "max_runtime_seconds.ceiling = 10"),
        ("max_runtime_seconds.default = 10", "max_runtime_seconds = 20"),
        ("max_runtime_seconds = 30", "max_ram_megabytes.ceiling = 2048"),
        ("max_runtime_seconds.ceiling = 20", "max_runtime_seconds = { ceiling = 20, env_may_loosen = false }"),
        ('network_allowlist.ceiling = ["a.example", "b.example"]', 'network_allowlist.ceiling = ["*.example:443"]'),
    ],
    ids=[
        "stricter",
        "a lock takes the choice away",
        "a default lifts the built-in",
        "a ceiling bounds valves",
        "a lock is no default",
        "another limit",
        "a bound on variables",
        "neither covers the other",
    ],
)
def test_what_can_change_something_is_not_found(everywhere: str, scoped: str) -> None:
    assert not places("SBP111", written(f"[limits]\n{everywhere}\n{scope(scoped)}"))


def test_a_bound_that_variables_may_not_loosen_covers_one_that_says_so_too() -> None:
    firm = "env_may_loosen = false"
    everywhere = f"[limits.max_cpus]\nceiling = 1\n{firm}\n"

    assert places("SBP111", written(everywhere + scope(f"max_cpus = {{ ceiling = 2, {firm} }}")))
    assert places("SBP111", written(everywhere + scope("max_cpus.ceiling = 2")))  # which takes that over


@pytest.mark.parametrize(
    "scoped",
    ["debug = true", "network_private_allowed.default = true", 'max_cpus.ceiling = "unlimited"', "auto_install = true"],
)
def test_what_is_as_loose_as_can_be_is_found_alone(scoped: str) -> None:
    (found,) = of_rule("SBP111", findings(written(scope(scoped))))

    assert found.location.line == 11
    assert found.message.endswith(" changes nothing: nothing is looser, and a scope only tightens")


@pytest.mark.parametrize("scoped", ['max_cpus.default = "unlimited"', "networking_allowed = true", "debug = false"])
def test_what_takes_a_choice_away_or_lifts_a_built_in_is_not_found_alone(scoped: str) -> None:
    assert not places("SBP111", written(scope(scoped)))


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ('match.groups = ["a", "b"]', 'match.groups = ["a"]'),
        ('match.groups = ["a"]', 'match.groups = ["a"]\nmatch.roles = ["user"]'),
        ('except.groups = ["c"]', 'except.groups = ["c", "d"]'),
        ('except.groups = ["c"]', 'match.roles = ["user"]\nexcept.groups = ["c"]'),
        ('except.roles = ["admin"]', 'match.roles = ["user"]'),
        ('match.groups = ["a"]', 'match.groups = ["a", "b"]\nexcept.groups = ["b"]'),
        ('match.surface = "tool"', 'except.surface = "function"'),
        ('except.surface = "function"', 'match.surface = "tool"'),
    ],
)
def test_a_scope_of_fewer_people_is_covered_by_that_of_more(wide: str, narrow: str) -> None:
    text = written(scope("max_cpus.ceiling = 1", wide) + scope("max_cpus.ceiling = 2", narrow))
    turned = written(scope("max_cpus.ceiling = 2", narrow) + scope("max_cpus.ceiling = 1", wide))

    assert [key for _, _, key in places("SBP111", text)] == ["scope[1].limits.max_cpus.ceiling"]
    assert [key for _, _, key in places("SBP111", turned)] == ["scope[0].limits.max_cpus.ceiling"]


@pytest.mark.parametrize(
    ("other", "narrow"),
    [
        ('match.groups = ["b"]', 'match.groups = ["a"]'),
        ('match.groups = ["a"]', 'match.groups = ["a", "b"]'),
        ('match.groups = ["a"]\nmatch.roles = ["user"]', 'match.groups = ["a"]'),
        ('except.groups = ["c", "d"]', 'except.groups = ["c"]'),
        ('except.groups = ["b"]', 'match.groups = ["a"]'),
        ('match.groups = ["a"]', 'except.groups = ["b"]'),
        ('except.roles = ["user"]', 'match.roles = ["user", "admin"]'),
    ],
    ids=["others", "fewer", "more asked", "more excepted", "one may be in two groups", "unlike", "one excepted"],
)
def test_a_scope_of_somebody_else_covers_nothing(other: str, narrow: str) -> None:
    assert not places("SBP111", written(scope("max_cpus.ceiling = 1", other) + scope("max_cpus.ceiling = 2", narrow)))


def test_of_two_scopes_that_say_the_same_the_first_stays() -> None:
    text = written(scope("max_cpus.ceiling = 1") + scope("max_cpus.ceiling = 1"))

    (found,) = of_rule("SBP111", findings(text))
    assert found.location.key == "scope[1].limits.max_cpus.ceiling"
    assert "beside the ceiling 1 CPU of scope[0] in line 11, whose scope is for all of the same people" in found.message


def test_a_default_bounds_a_looser_lock_of_a_scope_where_administrators_choose() -> None:
    found = places("SBP111", written(scope("max_instance_runs = 6") + scope("max_instance_runs.default = 4")))
    of_people = places("SBP111", written(scope("max_processes = 6") + scope("max_processes.default = 4")))

    assert not found
    assert [key for _, _, key in of_people] == ["scope[1].limits.max_processes.default"]


def test_a_default_that_equals_the_ceiling_of_its_own_block_is_not_found() -> None:
    assert not places("SBP111", written(scope("max_cpus = { ceiling = 0.5, default = 0.5 }")))


def test_what_a_scope_says_that_never_matches_is_left_to_that_rule() -> None:
    text = written(scope("debug = true", 'match.groups = ["a"]\nexcept.groups = ["a"]'))

    assert not places("SBP111", text)
    assert places("SBP110", text)


def test_a_long_list_is_cut_in_the_message() -> None:
    items = ", ".join(f'"host-{number}.example"' for number in range(100))
    text = written(f"[limits]\nnetwork_allowlist = []\n{scope(f'network_allowlist = [{items}]')}")

    (found,) = of_rule("SBP111", findings(text))
    assert len(found.message) < 300
