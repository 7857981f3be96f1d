"""The table of limits, held against the one that was designed: what a limit is must not drift."""

import re
from decimal import Decimal
from typing import Any

import pytest

from policy.limits import LIMITS, MAX_CPUS, MAX_PROCESSES, MAX_RUNTIME_SECONDS, NETWORK_ALLOWLIST, Limit, limit_named
from policy.values import UNLIMITED, Destinations, Switch, Thousandths, Whole, Words

# name: kind, least or strict value, may it be unlimited, built-in, lockdown, who has a valve
DESIGNED: dict[str, tuple[type, object, bool, str, str, str]] = {
    "networking_allowed": (Switch, False, False, "true", "false", "person"),
    "max_runtime_seconds": (Whole, 1, True, "30", "10", "person"),
    "max_ram_megabytes": (Whole, 32, True, "128", "128", "person"),
    "auto_install": (Switch, False, False, "true", "false", "administrator"),
    "network_allowlist": (Destinations, frozenset(), False, "public", "none", "administrator"),
    "network_private_allowed": (Switch, False, False, "false", "false", "administrator"),
    "max_cpus": (Thousandths, Decimal("0.01"), True, "1", "0.5", "person"),
    "max_processes": (Whole, 1, True, "64", "32", "person"),
    "max_disk_megabytes": (Whole, 1, True, "64", "16", "person"),
    "max_output_kilobytes": (Whole, 1, False, "256", "64", "person"),
    "max_file_megabytes": (Whole, 0, False, "16", "0", "person"),
    "max_concurrent_runs": (Whole, 1, True, "2", "1", "administrator"),
    "max_instance_runs": (Whole, 1, True, "8", "2", "administrator"),
    "languages": (Words, frozenset(), False, "python,bash", "python,bash", "person"),
    "require_resource_limiting": (Switch, True, False, "true", "true", "administrator"),
    "debug": (Switch, False, False, "false", "false", "administrator"),
}
NUMBERS = [limit for limit in LIMITS if isinstance(limit.kind, Whole | Thousandths)]
EVERY_LIMIT = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
EVERY_NUMBER = pytest.mark.parametrize("limit", NUMBERS, ids=lambda limit: limit.name)


def test_table_has_every_limit_that_was_designed_in_its_order() -> None:
    assert [limit.name for limit in LIMITS] == list(DESIGNED)


@EVERY_LIMIT
def test_limit_is_what_was_designed(limit: Limit[Any]) -> None:
    kind = limit.kind
    found = (
        type(kind),
        kind.strictest,
        getattr(kind, "may_be_unlimited", False),
        kind.text(limit.built_in),
        kind.text(limit.lockdown),
        limit.chosen_by.value,
    )
    assert found == DESIGNED[limit.name]


def test_only_ram_cpu_process_and_disk_may_go_unenforced() -> None:
    names = {limit.name for limit in LIMITS if limit.may_go_unenforced}
    assert names == {"max_ram_megabytes", "max_cpus", "max_processes", "max_disk_megabytes"}


@EVERY_LIMIT
def test_one_name_everywhere(limit: Limit[Any]) -> None:
    assert limit.variable == f"SANDBOX_{limit.name.upper()}"
    assert limit.valve == limit.name.upper()
    assert limit_named(limit.name) is limit
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", limit.name)


@pytest.mark.parametrize("name", ["", "MAX_CPUS", "max_cpu", "max_cpus ", "scope"])
def test_another_name_is_no_limit(name: str) -> None:
    assert limit_named(name) is None


@EVERY_LIMIT
def test_lockdown_is_no_looser_than_the_built_in(limit: Limit[Any]) -> None:
    assert limit.kind.within(limit.lockdown, limit.built_in)


@EVERY_LIMIT
def test_description_is_a_sentence_without_full_stop(limit: Limit[Any]) -> None:
    assert re.fullmatch(r"[A-Z].*[a-z]", limit.description)


@EVERY_NUMBER
def test_number_has_a_hard_range(limit: Limit[Any]) -> None:
    kind = limit.kind
    assert isinstance(kind, Whole | Thousandths)
    assert kind.parse(str(kind.minimum)) == kind.minimum
    assert kind.parse(str(kind.maximum)) == kind.maximum
    for outside in (str(kind.maximum + 1), "999999999"):
        with pytest.raises(ValueError, match="is outside"):
            kind.parse(outside)


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        (MAX_RUNTIME_SECONDS, 1, "1 second"),
        (MAX_RUNTIME_SECONDS, 30, "30 seconds"),
        (MAX_RUNTIME_SECONDS, UNLIMITED, "unlimited"),
        (MAX_CPUS, Decimal("0.5"), "0.5 CPUs"),
        (MAX_CPUS, Decimal("1.0"), "1 CPU"),
        (MAX_PROCESSES, 2, "2 processes and threads"),
        (NETWORK_ALLOWLIST, frozenset(), "none"),
    ],
    ids=lambda item: item.name if isinstance(item, Limit) else str(item),
)
def test_value_is_said_with_its_unit(limit: Limit[Any], value: object, words: str) -> None:
    assert limit.words(value) == words
