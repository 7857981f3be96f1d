"""The older plugin's variables: what they locked is locked here, or listed with its remedy, and never bent."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.environment import read_environment
from policy.errors import Problem
from policy.legacy import LEGACY_PREFIX, LEGACY_VALVES, LegacyImport, LegacySource, carry_over, legacy_names
from policy.limits import LIMITS
from policy.values import Switch

CARRIED = [valve for valve in LEGACY_VALVES if valve.limit is not None]
SWITCHES = [valve.name for valve in CARRIED if isinstance(valve.limit and valve.limit.kind, Switch)]
NUMBERS = [valve.name for valve in CARRIED if valve.name not in SWITCHES]
FOREIGN = [valve.name for valve in LEGACY_VALVES if valve.limit is None]


def imported(others: Mapping[str, str] | None = None, /, **overrides: str) -> LegacyImport:
    variables = {f"{LEGACY_PREFIX}{name}": text for name, text in overrides.items()}
    return carry_over(LegacySource(untrusted={**variables, **(others or {})}))


def refusal(found: LegacyImport) -> Problem:
    assert found.locks == ()
    (problem,) = found.left
    return problem


def test_every_valve_of_the_older_plugin_is_known() -> None:
    """As version 0.8 of its tool and function declare them."""
    assert SWITCHES == ["NETWORKING_ALLOWED", "REQUIRE_RESOURCE_LIMITING", "AUTO_INSTALL", "DEBUG"]
    assert NUMBERS == ["MAX_RUNTIME_SECONDS", "MAX_RAM_MEGABYTES"]
    assert FOREIGN == [
        "CHECK_FOR_UPDATES",
        "MAX_FILES_PER_EXECUTION",
        "MAX_FILES_PER_USER",
        "MAX_MEGABYTES_PER_USER",
        "WEB_ACCESSIBLE_DIRECTORY_PATH",
        "WEB_ACCESSIBLE_DIRECTORY_URL",
    ]


def test_lockdown_that_its_docs_advise_is_carried_over() -> None:
    found = imported(
        DEBUG="false",
        AUTO_INSTALL="false",
        NETWORKING_ALLOWED="false",
        REQUIRE_RESOURCE_LIMITING="true",
        MAX_RAM_MEGABYTES="128",
        MAX_RUNTIME_SECONDS="30",
    )

    assert list(found.variables.items()) == [
        ("SANDBOX_NETWORKING_ALLOWED", "false"),
        ("SANDBOX_MAX_RUNTIME_SECONDS", "30"),
        ("SANDBOX_MAX_RAM_MEGABYTES", "128"),
        ("SANDBOX_AUTO_INSTALL", "false"),
        ("SANDBOX_REQUIRE_RESOURCE_LIMITING", "true"),
        ("SANDBOX_DEBUG", "false"),
    ]
    assert (found.left, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("text", "value"), [("true", "true"), ("True", "true"), ("FALSE", "false"), ("fAlSe", "false")]
)
@pytest.mark.parametrize("name", SWITCHES)
def test_switch_was_read_in_any_case(name: str, text: str, value: str) -> None:
    assert imported(**{name: text}).variables == {f"SANDBOX_{name}": value}


@pytest.mark.parametrize("text", ["", "1", "0", "yes", "on", " true", "true ", "ture", "TRUE\n"])
@pytest.mark.parametrize("name", SWITCHES)
def test_switch_that_was_none_is_listed(name: str, text: str) -> None:
    problem = refusal(imported(**{name: text}))

    assert problem.reason.endswith("is neither true nor false; the older plugin did not take it either")
    assert problem.remedy == f"Set SANDBOX_{name} to true or false"


@pytest.mark.parametrize("text", ["64", "+64", "064", " 64 ", "6_4", "\u0666\u0664"])
@pytest.mark.parametrize("name", NUMBERS)
def test_number_was_read_as_python_reads_it(name: str, text: str) -> None:
    assert imported(**{name: text}).variables == {f"SANDBOX_{name}": "64"}


@pytest.mark.parametrize("text", ["", "many", "1.5", "64MB", "0x40", "unlimited", "9" * 5_000])
@pytest.mark.parametrize("name", NUMBERS)
def test_number_that_was_none_is_listed(name: str, text: str) -> None:
    problem = refusal(imported(**{name: text}))

    assert problem.reason.endswith("is not a whole number; the older plugin did not take it either")
    assert len(problem.reason) < 200


@pytest.mark.parametrize(
    ("name", "text", "reason", "range_words"),
    [
        ("MAX_RUNTIME_SECONDS", "0", "0 is outside 1 to 86400", "from 1 to 86400"),
        ("MAX_RUNTIME_SECONDS", "-5", "-5 is outside 1 to 86400", "from 1 to 86400"),
        ("MAX_RUNTIME_SECONDS", "86401", "86401 is outside 1 to 86400", "from 1 to 86400"),
        ("MAX_RAM_MEGABYTES", "31", "31 is outside 32 to 1048576", "from 32 to 1048576"),
        ("MAX_RAM_MEGABYTES", "-1", "-1 is outside 32 to 1048576", "from 32 to 1048576"),
        ("MAX_RAM_MEGABYTES", "9" * 40, "a very large number is outside 32 to 1048576", "from 32 to 1048576"),
    ],
)
def test_number_outside_our_range_is_listed_and_not_clamped(
    name: str, text: str, reason: str, range_words: str
) -> None:
    problem = refusal(imported(**{name: text}))

    assert problem.reason == reason
    assert problem.remedy == f"Set SANDBOX_{name} to a whole number in plain digits {range_words}"


@pytest.mark.parametrize("text", ["0", "00", "-0", " 0"])
def test_zero_that_meant_no_limit_becomes_the_word_and_a_warning(text: str) -> None:
    found = imported(MAX_RAM_MEGABYTES=text)

    assert found.variables == {"SANDBOX_MAX_RAM_MEGABYTES": "unlimited"}
    assert found.left == ()
    (warning,) = found.warnings
    assert "one run can take all that the server has" in warning
    assert found.locks[0].comment == "was CODE_EVAL_VALVE_OVERRIDE_MAX_RAM_MEGABYTES=0: choose a number"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MAX_RUNTIME_SECONDS", "31"),
        ("MAX_RAM_MEGABYTES", "129"),
        ("REQUIRE_RESOURCE_LIMITING", "false"),
        ("DEBUG", "true"),
    ],
)
def test_lock_looser_than_the_built_in_is_carried_over_with_a_warning(name: str, text: str) -> None:
    found = imported(**{name: text})

    assert found.variables == {f"SANDBOX_{name}": text}
    (warning,) = found.warnings
    assert warning.startswith(f"SANDBOX_{name}={text} is looser than the built-in ")


def test_network_without_private_addresses_is_said_to_be_narrower_than_it_was() -> None:
    found = imported(NETWORKING_ALLOWED="true")

    (warning,) = found.warnings
    assert found.variables == {"SANDBOX_NETWORKING_ALLOWED": "true"}
    assert "SANDBOX_NETWORK_PRIVATE_ALLOWED=true" in warning


@pytest.mark.parametrize("text", ["17", "", "true"])
@pytest.mark.parametrize("name", FOREIGN)
def test_valve_without_counterpart_is_listed_with_its_remedy(name: str, text: str) -> None:
    problem = refusal(imported(**{name: text}))

    assert problem.key == f"{LEGACY_PREFIX}{name}"
    assert problem.reason
    assert problem.remedy.startswith("Remove it")


@pytest.mark.parametrize("text", ["false", "False"])
def test_update_check_that_was_off_needs_nothing(text: str) -> None:
    found = imported(CHECK_FOR_UPDATES=text)

    assert (found.locks, found.left) == ((), ())
    (warning,) = found.warnings
    assert warning.startswith(f"CODE_EVAL_VALVE_OVERRIDE_CHECK_FOR_UPDATES={text} needs no counterpart: ")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CODE_EVAL_VALVE_OVERIDE_DEBUG", "CODE_EVAL_VALVE_OVERRIDE_DEBUG"),
        ("code_eval_valve_override_debug", "CODE_EVAL_VALVE_OVERRIDE_DEBUG"),
        ("CODE_EVAL_VALVE_OVERRIDE_MAX_RAM_MEGABYTE", "CODE_EVAL_VALVE_OVERRIDE_MAX_RAM_MEGABYTES"),
    ],
)
def test_misspelt_variable_is_listed_with_what_was_meant(name: str, meant: str) -> None:
    problem = refusal(carry_over(LegacySource(untrusted={name: "true"})))

    assert problem.reason == "the older plugin has no such valve, and ignored it"
    assert problem.remedy == f"Was {meant} meant? Correct it, or remove it"


def test_unknown_variable_that_resembles_none_is_listed() -> None:
    assert refusal(carry_over(LegacySource(untrusted={"CODE_EVAL_X": "1"}))).remedy == "Remove it"


@pytest.mark.parametrize(
    "rival",
    ["SANDBOX_MAX_RUNTIME_SECONDS", "SANDBOX_MAX_RUNTIME_SECONDS__CEILING", "SANDBOX_MAX_RUNTIME_SECONDS__DEFAULT"],
)
def test_variable_of_ours_that_says_something_else_is_a_conflict(rival: str) -> None:
    problem = refusal(imported({rival: "60"}, MAX_RUNTIME_SECONDS="30"))

    assert problem.reason == f"{rival} says something else"


def test_variable_of_ours_that_says_the_same_is_none() -> None:
    found = imported({"SANDBOX_MAX_RUNTIME_SECONDS": "30"}, MAX_RUNTIME_SECONDS="030")

    assert found.variables == {"SANDBOX_MAX_RUNTIME_SECONDS": "30"}


def test_doubtful_value_is_listed_where_it_would_have_mattered() -> None:
    names = [f"{LEGACY_PREFIX}DEBUG", f"{LEGACY_PREFIX}WEB_ACCESSIBLE_DIRECTORY_PATH"]
    doubts = {name: Problem(key=name, origin="x:1", reason="doubt", remedy="") for name in names}

    found = carry_over(
        LegacySource(untrusted=dict.fromkeys(names, "false"), doubts=doubts, places=dict.fromkeys(names, "x:1"))
    )

    assert found.locks == ()
    assert [(problem.origin, problem.reason[:24]) for problem in found.left] == [
        ("x:1", "doubt"),
        ("x:1", "nothing is written here "),
    ]


def test_variables_of_others_are_left_alone() -> None:
    found = carry_over(LegacySource(untrusted={"WEBUI_NAME": "x", "SANDBOX_DEBUG": "true", "MAX_RAM_MEGABYTES": "1"}))

    assert found == LegacyImport(locks=(), left=(), warnings=())


@given(
    st.dictionaries(
        st.sampled_from([valve.variable for valve in LEGACY_VALVES]), st.text(max_size=6) | st.integers().map(str)
    )
)
def test_nothing_is_dropped_and_what_comes_out_is_read(untrusted: dict[str, str]) -> None:
    found = carry_over(LegacySource(untrusted=untrusted))

    layer = read_environment(found.variables)
    assert [stated.value for stated in layer.statements] == [lock.value for lock in found.locks]
    assert [lock.limit for lock in found.locks] == [limit for limit in LIMITS if limit.variable in found.variables]
    told = {lock.source for lock in found.locks} | {problem.key for problem in found.left}
    needless = {name for name in untrusted if name.endswith("CHECK_FOR_UPDATES")}
    assert set(legacy_names(untrusted)) - needless <= told <= set(untrusted)
