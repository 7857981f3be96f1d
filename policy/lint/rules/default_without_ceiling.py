"""SBP204: a default that an administrator's valve may go past without end."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from policy.limits import (
    MAX_CPUS,
    MAX_DISK_MEGABYTES,
    MAX_OUTPUT_KILOBYTES,
    MAX_PROCESSES,
    MAX_RAM_MEGABYTES,
    MAX_RUNTIME_SECONDS,
    Limit,
)
from policy.lint.findings import Found, Severity
from policy.lint.openings import bounds
from policy.lint.rule import Example, Family, SetRule, Suppressible
from policy.lint.subjects import EnvironmentSubject, FactStatement, PolicySet, Setup
from policy.statements import Verb

_HELD: Mapping[str, Limit[Any]] = MappingProxyType(
    {
        limit.name: limit
        for limit in (
            MAX_RUNTIME_SECONDS,
            MAX_RAM_MEGABYTES,
            MAX_CPUS,
            MAX_PROCESSES,
            MAX_DISK_MEGABYTES,
            MAX_OUTPUT_KILOBYTES,
        )
    }
)


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    statements = [said for file in policy_set.files for said in file.statements if said.limit in _HELD]
    bounded = {said.limit for said in statements if said.verb is not Verb.DEFAULT}
    for said in statements:
        if said.limit not in bounded and not _is_bounded(_HELD[said.limit], setup.environment):
            yield _found(said)


def _is_bounded(limit: Limit[Any], environment: EnvironmentSubject | None) -> bool:
    return any(True for _ in bounds(limit, (), environment))


def _found(said: FactStatement) -> Found:
    return Found(
        message=f"{said.limit} has a default and no ceiling, so a valve of the plugin can raise it to anything",
        remedy="Add a ceiling: the most that anybody needs",
        location=said.place.location,
    )


RULE = SetRule(
    id="SBP204",
    name="default-without-ceiling",
    family=Family.INSECURE,
    severity=Severity.WARNING,
    summary="RAM, runtime, output, CPU, processes or disk have a default and no ceiling.",
    rationale=(
        "A default is only what holds where nobody chooses. Whoever may set the plugin's valves can go past it as far "
        "as they like, `unlimited` included, and lets everybody else go as far. Another file of the folder, or a "
        "variable, may state the ceiling."
    ),
    bad=Example(policy="[limits.max_ram_megabytes]\ndefault = 256\n"),
    good=Example(policy="[limits.max_ram_megabytes]\ndefault = 256\nceiling = 1024\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
