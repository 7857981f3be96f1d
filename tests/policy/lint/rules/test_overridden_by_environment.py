from pathlib import Path

import pytest

from policy.lint.environments import environment_of_process
from policy.lint.run import judged_paths
from policy.lint.subjects import Setup
from tests.policy.lint.linting import NOW, findings, of_rule, places, written

LOCK = "SANDBOX_MAX_RUNTIME_SECONDS=60\n"
CEILING = "SANDBOX_MAX_RUNTIME_SECONDS__CEILING=20\n"
DEFAULT = "SANDBOX_MAX_RUNTIME_SECONDS__DEFAULT=20\n"


def limits(*lines: str) -> str:
    return written("[limits.max_runtime_seconds]\n" + "".join(f"{line}\n" for line in lines))


def test_variable_file_and_line_are_named() -> None:
    (found,) = of_rule("SBP117", findings(limits("ceiling = 30"), environment=f"SANDBOX_DEBUG=false\n{LOCK}"))

    assert found.message == (
        "the ceiling 30 seconds of max_runtime_seconds has no effect: SANDBOX_MAX_RUNTIME_SECONDS (prod.env:2) locks "
        "the limit to 60 seconds"
    )
    assert (found.location.line, found.location.column) == (10, 1)
    assert [(place.file, place.line, place.key) for place in found.related] == [
        ("prod.env", 2, "SANDBOX_MAX_RUNTIME_SECONDS")
    ]


def test_a_variable_of_the_process_has_no_line() -> None:
    environment = environment_of_process({"SANDBOX_MAX_RUNTIME_SECONDS": "60"})

    (found,) = of_rule("SBP117", findings(limits("ceiling = 30"), setup=Setup(now=NOW, environment=environment)))

    assert "SANDBOX_MAX_RUNTIME_SECONDS (environment) locks" in found.message


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("lock = 30", LOCK),
        ("ceiling = 600", LOCK),
        ("default = 30", LOCK),
        ("default = 30", DEFAULT),
        ("ceiling = 30", CEILING),
        ("default = 20", CEILING),
    ],
)
def test_what_a_variable_makes_pointless_is_found(line: str, variables: str) -> None:
    key = f"limits.max_runtime_seconds.{line.partition(' ')[0]}"

    assert places("SBP117", limits(line), environment=variables) == [(10, 1, key)]


@pytest.mark.parametrize(
    ("line", "variables"),
    [("lock = 60", LOCK), ("ceiling = 60", LOCK), ("default = 20", DEFAULT), ("ceiling = 20", CEILING)],
)
def test_a_variable_that_says_the_same_is_not_found(line: str, variables: str) -> None:
    assert not places("SBP117", limits(line), environment=variables)


@pytest.mark.parametrize(
    ("lines", "variables"),
    [
        (("ceiling = 600", "env_may_loosen = false"), LOCK),
        (("lock = 30", "env_may_loosen = false"), LOCK),
        (("ceiling = 30", "env_may_loosen = false"), CEILING),
        (("ceiling = 19",), CEILING),
        (("lock = 30",), CEILING),
        (("lock = 30",), DEFAULT),
        (("ceiling = 600",), DEFAULT),
        (("default = 19",), CEILING),
        (("ceiling = 30",), "SANDBOX_MAX_CPUS=1\n"),
    ],
)
def test_what_still_bounds_or_chooses_something_is_not_found(lines: tuple[str, ...], variables: str) -> None:
    assert not places("SBP117", limits(*lines), environment=variables)


def test_a_default_beside_a_looser_ceiling_of_the_environment_lifts_the_built_in() -> None:
    assert not places("SBP117", limits("default = 60"), environment="SANDBOX_MAX_RUNTIME_SECONDS__CEILING=50\n")


def test_a_default_is_found_though_its_ceiling_may_not_be_loosened() -> None:
    text = limits("default = 20", "ceiling = 30", "env_may_loosen = false")

    assert [key for _, _, key in places("SBP117", text, environment=LOCK)] == ["limits.max_runtime_seconds.default"]


def test_statements_of_scopes_are_found_too() -> None:
    scope = '[[scope]]\nmatch.roles = ["user"]\nlimits.max_runtime_seconds.ceiling = 10\n'

    assert places("SBP117", written(scope), environment=LOCK) == [
        (11, 28, "scope[0].limits.max_runtime_seconds.ceiling")
    ]
    assert not places("SBP117", written(scope), environment=CEILING)


@pytest.mark.parametrize("variables", ["", f"{LOCK}SANDBOX_MAX_CPUS=none\n"], ids=["none", "refused ones"])
def test_without_variables_that_hold_nothing_is_found(variables: str) -> None:
    assert not places("SBP117", limits("ceiling = 30"), environment=variables)


def test_processes_that_share_the_work_find_the_same(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{number}.toml") for number in range(400)]
    for name in names:
        Path(name).write_text(limits("ceiling = 30"), encoding="utf-8")
    setup = Setup(now=NOW, environment=environment_of_process({"SANDBOX_MAX_RUNTIME_SECONDS": "60"}))

    results = judged_paths(names, setup, lambda _done: None)

    assert all(of_rule("SBP117", result.findings) for result in results)
    alone = judged_paths(names[:1], setup, lambda _done: None)
    assert of_rule("SBP117", alone[0].findings) == of_rule("SBP117", results[0].findings)
