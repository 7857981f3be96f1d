"""Each setting of the environment: what text it takes, and what it refuses."""

from datetime import timedelta
from typing import Any

import pytest

from policy.settings import (
    AUDIT_LOG,
    AUDIT_REQUIRED,
    FOREIGN_OK,
    GVISOR_MIN_VERSION,
    GVISOR_SHA512,
    GVISOR_URL,
    GVISOR_VERSION,
    INSTANCE,
    MAX_SERIAL,
    PACKAGES_PATH,
    POLICY_IDS,
    POLICY_KEYS,
    POLICY_MIN_SERIAL,
    POLICY_PATH,
    POLICY_REQUIRED,
    POLICY_THRESHOLD,
    POLICY_UNSIGNED_ALLOWED,
    POOL_IMPORTS,
    QUEUE_MAX_WAIT,
    QUEUE_SIZE,
    SETTINGS,
    Setting,
    SettingValues,
)

SHA512 = "0123456789abcdef" * 8
DESIGNED = {
    "policy_path",
    "policy_keys",
    "policy_threshold",
    "policy_required",
    "policy_unsigned_allowed",
    "policy_ids",
    "policy_min_serial",
    "policy_max_stale",
    "policy_state",
    "instance",
    "foreign_ok",
    "gvisor_url",
    "gvisor_version",
    "gvisor_sha512",
    "gvisor_min_version",
    "gvisor_platform",
    "network_mode",
    "packages_path",
    "pool_size",
    "pool_imports",
    "queue_size",
    "queue_max_wait",
    "audit_log",
    "audit_required",
}


def named(item: object) -> str:
    return item.name if isinstance(item, Setting) else ascii(item)[:40]


def test_table_has_every_setting_that_was_designed() -> None:
    assert {setting.name for setting in SETTINGS} == DESIGNED
    assert {setting.variable for setting in SETTINGS} == {f"SANDBOX_{name.upper()}" for name in DESIGNED}


def test_dangerous_settings_are_off_unless_set() -> None:
    unset = SettingValues({})
    assert unset[POLICY_UNSIGNED_ALLOWED] is False
    assert unset[POLICY_THRESHOLD] == 1
    assert unset[POLICY_PATH] is None
    assert unset[POLICY_REQUIRED] is False
    assert unset[AUDIT_LOG] is None
    assert unset[AUDIT_REQUIRED] is False
    assert unset[PACKAGES_PATH] is None
    assert unset[POOL_IMPORTS] == ()


def test_queue_is_bounded_unless_set() -> None:
    unset = SettingValues({})
    assert unset[QUEUE_SIZE] == 16
    assert unset[QUEUE_MAX_WAIT] == timedelta(seconds=60)


def test_value_that_is_set_stands_before_the_default() -> None:
    assert SettingValues({"policy_threshold": 3})[POLICY_THRESHOLD] == 3


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        (POLICY_PATH, "/etc/sandbox/policy.toml", "/etc/sandbox/policy.toml"),
        (POLICY_KEYS, "/etc/sandbox/keys", "/etc/sandbox/keys"),
        (POLICY_KEYS, "ed25519:AAAA", "ed25519:AAAA"),
        (POLICY_THRESHOLD, "2", 2),
        (POLICY_REQUIRED, "TRUE", True),
        (POLICY_IDS, "acme-prod", ("acme-prod",)),
        (POLICY_IDS, "a,b-1", ("a", "b-1")),
        (POLICY_MIN_SERIAL, f"a=1,b={MAX_SERIAL}", {"a": 1, "b": MAX_SERIAL}),
        (AUDIT_LOG, "/var/log/sandbox/audit.jsonl", "/var/log/sandbox/audit.jsonl"),
        (AUDIT_REQUIRED, "True", True),
        (PACKAGES_PATH, "/opt/sandbox-packages", "/opt/sandbox-packages"),
        (POOL_IMPORTS, "numpy,matplotlib.pyplot,_x1", ("numpy", "matplotlib.pyplot", "_x1")),
        (QUEUE_SIZE, "0", 0),
        (QUEUE_SIZE, "1000", 1000),
        (QUEUE_MAX_WAIT, "0s", timedelta(0)),
        (QUEUE_MAX_WAIT, "90s", timedelta(seconds=90)),
        (QUEUE_MAX_WAIT, "60m", timedelta(hours=1)),
        (INSTANCE, "prod-eu", "prod-eu"),
        (FOREIGN_OK, "SANDBOX_COLOUR,SANDBOX_TASTE", ("SANDBOX_COLOUR", "SANDBOX_TASTE")),
        (GVISOR_URL, "https://mirror.example/gvisor/", "https://mirror.example/gvisor"),
        (GVISOR_URL, "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        (GVISOR_URL, "http://[::1]:8000", "http://[::1]:8000"),
        (GVISOR_VERSION, "20260810.0", "20260810.0"),
        (GVISOR_MIN_VERSION, "20240729", "20240729"),
        (GVISOR_SHA512, SHA512, SHA512),
    ],
    ids=named,
)
def test_text_within_the_grammar_is_read(setting: Setting[Any], text: str, value: object) -> None:
    assert setting.parse(text) == value


