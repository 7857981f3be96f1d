"""SBP413: a variable that opens what must stay closed."""

from collections.abc import Iterator, Sequence

from policy.limits import NETWORK_PRIVATE_ALLOWED, REQUIRE_RESOURCE_LIMITING
from policy.lint.findings import Found, Severity
from policy.lint.openings import bounds, is_offline, names_addresses_only
from policy.lint.rule import EnvironmentRule, Example, Family, Suppressible
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.statements import Stated
from policy.values import UNLIMITED


def _check(environment: EnvironmentSubject, sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    for stated in environment.layer.statements if environment.layer else ():
        why = _why(stated, environment, sets)
        if why and not _is_brought_in(stated, environment, sets):
            variable, limit = stated.origin.place, stated.limit
            yield Found(
                message=f"{variable} is {limit.kind.text(stated.value)}, so {why}",
                remedy=_remedy(stated),
                location=environment.location(variable),
            )


def _why(stated: Stated, environment: EnvironmentSubject, sets: Sequence[PolicySet]) -> str:
    """What a statement opens; empty where it opens nothing of the kind."""
    if stated.value is UNLIMITED:
        return "one run may take all that there is"
    if stated.limit is REQUIRE_RESOURCE_LIMITING and not stated.value:
        return "code may run on a host that cannot hold it to its RAM, CPUs, processes and disk"
    if stated.limit is not NETWORK_PRIVATE_ALLOWED or not stated.value:
        return ""
    if is_offline(sets, environment) or names_addresses_only(sets, environment):
        return ""
    return "code may reach the server's own network, its loopback and the cloud's metadata service"


def _is_brought_in(stated: Stated, environment: EnvironmentSubject, sets: Sequence[PolicySet]) -> bool:
    """Whether something that this variable cannot go past is stricter."""
    within = stated.limit.kind.within
    return any(not within(stated.value, bound) for bound in bounds(stated.limit, sets, environment))


def _remedy(stated: Stated) -> str:
    if stated.value is not UNLIMITED:
        return f"Write {stated.origin.place}={str(not stated.value).lower()}"
    return f"Set the most that anybody needs; {stated.limit.words(stated.limit.built_in)} is built in"


RULE = EnvironmentRule(
    id="SBP413",
    name="insecure-variable",
    family=Family.ENVIRONMENT,
    severity=Severity.ERROR,
    needs=Need.ENVIRONMENT,
    summary="A variable permits private destinations, something unlimited, or runs whose limits cannot be enforced.",
    rationale=(
        "It is what unlimited-value, private-destinations-open and resource-limiting-optional say of policy files, and "
        "weighs more in a variable: no file can take it back, unless a policy says `env_may_loosen = false`."
    ),
    bad=Example(environment="SANDBOX_NETWORK_PRIVATE_ALLOWED=true\nSANDBOX_MAX_RAM_MEGABYTES__CEILING=unlimited\n"),
    good=Example(environment="SANDBOX_NETWORK_PRIVATE_ALLOWED=false\nSANDBOX_MAX_RAM_MEGABYTES__CEILING=4096\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
