"""The environment: values, contradictions, and names too close to ours to be chance; everything wrong at once."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.environment import FOREIGN_NAMES, EnvironmentLayer, read_environment
from policy.errors import ConfigurationError, Problem
from policy.limits import LIMITS
from policy.settings import INSTANCE, POLICY_PATH, POLICY_THRESHOLD, SETTINGS
from policy.statements import Layer, Verb
from policy.values import UNLIMITED
from tests.policy.factories import destinations

OURS = (
    *(f"{limit.variable}{suffix}" for limit in LIMITS for suffix in ("", "__CEILING", "__DEFAULT")),
    *(setting.variable for setting in SETTINGS),
)


def problems_of(environ: dict[str, str]) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationError) as refusal:
        read_environment(environ)
    return refusal.value.problems


def read_or_refusal(environ: dict[str, str]) -> EnvironmentLayer | ConfigurationError:
    try:
        return read_environment(environ)
    except ConfigurationError as refusal:
        return refusal


def said(layer: EnvironmentLayer) -> list[tuple[str, Verb, object]]:
    return [(statement.limit.name, statement.verb, statement.value) for statement in layer.statements]


def test_environment_without_our_variables_says_nothing() -> None:
    layer = read_environment({"PATH": "/usr/bin", "HOME": "/root", "DEBUG": "1", "sandbox": "", "MAX_CPUS": "many"})
    assert layer.statements == ()
    assert layer.warnings == ()
    assert layer.settings[POLICY_PATH] is None


@pytest.mark.parametrize(
    ("suffix", "verb"), [("", Verb.LOCK), ("__CEILING", Verb.CEILING), ("__DEFAULT", Verb.DEFAULT)]
)
def test_each_limit_can_be_locked_capped_and_given_a_default(suffix: str, verb: Verb) -> None:
    environ = {f"{limit.variable}{suffix}": limit.kind.text(limit.lockdown) for limit in LIMITS}
    statements = read_environment(environ).statements
    assert [(each.limit, each.verb, each.value) for each in statements] == [
        (each, verb, each.lockdown) for each in LIMITS
    ]
    assert [each.origin.place for each in statements] == list(environ)
    assert {each.origin.layer for each in statements} == {Layer.ENVIRONMENT}


def test_values_have_their_own_types() -> None:
    environ = {
        "SANDBOX_NETWORKING_ALLOWED": "FALSE",
        "SANDBOX_MAX_RUNTIME_SECONDS__CEILING": "60",
        "SANDBOX_MAX_RUNTIME_SECONDS__DEFAULT": "20",
        "SANDBOX_MAX_PROCESSES": "unlimited",
        "SANDBOX_NETWORK_ALLOWLIST": "example.com,*.example.org:443",
        "SANDBOX_LANGUAGES": "none",
        "SANDBOX_POLICY_THRESHOLD": "2",
        "SANDBOX_INSTANCE": "prod-eu",
    }
    layer = read_environment(environ)
    assert said(layer) == [
        ("networking_allowed", Verb.LOCK, False),
        ("max_runtime_seconds", Verb.CEILING, 60),
        ("max_runtime_seconds", Verb.DEFAULT, 20),
        ("network_allowlist", Verb.LOCK, destinations("example.com", "*.example.org:443")),
        ("max_processes", Verb.LOCK, UNLIMITED),
        ("languages", Verb.LOCK, frozenset()),
    ]
    assert layer.settings[POLICY_THRESHOLD] == 2
    assert layer.settings[INSTANCE] == "prod-eu"


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SANDBOX_MAX_PROCESSES=3\nSANDBOX_MAX_CPU=3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SANDBOX_MAX_RUNTIME_SECONDS", "5")
    monkeypatch.setenv("SANDBOX_POLICY_PATH", "/elsewhere")
    layer = read_environment({})
    assert layer.statements == ()
    assert layer.settings[POLICY_PATH] is None


def test_empty_variable_is_refused_whichever_it_is() -> None:
    problems = problems_of(dict.fromkeys(OURS, ""))
    assert sorted(problem.key for problem in problems) == sorted(OURS)
    assert {problem.origin for problem in problems} == {"environment"}
    assert {problem.reason for problem in problems} == {"it is set but empty"}
    assert all(problem.remedy for problem in problems)


MALFORMED = ["+5", " 5", "5 ", "1_000", "\u0663", "-1", "0", "1.0", "5s", "Unlimited", "none", "9" * 400]


@pytest.mark.parametrize(
    ("suffix", "text"), [*(("", text) for text in MALFORMED), ("__CEILING", "+5"), ("__DEFAULT", "1.0")]
)
def test_malformed_number_names_variable_value_and_grammar(suffix: str, text: str) -> None:
    name = f"SANDBOX_MAX_RUNTIME_SECONDS{suffix}"
    (problem,) = problems_of({name: text})
    assert problem.key == name
    assert text[:20] in problem.reason
    assert "a whole number in plain digits from 1 to 86400 or unlimited" in problem.remedy


@pytest.mark.parametrize(
    ("name", "text", "grammar"),
    [
        ("SANDBOX_NETWORKING_ALLOWED", "0", "true or false"),
        ("SANDBOX_MAX_OUTPUT_KILOBYTES", "unlimited", "from 1 to 65536"),
        ("SANDBOX_MAX_FILE_MEGABYTES", "unlimited", "from 0 to 4096"),
        ("SANDBOX_MAX_CPUS", "0.0001", "three decimal places"),
        ("SANDBOX_LANGUAGES", "perl", "python, bash"),
        ("SANDBOX_NETWORK_ALLOWLIST", "Example.com", "`public`, a host name"),
        ("SANDBOX_POLICY_PATH", "policy.toml", "absolute path"),
        ("SANDBOX_POLICY_MIN_SERIAL", "acme", "id=serial"),
        ("SANDBOX_FOREIGN_OK", "a b", "names of variables"),
    ],
)
def test_malformed_variable_names_itself_and_its_grammar(name: str, text: str, grammar: str) -> None:
    (problem,) = problems_of({name: text})
    assert problem.key == name
    assert grammar in problem.remedy
    assert "Traceback" not in str(problem)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SANDBOX_MAX_RUNTIME_SECOND", "SANDBOX_MAX_RUNTIME_SECONDS"),
        ("SANDBOX_MAX_RUNTIM_SECOND", "SANDBOX_MAX_RUNTIME_SECONDS"),
        ("SANDBOX_MAX_RUNTIME_SECNODS", "SANDBOX_MAX_RUNTIME_SECONDS"),
        ("SANDBOX_NETWORKING_ALOWED", "SANDBOX_NETWORKING_ALLOWED"),
        ("SANBOX_NETWORKING_ALLOWED", "SANDBOX_NETWORKING_ALLOWED"),
        ("SANDBOXNETWORKINGALLOWED", "SANDBOX_NETWORKING_ALLOWED"),
        ("ANDBOX_DEBUG", "SANDBOX_DEBUG"),
        ("SANDBOX_DEBUGED", "SANDBOX_DEBUG"),
        ("SANDBOX_MAX_CPUS_CEILING", "SANDBOX_MAX_CPUS__CEILING"),
        ("SANDBOX_MAX_CPUS__CEILINGS", "SANDBOX_MAX_CPUS__CEILING"),
        ("SANDBOX_INSTANSE", "SANDBOX_INSTANCE"),
    ],
)
def test_near_miss_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    (problem,) = problems_of({name: "1"})
    assert (problem.key, problem.reason) == (name, "there is no such variable")
    assert f"Did you mean {meant}?" in problem.remedy
    assert "SANDBOX_FOREIGN_OK" in problem.remedy


@pytest.mark.parametrize(
    "name",
    [
        "sandbox_networking_allowed",
        "Sandbox_Debug",
        "SANDBOX_debug",
        "sandbox_max_everything",
        "SANDBOX_COLOUR__SHADE",
        "SANDBOX__X",
        "SANDBOX_MAX_CPUS__LOCK",
        "SANDBOX_MAX_CPUS__ceiling",
        "SANDBOX_POLICY_PATH__DEFAULT",
        "SANDBOX_MAX",
        "SANDBOX_MAX_EVERYTHING",
        "SANDBOX_NETWORK",
        "SANDBOX_NETWORK_MODE",
        "SANDBOX_POLICY_FOLDER",
        "SANDBOX_GVISOR_PLATFORM",
        "SANDBOX_REQUIRE_TLS",
        "SANDBOX_AUTO_UPDATE",
        "SANDBOX_FOREIGN",
    ],
)
def test_name_that_must_be_one_of_ours_misspelt_is_refused(name: str) -> None:
    (problem,) = problems_of({name: "true"})
    assert problem.key == name


@pytest.mark.parametrize("name", ["SANDBOX_COLOUR", "SANDBOX_", "SANDBOX_MAXIMUM_SIZE", "SANDBOX_HOME_FOLDER"])
def test_other_variable_with_our_prefix_is_warned_of_once(name: str) -> None:
    (warning,) = read_environment({name: "x"}).warnings
    assert name in warning


@pytest.mark.parametrize("name", sorted(FOREIGN_NAMES))
def test_published_name_of_another_product_is_known(name: str) -> None:
    assert read_environment({name: ""}).warnings == ()


def test_known_foreign_names_do_not_shadow_ours() -> None:
    assert FOREIGN_NAMES.isdisjoint(OURS)


def test_foreign_ok_names_exceptions() -> None:
    environ = {"SANDBOX_MAX_CPU": "2", "SANDBOX_A__B": "x", "sandbox_debug": "x", "SANDBOX_COLOUR": "red"}
    layer = read_environment({**environ, "SANDBOX_FOREIGN_OK": ",".join(environ)})
    assert layer.statements == ()
    assert layer.warnings == ()


def test_foreign_ok_does_not_hide_a_variable_of_ours() -> None:
    (problem,) = problems_of({"SANDBOX_MAX_CPUS": "many", "SANDBOX_FOREIGN_OK": "SANDBOX_MAX_CPUS"})
    assert problem.key == "SANDBOX_MAX_CPUS"


def test_malformed_foreign_ok_excepts_nothing() -> None:
    keys = {problem.key for problem in problems_of({"SANDBOX_MAX_CPU": "2", "SANDBOX_FOREIGN_OK": "SANDBOX_MAX_CPU,*"})}
    assert keys == {"SANDBOX_MAX_CPU", "SANDBOX_FOREIGN_OK"}


@pytest.mark.parametrize("suffixes", [("__CEILING",), ("__DEFAULT",), ("__CEILING", "__DEFAULT")])
def test_nothing_stands_beside_a_lock(suffixes: tuple[str, ...]) -> None:
    texts = {limit.variable: limit.kind.text(limit.lockdown) for limit in LIMITS}
    problems = problems_of({f"{name}{suffix}": text for name, text in texts.items() for suffix in ("", *suffixes)})
    assert [problem.key for problem in problems] == list(texts)
    assert all(f"{problem.key}{suffix}" in problem.reason for problem in problems for suffix in suffixes)


@pytest.mark.parametrize(
    ("limit", "default", "ceiling"),
    [
        ("MAX_RUNTIME_SECONDS", "61", "60"),
        ("MAX_RUNTIME_SECONDS", "unlimited", "86400"),
        ("MAX_CPUS", "0.501", "0.5"),
        ("NETWORKING_ALLOWED", "true", "false"),
        ("REQUIRE_RESOURCE_LIMITING", "false", "true"),
        ("LANGUAGES", "python,bash", "python"),
        ("LANGUAGES", "python", "none"),
        ("NETWORK_ALLOWLIST", "example.com", "*.example.com"),
        ("NETWORK_ALLOWLIST", "public", "example.com:443"),
    ],
)
def test_default_outside_its_ceiling_is_a_contradiction(limit: str, default: str, ceiling: str) -> None:
    (problem,) = problems_of({f"SANDBOX_{limit}__DEFAULT": default, f"SANDBOX_{limit}__CEILING": ceiling})
    assert problem.key == f"SANDBOX_{limit}__DEFAULT"
    assert f"SANDBOX_{limit}__CEILING" in problem.reason


@pytest.mark.parametrize(
    ("limit", "default", "ceiling"),
    [
        ("MAX_RUNTIME_SECONDS", "60", "60"),
        ("MAX_RUNTIME_SECONDS", "60", "unlimited"),
        ("NETWORKING_ALLOWED", "false", "true"),
        ("LANGUAGES", "none", "python"),
        ("NETWORK_ALLOWLIST", "api.example.com:443", "*.example.com"),
    ],
)
def test_default_within_its_ceiling_is_none(limit: str, default: str, ceiling: str) -> None:
    environ = {f"SANDBOX_{limit}__DEFAULT": default, f"SANDBOX_{limit}__CEILING": ceiling}
    assert len(read_environment(environ).statements) == 2


def test_everything_that_is_wrong_is_listed_at_once() -> None:
    environ = {
        "SANDBOX_MAX_RUNTIME_SECONDS": "30s",
        "SANDBOX_MAX_CPUS": "",
        "SANDBOX_DEBUG": "yes",
        "SANDBOX_POOL_SIZE": "many",
        "SANDBOX_POLICY_THRESHOLD": "0",
        "SANDBOX_MAX_RAM": "1",
        "sandbox_instance": "x",
        "SANDBOX_MAX_PROCESSES": "4",
        "SANDBOX_MAX_PROCESSES__CEILING": "4",
        "SANDBOX_MAX_DISK_MEGABYTES__DEFAULT": "5",
        "SANDBOX_MAX_DISK_MEGABYTES__CEILING": "4",
    }
    with pytest.raises(ConfigurationError) as refusal:
        read_environment({**environ, "SANDBOX_LANGUAGES": "python", "SANDBOX_PORT": "80"})
    keys = [problem.key for problem in refusal.value.problems]
    assert sorted(keys) == sorted(
        environ.keys() - {"SANDBOX_MAX_PROCESSES__CEILING", "SANDBOX_MAX_DISK_MEGABYTES__CEILING"}
    )
    assert all(key in str(refusal.value) for key in keys)
    assert len(str(refusal.value).splitlines()) == len(keys)


NAME_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"


@st.composite
def near_misses(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(OURS))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(name) - 1))
        letter = draw(st.sampled_from(NAME_ALPHABET))
        name = draw(
            st.sampled_from(
                [name[:at] + name[at + 1 :], name[:at] + letter + name[at:], name[:at] + letter + name[at + 1 :]]
            )
        )
    return name


@settings(max_examples=60)
@given(name=near_misses().filter(lambda name: name not in OURS and name not in FOREIGN_NAMES))
def test_every_name_within_two_edits_of_ours_is_refused(name: str) -> None:
    assert [problem.key for problem in problems_of({name: "1"})] == [name]


ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)
ANY_VALUE = ANY_TEXT | st.sampled_from(
    ["true", "5", "0.5", "unlimited", "none", "python", "public", "/a", "a=1", "20260810"]
)


@settings(max_examples=60)
@given(
    environ=st.dictionaries(st.sampled_from(OURS) | ANY_TEXT | ANY_TEXT.map("SANDBOX_{}".format), ANY_VALUE, max_size=8)
)
def test_arbitrary_environment_is_read_or_a_configuration_error(environ: dict[str, str]) -> None:
    found = read_or_refusal(environ)
    if isinstance(found, ConfigurationError):
        assert {problem.key for problem in found.problems} <= environ.keys()
        return
    assert {statement.origin.place for statement in found.statements} <= environ.keys()
    for statement in found.statements:
        kind = statement.limit.kind
        assert kind.from_native(kind.native(statement.value)) == statement.value