@pytest.mark.parametrize("setting", SETTINGS, ids=named)
@pytest.mark.parametrize("text", ["", " ", "\n", "\x00", " /a", "/a\n", "/a\x00b", "/\udcff"], ids=ascii)
def test_empty_text_space_around_and_control_characters_are_refused(setting: Setting[Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".{8}"):
        setting.parse(text)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        *((AUDIT_LOG, text) for text in ("audit.jsonl", "~/audit.jsonl", "-", "syslog:", "file:///a")),
        *((POLICY_PATH, text) for text in ("policy.toml", "./policy", "~/policy", "file:///etc/policy", "C:\\policy")),
        *((POLICY_THRESHOLD, text) for text in ("0", "-1", "+1", "1.0", "1_0", "\u0661", "10000000", "unlimited")),
        *(
            (setting, text)
            for setting in (POLICY_REQUIRED, POLICY_UNSIGNED_ALLOWED, AUDIT_REQUIRED)
            for text in ("1", "yes", "on")
        ),
        *((POLICY_IDS, text) for text in ("A", "a,", ",a", "a, b", "a b", "a" * 65, "a/b", "../a", "a\n")),
        *((POLICY_MIN_SERIAL, text) for text in ("a", "a=", "=1", "a=0", "a=-1", "a=1,", "a=1,a=2", "A=1", "a=1.0")),
        *((POLICY_MIN_SERIAL, text) for text in (f"a={MAX_SERIAL + 1}", "a=\u0661", "a=1_0", "a==1", "a=1 ")),
        *((PACKAGES_PATH, text) for text in ("packages", "./packages", "~/packages", "/a,/b\n")),
        *((POOL_IMPORTS, text) for text in ("numpy,", ",numpy", "numpy, pandas", "a b", ".a", "a.", "a..b", "1a", "ä")),
        *(
            (QUEUE_SIZE, text)
            for text in ("-1", "1001", "00001", "+1", "1.0", "1_0", "\u0661", "16 ", "unlimited", "none")
        ),
        *(
            (QUEUE_MAX_WAIT, text)
            for text in ("60", "1.5m", "61m", "3601s", "2h", "1d", "-1s", "60S", "1m30s", "unlimited")
        ),
        *((FOREIGN_OK, text) for text in ("*", "SANDBOX_*", "A,", "A, B", "A B", "1A", "\u00c4")),
        *((GVISOR_URL, text) for text in ("ftp://a", "//a", "a", "https://", "https:///", "https://a b", "https://?")),
        *((GVISOR_VERSION, text) for text in ("latest", "2026", "20260810.", "release-20260810.0", "20260810.0.1")),
        *((GVISOR_SHA512, text) for text in (SHA512.upper(), SHA512[:-1], f"{SHA512}0", f"sha512:{SHA512}")),
    ],
    ids=named,
)
def test_text_outside_the_grammar_is_refused(setting: Setting[Any], text: str) -> None:
    with pytest.raises(ValueError, match=r".{8}"):
        setting.parse(text)
