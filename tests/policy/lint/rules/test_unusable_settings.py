import base64
from collections.abc import Mapping

import pytest

from policy.settings import SETTINGS
from sandbox.errors import InstallError
from sandbox.release import release_below_minimum, release_source
from tests.policy.lint.linting import findings, of_rule, places

SHA512 = "ab" * 64
KEYS = "SANDBOX_POLICY_KEYS=/etc/keys"
PATH = "SANDBOX_POLICY_PATH=/etc/policies"
KEY = f"ed25519:{base64.b64encode(bytes([9] + [0] * 31)).decode()}"
SMALL_ORDER_KEY = f"ed25519:{base64.b64encode(bytes(32)).decode()}"


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (["SANDBOX_POLICY_REQUIRED=true"], "SANDBOX_POLICY_PATH"),
        (["SANDBOX_POLICY_IDS=acme-prod"], "SANDBOX_POLICY_PATH"),
        (["SANDBOX_POLICY_MIN_SERIAL=acme-prod=3"], "SANDBOX_POLICY_PATH"),
        ([PATH], "SANDBOX_POLICY_PATH"),
        ([PATH, KEYS, "SANDBOX_POLICY_UNSIGNED_ALLOWED=true"], "SANDBOX_POLICY_UNSIGNED_ALLOWED"),
        (["SANDBOX_POLICY_THRESHOLD=2"], "SANDBOX_POLICY_THRESHOLD"),
        ([PATH, f"SANDBOX_POLICY_KEYS={KEY}", "SANDBOX_POLICY_THRESHOLD=2"], "SANDBOX_POLICY_THRESHOLD"),
        ([PATH, "SANDBOX_POLICY_KEYS=ops.pub"], "SANDBOX_POLICY_KEYS"),
        ([PATH, f"SANDBOX_POLICY_KEYS={SMALL_ORDER_KEY}"], "SANDBOX_POLICY_KEYS"),
        (["SANDBOX_AUDIT_REQUIRED=true"], "SANDBOX_AUDIT_REQUIRED"),
    ],
)
def test_each_combination_that_a_server_refuses_is_found(lines: list[str], key: str) -> None:
    environment = "".join(f"{line}\n" for line in lines)

    numbers = {line.partition("=")[0]: number for number, line in enumerate(lines, 1)}
    assert places("SBP412", environment=environment) == [(numbers.get(key, 1), 1, key)]


@pytest.mark.parametrize(
    "lines",
    [
        [PATH, KEYS, "SANDBOX_POLICY_THRESHOLD=2", "SANDBOX_POLICY_REQUIRED=true", "SANDBOX_POLICY_IDS=acme-prod"],
        [PATH, f"SANDBOX_POLICY_KEYS={KEY}"],
        [PATH, "SANDBOX_POLICY_UNSIGNED_ALLOWED=true"],
        ["SANDBOX_AUDIT_REQUIRED=true", "SANDBOX_AUDIT_LOG=/var/log/sandbox.jsonl"],
        ["SANDBOX_INSTANCE=prod-eu"],
        ["SANDBOX_MAX_CPUS=1"],
    ],
)
def test_what_a_server_takes_is_not_found(lines: list[str]) -> None:
    assert not places("SBP412", environment="".join(f"{line}\n" for line in lines))


def test_keys_that_lie_on_the_server_are_not_looked_for_here() -> None:
    assert not places("SBP412", environment=f"{PATH}\nSANDBOX_POLICY_KEYS=/no/such/folder\n")


def test_a_bad_key_is_not_shown() -> None:
    found = findings(environment=f"{PATH}\nSANDBOX_POLICY_KEYS=ed25519:Hunter2\n")

    assert of_rule("SBP412", found)
    assert "Hunter2" not in "".join(f"{each.message}{each.remedy}{each.excerpt}" for each in found)


GVISOR_SETTINGS = [
    {},
    {"version": "20260810"},
    {"sha512": SHA512},
    {"version": "20260810", "sha512": SHA512},
    {"version": "20260810", "sha512": SHA512, "min_version": "20260810"},
    {"version": "20260810", "sha512": SHA512, "min_version": "20260810.1"},
    {"version": "20260810.10", "sha512": SHA512, "min_version": "20260810.9"},
    {"version": "20240101", "sha512": SHA512, "min_version": "20260810"},
    {"url": "https://mirror.acme.example/gvisor"},
    {"url": "http://mirror.acme.example/gvisor"},
    {"url": "http://localhost:8000/gvisor"},
    {"url": "http://127.0.0.1:8000/gvisor"},
    {"url": "http://[::1]:8000/gvisor"},
    {"url": "http://10.0.0.1/gvisor"},
]


@pytest.mark.parametrize("settings", GVISOR_SETTINGS, ids=str)
def test_the_installer_and_the_rule_agree_about_gvisor(settings: Mapping[str, str]) -> None:
    environment = "".join(f"SANDBOX_GVISOR_{name.upper()}={value}\n" for name, value in settings.items())

    found = bool(places("SBP412", environment=f"SANDBOX_DEBUG=false\n{environment}"))

    assert found == _is_refused(settings)


def _is_refused(settings: Mapping[str, str]) -> bool:
    try:
        source = release_source(machine="x86_64", **settings)
    except InstallError:
        return True
    return release_below_minimum(source) is not None


def test_the_names_used_here_are_names_of_settings() -> None:
    known = {setting.variable for setting in SETTINGS}

    assert {f"SANDBOX_GVISOR_{name.upper()}" for each in GVISOR_SETTINGS for name in each} <= known
