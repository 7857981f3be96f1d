"""SBP301: limits that nothing bounds for everybody."""

from collections.abc import Iterator

from policy.limits import LANGUAGES, LIMITS, NETWORK_ALLOWLIST, NETWORK_PRIVATE_ALLOWED, NETWORKING_ALLOWED
from policy.lint.findings import Found, Location, Severity
from policy.lint.rule import Example, Family, SetRule
from policy.lint.subjects import FactStatement, PolicySet, Setup
from policy.statements import Stated, Verb

_OF_THE_NETWORK = frozenset({NETWORK_ALLOWLIST.name, NETWORK_PRIVATE_ALLOWED.name})
"""Of no weight where code reaches no network."""
_RELEVANT = tuple(limit.name for limit in LIMITS if limit is not LANGUAGES)
"""Not the languages: as built in all of them may run, and one reaches no further than another."""


def _check(policy_set: PolicySet, setup: Setup) -> Iterator[Found]:
    environment = setup.environment
    if not policy_set.complete or (environment and environment.layer is None):
        return  # what was left out or cannot be read may bound all of them
    statements = environment.layer.statements if environment and environment.layer else ()
    bounds = [said for file in policy_set.files for said in file.statements if said.verb is not Verb.DEFAULT]
    variables = [stated for stated in statements if stated.verb is not Verb.DEFAULT]
    bounded = {said.limit for said in bounds} | {stated.limit.name for stated in variables}
    if _no_network(bounds, variables):
        bounded |= _OF_THE_NETWORK
    free = [name for name in _RELEVANT if name not in bounded]
    if free:
        nothing = "neither a policy nor a variable" if environment else "no policy file of the folder"
        yield Found(
            message=f"{nothing} bounds {_listed(free)} for everybody, so an administrator's valve can open them",
            remedy="Lock each of them, or state its ceiling, in [limits] or by a variable",
            location=Location(file=policy_set.files[0].name),
        )


def _no_network(bounds: list[FactStatement], variables: list[Stated]) -> bool:
    """Whether nobody can reach a network, whatever valves say."""
    ours = [said for said in bounds if said.limit == NETWORKING_ALLOWED.name]
    theirs = [stated for stated in variables if stated.limit is NETWORKING_ALLOWED]
    if any(stated.verb is Verb.LOCK for stated in theirs):
        ours = [said for said in ours if not said.environment_may_loosen]
    return not all([*(said.value for said in ours), *(stated.value for stated in theirs)])


def _listed(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


RULE = SetRule(
    id="SBP301",
    name="unconstrained-limit",
    family=Family.TRUST,
    severity=Severity.NOTE,
    in_production=Severity.WARNING,
    summary="Limits that matter for security are neither locked nor held by a ceiling for everybody.",
    rationale=(
        "What no policy and no variable bounds, an administrator's valve in Open WebUI opens without end: memory, "
        "time, the network, the sandbox's internals. A default is no bound, and one in a scope holds only for some. "
        "It looks only where all files of the folder were named and are valid; with --env or --env-file, variables "
        "count too."
    ),
    bad=Example(policy="[limits]\nnetworking_allowed = false\nmax_runtime_seconds.ceiling = 60\n"),
    good=Example(
        policy="""[limits]
networking_allowed = false
auto_install = false
require_resource_limiting = true
debug = false
max_runtime_seconds.ceiling = 60
max_ram_megabytes.ceiling = 512
max_cpus.ceiling = 1
max_processes.ceiling = 64
max_disk_megabytes.ceiling = 64
max_output_kilobytes.ceiling = 256
max_file_megabytes.ceiling = 16
max_concurrent_runs.ceiling = 2
max_instance_runs.ceiling = 8
"""
    ),
    check=_check,
)
