import pytest

from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, linted_files, of_rule, written

OTHER = {"id": '"acme-other"'}


def keys(one: str, other: str) -> list[tuple[str, str]]:
    found = of_rule("SBP118", findings(written(f"[limits]\n{one}\n"), other=written(f"[limits]\n{other}\n", **OTHER)))
    return [(each.location.file, each.location.key) for each in found]


def test_the_weaker_statement_is_found_and_the_other_one_named() -> None:
    text = written("[limits.max_runtime_seconds]\nceiling = 600\n")
    other = written("[limits]\nmax_cpus = 1\nmax_runtime_seconds = 60\n", **OTHER)

    (found,) = of_rule("SBP118", findings(text, other=other))

    assert found.message == (
        "the ceiling 600 seconds of max_runtime_seconds changes nothing beside the lock 60 seconds in other.toml, "
        "line 11"
    )
    assert (found.location.file, found.location.line, found.location.column) == ("acme.toml", 10, 1)
    assert [(place.file, place.line) for place in found.related] == [("other.toml", 11)]


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ("max_runtime_seconds.ceiling = 61", "max_runtime_seconds.ceiling = 60"),
        ("max_runtime_seconds.default = 10", "max_runtime_seconds = 60"),
        ("max_runtime_seconds.default = 30", "max_runtime_seconds.default = 20"),
        ("max_runtime_seconds.default = 30", "max_runtime_seconds.ceiling = 20"),
        ("networking_allowed = true", "networking_allowed.ceiling = false"),
        ('network_allowlist.ceiling = ["*.example.com"]', 'network_allowlist.ceiling = ["api.example.com"]'),
    ],
)
def test_what_another_file_makes_pointless_is_found_in_either_order(weaker: str, stronger: str) -> None:
    key = f"limits.{weaker.partition(' ')[0]}"

    assert keys(weaker, stronger) == [("acme.toml", key)]
    assert keys(stronger, weaker) == [("other.toml", key)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("max_runtime_seconds.ceiling = 60", "max_runtime_seconds.ceiling = 60"),
        ("max_runtime_seconds = 60", "max_runtime_seconds = 60"),
        ("max_runtime_seconds.ceiling = 60", "max_runtime_seconds = 60"),
        ("max_runtime_seconds.default = 60", "max_runtime_seconds = 60"),
        ("max_runtime_seconds = 60", "max_runtime_seconds = 30"),
        ("max_runtime_seconds.ceiling = 30", "max_runtime_seconds = 60"),
        ("max_runtime_seconds = 60", "max_runtime_seconds.ceiling = 30"),
        ("max_instance_runs = 6", "max_instance_runs.ceiling = 4"),
        ("max_runtime_seconds.default = 60", "max_runtime_seconds.ceiling = 50"),
        ("max_runtime_seconds.ceiling = 60", "max_runtime_seconds.default = 20"),
        ("max_runtime_seconds = { ceiling = 60, env_may_loosen = false }", "max_runtime_seconds.ceiling = 30"),
        ('network_allowlist.ceiling = ["a.example", "b.example"]', 'network_allowlist.ceiling = ["*.example:443"]'),
    ],
    ids=[
        "equal ceilings",
        "equal locks",
        "a ceiling equal to a lock",
        "a default equal to a lock",
        "different locks are refused",
        "a ceiling below a lock holds",
        "a lock above a ceiling takes the choice away",
        "an administrator's too",
        "a default lifts the built-in to the ceiling",
        "valves go past a default",
        "a bound on variables",
        "neither list is stricter",
    ],
)
def test_guards_that_may_be_meant_and_what_has_an_effect_are_not_found(one: str, other: str) -> None:
    assert keys(one, other) == []
    assert keys(other, one) == []


def test_a_file_alone_and_scopes_of_others_override_nothing() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits.max_cpus.ceiling = 1\n'

    assert not of_rule("SBP118", findings(written(f"[limits.max_cpus]\nceiling = 2\n{scope}")))
    assert keys("max_cpus.ceiling = 2", f"max_ram_megabytes.ceiling = 64\n{scope}") == []


def test_of_many_files_all_but_the_strictest_are_found() -> None:
    files = {
        f"{number}.toml": written(f"[limits.max_cpus]\nceiling = {number}\n", id=f'"p-{number}"')
        for number in (3, 1, 2)
    }

    found = of_rule("SBP118", linted_files(files, Setup(now=NOW)))

    assert [each.location.file for each in found] == ["2.toml", "3.toml"]
    assert {each.related[0].file for each in found} == {"1.toml"}


def test_a_file_for_other_instances_overrides_nothing() -> None:
    wide = written('audience = ["prod-eu", "prod-us"]\n[limits.max_cpus]\nceiling = 2\n')
    narrow = written('id = "gpu"\naudience = ["prod-eu"]\n[limits.max_cpus]\nceiling = 1\n')

    assert not of_rule("SBP118", findings(wide, other=narrow))
    assert of_rule("SBP118", findings(wide, other=narrow.replace('["prod-eu"]', '["prod-us", "prod-eu"]')))
