"""SBP412: settings that can each be read, and with which no server runs code."""

import ipaddress
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from policy.errors import PolicyError, Problem
from policy.limits import VARIABLE_PREFIX
from policy.lint.findings import Found, Severity
from policy.lint.rule import EnvironmentRule, Example, Family, Suppressible
from policy.lint.subjects import EnvironmentSubject, Need, PolicySet, Setup
from policy.settings import (
    GVISOR_MIN_VERSION,
    GVISOR_SHA512,
    GVISOR_URL,
    GVISOR_VERSION,
    POLICY_KEYS,
    POLICY_PATH,
    POLICY_UNSIGNED_ALLOWED,
    SettingValues,
)


def _check(environment: EnvironmentSubject, _sets: tuple[PolicySet, ...], _setup: Setup) -> Iterator[Found]:
    settings = environment.layer.settings if environment.layer else SettingValues({})
    if not settings.values:
        return
    for problem in (*_of_policies(settings), *_of_gvisor(settings)):
        # What is wrong with a key names the variable that holds it, and which of its items it is.
        of_key = not problem.key.startswith(VARIABLE_PREFIX)
        yield Found(
            message=f"{problem.origin if of_key else problem.key}: {problem.reason}",
            remedy=problem.remedy,
            location=environment.location(POLICY_KEYS.variable if of_key else problem.key),
        )


def _of_policies(settings: SettingValues) -> Iterator[Problem]:
    """What the loader of policies would refuse, as far as it needs no file of the server."""
    # Loaded here, since cryptography takes longer than most files to lint.
    from policy.load import (  # noqa: PLC0415
        read_keys,
        refuse_contradictions,
        refuse_missing_path,
        trusted_reader,
    )
    from policy.refusals import setting_problem  # noqa: PLC0415

    keys, path = settings[POLICY_KEYS], settings[POLICY_PATH]
    yield from _refusals(lambda: refuse_contradictions(settings))
    if path is None:
        yield from _refusals(lambda: refuse_missing_path(settings))
    elif keys is None and not settings[POLICY_UNSIGNED_ALLOWED]:
        reason = f"no key is named, so no signature of a policy in {path} can count"
        yield setting_problem(POLICY_PATH.variable, reason, f"Name the public keys in {POLICY_KEYS.variable}")
    if keys is None or not keys.startswith("/"):
        yield from _refusals(lambda: read_keys(settings, trusted_reader()))


def _refusals(refuse: Callable[[], object]) -> tuple[Problem, ...]:
    try:
        refuse()
    except PolicyError as error:
        return error.problems
    return ()


def _of_gvisor(settings: SettingValues) -> Iterator[Problem]:
    """What the installer would refuse; `sandbox.release` decides, and a test holds the two together."""
    from policy.refusals import setting_problem  # noqa: PLC0415

    url, version, sha512 = settings[GVISOR_URL], settings[GVISOR_VERSION], settings[GVISOR_SHA512]
    least = settings[GVISOR_MIN_VERSION]
    if (version is None) != (sha512 is None):
        there, lacking = (GVISOR_VERSION, GVISOR_SHA512) if sha512 is None else (GVISOR_SHA512, GVISOR_VERSION)
        reason = f"it is set without {lacking.variable}, and a release is only safe with its own checksum"
        yield setting_problem(there.variable, reason, "Set both, or neither")
    if url is not None and url.startswith("http:") and not _is_loopback(url):
        reason = "it is plain http, by which nothing but this host itself is asked"
        yield setting_problem(GVISOR_URL.variable, reason, "Write an https address")
    if version is not None and least is not None and _numbers(version) < _numbers(least):
        reason = f"the release to install, {version}, is older than {least}"
        yield setting_problem(GVISOR_MIN_VERSION.variable, reason, f"Raise {GVISOR_VERSION.variable}, or lower it")


def _is_loopback(url: str) -> bool:
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return False


def _numbers(version: str) -> tuple[int, int]:
    date, _, patch = version.partition(".")
    return int(date), int(patch or 0)


RULE = EnvironmentRule(
    id="SBP412",
    name="unusable-settings",
    family=Family.ENVIRONMENT,
    severity=Severity.ERROR,
    needs=Need.ENVIRONMENT,
    summary="Settings contradict each other, or one lacks another that it needs.",
    rationale=(
        "Each variable by itself can be read, and a server with all of them refuses to run code: a policy is required "
        "and no path names one, policies are named and no key is, a threshold is above the number of keys, unsigned "
        "policies are allowed beside keys, the audit log is required and not named, a gVisor release has no checksum, "
        "or would come over plain http."
    ),
    bad=Example(environment="SANDBOX_POLICY_REQUIRED=true\nSANDBOX_GVISOR_VERSION=20260810\n"),
    good=Example(
        environment=(
            "SANDBOX_POLICY_REQUIRED=true\nSANDBOX_POLICY_PATH=/etc/sandbox/policies\n"
            "SANDBOX_POLICY_KEYS=/etc/sandbox/keys\n"
        )
    ),
    suppressible=Suppressible.NEVER,
    check=_check,
)
