from datetime import UTC, datetime, timedelta

import pytest

from policy.lint.findings import Severity
from policy.profiles import PROFILES
from policy.starters import StarterHead, profile_starter
from tests.policy.lint.linting import NOW, findings, of_rule, places, written


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("max_file_megabytes = 0", (10, 1, "limits.max_file_megabytes")),
        ("networking_allowed.lock = false", (10, 20, "limits.networking_allowed.lock")),
        ('languages = ["python"]', (10, 1, "limits.languages")),
        ("max_runtime_seconds = 29", (10, 1, "limits.max_runtime_seconds")),
    ],
)
def test_what_takes_something_from_people_is_found_where_it_stands(statement: str, place: tuple[int, int, str]) -> None:
    assert places("SBP503", written(f"[limits]\n{statement}\n")) == [place]


@pytest.mark.parametrize(
    "statement",
    [
        "max_runtime_seconds = 30",
        "max_cpus.ceiling = 0.5",
        "networking_allowed = true",
        'languages = ["bash", "python"]',
        "max_cpus.default = 0.5",
        "debug = false",
        "max_concurrent_runs = 1",
        'max_file_megabytes = { lock = 0, reason = "no files here" }',
        'max_cpus = { default = 0.2, ceiling = 0.5, reason = "small host" }',
    ],
)
def test_what_people_will_not_meet_or_are_told_of_is_not_found(statement: str) -> None:
    assert not places("SBP503", written(f"[limits]\n{statement}\n"))


@pytest.mark.parametrize(
    ("statement", "remedy"),
    [
        ("max_file_megabytes = 0", 'Write max_file_megabytes = { lock = 0, reason = "why" }'),
        ('languages = ["python"]', 'Write languages = { lock = ["python"], reason = "why" }'),
        ("networking_allowed = false", 'Write networking_allowed = { lock = false, reason = "why" }'),
        ("max_cpus.lock = 0.5", 'Add a line such as reason = "shared host" to its table'),
    ],
)
def test_the_remedy_shows_where_a_reason_goes(statement: str, remedy: str) -> None:
    (found,) = of_rule("SBP503", findings(written(f"[limits]\n{statement}\n")))

    assert found.remedy == remedy


def test_what_the_remedy_shows_is_a_policy_without_the_finding() -> None:
    (found,) = of_rule("SBP503", findings(written('[limits]\nlanguages = ["python"]\n')))

    mended = findings(written(f"[limits]\n{found.remedy.removeprefix('Write ')}\n"))
    assert not [each for each in mended if each.rule_id == "SBP503" or each.severity is Severity.ERROR]


@pytest.mark.parametrize("name", PROFILES)
def test_what_init_writes_gives_every_reason_that_is_asked_for(name: str) -> None:
    profile = PROFILES[name]
    head = StarterHead(
        policy_id=name,
        issued_at=datetime(2026, 11, 1, tzinfo=UTC),
        expires_at=NOW + timedelta(days=60),
        audience=("prod-eu",),
        description=profile.description,
        owner="ops@acme.example",
    )

    assert not places("SBP503", profile_starter(profile, head))


def test_it_weighs_more_in_production() -> None:
    text = written("[limits]\nmax_file_megabytes = 0\n")

    assert of_rule("SBP503", findings(text))[0].severity is Severity.NOTE
    assert of_rule("SBP503", findings(text, production=True))[0].severity is Severity.WARNING
