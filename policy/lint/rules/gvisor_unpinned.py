"""SBP206: an automatic installation that may take a gVisor of any age."""

from collections.abc import Iterator

from policy.limits import AUTO_INSTALL
from policy.lint.findings import Found, Location, Severity
from policy.lint.openings import is_closed, policy_is_unknown
from policy.lint.rule import EnvironmentRule, Example, Family, Suppressible
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.settings import GVISOR_MIN_VERSION, GVISOR_VERSION


def _check(environment: EnvironmentSubject, sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    layer = environment.layer
    if layer is None or layer.settings[GVISOR_MIN_VERSION] is not None or policy_is_unknown(environment, sets):
        return
    if is_closed(AUTO_INSTALL, sets, environment):
        return
    yield Found(
        message=(
            "nothing locks auto-install off or sets SANDBOX_GVISOR_MIN_VERSION, so where the release host is out of "
            "reach, a missing gVisor is replaced by Debian's, however old that is"
        ),
        remedy=(
            "Set SANDBOX_AUTO_INSTALL=false and run `sandbox install` beforehand, or set SANDBOX_GVISOR_MIN_VERSION"
        ),
        location=_place(environment),
    )


def _place(environment: EnvironmentSubject) -> Location:
    """At the variable that comes nearest to it."""
    variables = (AUTO_INSTALL.variable, f"{AUTO_INSTALL.variable}__DEFAULT", GVISOR_VERSION.variable)
    known = next((name for name in variables if name in environment.variables), GVISOR_MIN_VERSION.variable)
    return environment.location(known)


RULE = EnvironmentRule(
    id="SBP206",
    name="gvisor-unpinned",
    family=Family.INSECURE,
    severity=Severity.WARNING,
    in_production=Severity.ERROR,
    needs=Need.ENVIRONMENT,
    summary="A missing gVisor may be installed, and no variable says how old it may be.",
    rationale=(
        "The official release is pinned by a SHA-512, in the code or by SANDBOX_GVISOR_VERSION and "
        "SANDBOX_GVISOR_SHA512. Where its host is out of reach, Debian's package is taken instead: signed, but of "
        "whatever version that Debian has, which may lack years of fixes, and pinning the release does not prevent it. "
        "SANDBOX_GVISOR_MIN_VERSION does, and locking auto-install off prevents both."
    ),
    bad=Example(environment="SANDBOX_AUTO_INSTALL=true\n"),
    good=Example(environment="SANDBOX_AUTO_INSTALL=true\nSANDBOX_GVISOR_MIN_VERSION=20260810\n"),
    suppressible=Suppressible.OUTSIDE_PRODUCTION,
    check=_check,
)
