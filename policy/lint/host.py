"""What a host cannot enforce, out of what `sandbox doctor --json` says of it.

The doctor tries each limit in a real box, so its verdicts are taken as they are; it runs as a program of its own, since
`policy` imports nothing of `sandbox`. Facts that say nothing of any limit are an error, not a sign that all is well.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policy.errors import DocumentError
from policy.limits import LIMITS
from policy.lint.inputs import UnknownInputError
from policy.trusted_files import FileRule, read_to_review

DOCTOR_SECONDS = 120
"""How long the doctor may take; it needs some ten seconds."""
FAILED = "failed"
"""How the doctor calls a limit that it could break."""
_CONTROLLERS = {
    "max_ram_megabytes": "cgroup memory",
    "max_cpus": "cgroup cpu",
    "max_processes": "cgroup pids",
}
"""By limit, the check that says why it cannot be enforced, where its own only says that it cannot."""
_DOCTOR = ("-P", "-c", "from sandbox.main import main; main()", "doctor", "--json")  # -P: never out of this folder
_FACTS_FILE = FileRule(
    kind="facts of the host", max_bytes=1024 * 1024, owner_checked=False, secret=False, error=DocumentError
)
_KEPT_SETTINGS = ("SANDBOX_GVISOR_", "SANDBOX_PACKAGES_PATH")


def this_host() -> bytes:
    """What the doctor says of this host, as JSON.

    Raises:
        UnknownInputError: it cannot be run, does not end, or says nothing.
    """
    try:
        done = subprocess.run(
            [sys.executable, *_DOCTOR],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DOCTOR_SECONDS,
            check=False,
            env=_about_the_host(os.environ),
        )
    except OSError as error:
        raise UnknownInputError(f"sandbox doctor cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UnknownInputError(f"sandbox doctor did not end within {DOCTOR_SECONDS} seconds") from error
    if not done.stdout:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UnknownInputError(f"sandbox doctor said nothing of this host: {said or f'exit code {done.returncode}'}")
    return done.stdout


def facts_there(path: Path) -> bytes:
    """What a file says of a host.

    Raises:
        UnknownInputError: it cannot be read, is no regular file, or is larger than any doctor's words.
    """
    try:
        return read_to_review(path, _FACTS_FILE)
    except DocumentError as error:
        raise UnknownInputError(str(error.problems[0])) from error


def unenforceable(facts: bytes) -> dict[str, str]:
    """By limit, why the host of these facts cannot enforce it; empty where it can enforce them all.

    Args:
        facts: what `sandbox doctor --json` printed there.

    Raises:
        UnknownInputError: they are not what the doctor prints, or say nothing of the limits.
    """
    checks = _checks(facts)
    names = {limit.name for limit in LIMITS}
    if not any(check["name"] in names for check in checks):
        raise UnknownInputError(f"the facts of the host say nothing of the limits{_why_not(checks)}")
    failed = {check["name"]: check["detail"] for check in reversed(checks) if check["verdict"] == FAILED}
    why = {name: failed.get(_CONTROLLERS.get(name, ""), detail) for name, detail in failed.items() if name in names}
    if not why:
        return {}
    # Where not even the first box starts, the doctor says nothing of the limits that it would have tried after it.
    first = next(check["detail"] for check in checks if check["name"] in why)
    told = {check["name"] for check in checks}
    return {limit.name: why.get(limit.name, first) for limit in LIMITS if limit.name in why or limit.name not in told}


def _about_the_host(environ: Mapping[str, str]) -> dict[str, str]:
    """Without the variables of a deployment, which are not what is asked about."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith("SANDBOX_") or name.startswith(_KEPT_SETTINGS)
    }


def _checks(facts: bytes) -> Sequence[Mapping[str, str]]:
    try:
        told: Any = json.loads(facts)
    except (ValueError, RecursionError) as error:
        raise UnknownInputError("the facts of the host are no JSON; sandbox doctor --json prints them") from error
    checks = told.get("checks") if isinstance(told, dict) else None
    if not isinstance(checks, list) or not all(map(_is_check, checks)):
        raise UnknownInputError("the facts of the host are not those that sandbox doctor --json prints")
    return checks


def _is_check(untrusted: object) -> bool:
    return isinstance(untrusted, dict) and all(
        isinstance(untrusted.get(key), str) for key in ("name", "verdict", "detail")
    )


def _why_not(checks: Sequence[Mapping[str, str]]) -> str:
    failed = [f"{check['name']}: {check['detail']}" for check in checks if check["verdict"] == FAILED]
    return f"; failed was {'; '.join(failed)}" if failed else ""
