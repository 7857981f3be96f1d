"""SBP416: a variable that opens more than a server for others needs."""

from collections.abc import Iterator, Sequence

from policy.limits import AUTO_INSTALL, DEBUG, NETWORKING_ALLOWED
from policy.lint.findings import Found, Severity
from policy.lint.openings import is_closed, reaches_anywhere
from policy.lint.rule import EnvironmentRule, Example, Family, Suppressible
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.statements import Stated


def _check(environment: EnvironmentSubject, sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    for stated in environment.layer.statements if environment.layer else ():
        why = _why(stated, environment, sets)
        if why and not is_closed(stated.limit, sets, environment):
            variable = stated.origin.place
            yield Found(
                message=f"{variable} is true, so {why[0]}",
                remedy=f"Write {variable}=false{why[1]}",
                location=environment.location(variable),
            )


def _why(stated: Stated, environment: EnvironmentSubject, sets: Sequence[PolicySet]) -> tuple[str, str] | None:
    """What a statement opens, and the end of the remedy; `None` where it opens nothing of the kind."""
    if stated.value is not True:
        return None
    if stated.limit is AUTO_INSTALL:
        return "a server without gVisor may download one", ", and run `sandbox install` beforehand"
    if stated.limit is DEBUG:
        return "chats may show the sandbox's internals", ""
    if stated.limit is NETWORKING_ALLOWED and reaches_anywhere(sets, environment):
        what = "code may send what it reads anywhere: nothing holds SANDBOX_NETWORK_ALLOWLIST to less than public"
        return what, ", or set SANDBOX_NETWORK_ALLOWLIST to the hosts that are needed"
    return None


RULE = EnvironmentRule(
    id="SBP416",
    name="lax-variable",
    family=Family.ENVIRONMENT,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    needs=Need.ENVIRONMENT,
    summary="A variable permits downloads of gVisor, internals in chats, or a network that nothing narrows.",
    rationale=(
        "It is what auto-install-open, debug-on and network-open say of policy files. In a variable it also stands "
        "above every policy that does not say `env_may_loosen = false`."
    ),
    bad=Example(environment="SANDBOX_DEBUG=true\nSANDBOX_NETWORKING_ALLOWED=true\n"),
    good=Example(
        environment="SANDBOX_DEBUG=false\nSANDBOX_NETWORKING_ALLOWED=true\nSANDBOX_NETWORK_ALLOWLIST=pypi.org:443\n"
    ),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
