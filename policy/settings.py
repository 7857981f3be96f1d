"""The second, small table: settings that only the environment can hold, and how each is read.

A setting is no limit: it says where policy files and keys are, where gVisor comes from, and how much waits for what.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from policy.limits import VARIABLE_PREFIX
from policy.values import Switch, spelt

S = TypeVar("S")

DOCUMENT_ID = r"[a-z0-9-]{1,64}"
"""What a policy file may call itself."""
GVISOR_PLATFORMS = ("systrap", "ptrace", "kvm")
"""What gVisor can catch system calls with; `kvm` hangs on some virtual machines, so it is never taken by itself."""
NETWORK_MODES = ("proxy", "namespace")
"""By which way code reaches what it may: an egress proxy that needs no rights, or a network namespace of its own."""
LONGEST_STALE = timedelta(days=90)
"""The longest time for which an old policy set can hold."""
LONGEST_QUEUE_WAIT = timedelta(hours=1)
"""The longest time for which a run can wait for its turn."""
LARGEST_POOL = 64
"""The most boxes that may wait for code."""
LARGEST_QUEUE = 1000
"""The most runs that can wait at once."""
MAX_DOCUMENT_BYTES = 64 * 1024
"""Size of one policy file."""
MAX_SERIAL = 2**53 - 1
"""The largest serial: the largest integer that every JSON reader holds exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Generic[S]):
    """One setting of the environment."""

    name: str
    """In snake case; the variable is its upper case behind the prefix."""
    parse: Callable[[str], S]
    """Reads the variable; ValueError says what is wrong."""
    grammar: str
    """What text is permitted, in words that complete "expected …"."""
    default: S
    """What holds where the variable is not set."""
    description: str
    """One sentence for people, without full stop."""

    @property
    def variable(self) -> str:
        """The environment variable that holds it."""
        return f"{VARIABLE_PREFIX}{self.name.upper()}"


@dataclass(frozen=True, slots=True)
class SettingValues:
    """What the environment says of the settings; what it leaves out has its default."""

    values: Mapping[str, Any]
    """By name, only those that are set."""

    def __getitem__(self, setting: Setting[S]) -> S:
        """The value of one setting."""
        value: S = self.values.get(setting.name, setting.default)
        return value


def _parse_text(text: str) -> str:
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError(f"{spelt(text)} is empty, or has space around it or control characters in it")
    return text


def _parse_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{spelt(text)} is not an absolute path")
    return _parse_text(text)


def _parse_threshold(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or int(text) < 1:
        raise ValueError(f"{spelt(text)} is not a whole number of at least 1")
    return int(text)


def _parse_ids(text: str) -> tuple[str, ...]:
    ids = tuple(text.split(","))
    for name in ids:
        if not re.fullmatch(DOCUMENT_ID, name):
            raise ValueError(f"{spelt(name)} is not a policy id")
    return ids


def _parse_serials(text: str) -> Mapping[str, int]:
    serials: dict[str, int] = {}
    for item in text.split(","):
        found = re.fullmatch(rf"({DOCUMENT_ID})=([0-9]{{1,16}})", item, re.ASCII)
        if found is None or not 1 <= int(found[2]) <= MAX_SERIAL or found[1] in serials:
            raise ValueError(f"{spelt(item)} is not a distinct id=serial")
        serials[found[1]] = int(found[2])
    return serials


def _parse_duration(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    found = re.fullmatch(r"([0-9]{1,7})([smhd])", text, re.ASCII)
    if found is None:
        raise ValueError(f"{spelt(text)} is not a duration such as 24h")
    duration = timedelta(**{units[found[2]]: int(found[1])})
    if duration > LONGEST_STALE:
        raise ValueError(f"{spelt(text)} is longer than {LONGEST_STALE.days}d")
    return duration


def _parse_queue_wait(text: str) -> timedelta:
    wait = _parse_duration(text)
    if wait > LONGEST_QUEUE_WAIT:
        raise ValueError(f"{spelt(text)} is longer than 1h")
    return wait


def _parse_queue_size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or int(text) > LARGEST_QUEUE:
        raise ValueError(f"{spelt(text)} is not a whole number from 0 to {LARGEST_QUEUE}")
    return int(text)


def _parse_pool_size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII) or int(text) > LARGEST_POOL:
        raise ValueError(f"{spelt(text)} is not a whole number from 0 to {LARGEST_POOL}")
    return int(text)


def _parse_variable_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
            raise ValueError(f"{spelt(name)} is not the name of a variable")
    return names


def _parse_module_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", name, re.ASCII):
            raise ValueError(f"{spelt(name)} is not the name of a Python module")
    return names


def _parse_version(text: str) -> str:
    if not re.fullmatch(r"[0-9]{8}(\.[0-9]{1,4})?", text, re.ASCII):
        raise ValueError(f"{spelt(text)} is not a gVisor version such as 20260810.0")
    return text


def _parse_word_of(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise ValueError(f"{spelt(text)} is none of {', '.join(words)}")
    return text


def _parse_sha512(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{128}", text):
        raise ValueError(f"{spelt(text)} is not a SHA-512 in 128 lower-case hexadecimal digits")
    return text


def _parse_url(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9\[][!-~]*", text, re.ASCII):
        raise ValueError(f"{spelt(text)} is not an http or https address")
    return text.rstrip("/")


_SWITCH = Switch(strict=True)

POLICY_PATH: Setting[str | None] = Setting(
    name="policy_path",
    parse=_parse_path,
    grammar="the absolute path of a policy file, or of a folder of *.toml",
    default=None,
    description="Policy file, or folder of *.toml; once set, a policy is required",
)
POLICY_KEYS: Setting[str | None] = Setting(
    name="policy_keys",
    parse=_parse_text,
    grammar="the absolute path of a PEM file or folder, or ed25519:<base64> items separated by commas",
    default=None,
    description="Public keys whose signatures count",
)
POLICY_THRESHOLD: Setting[int] = Setting(
    name="policy_threshold",
    parse=_parse_threshold,
    grammar="a whole number from 1 to the number of keys",
    default=1,
    description="How many distinct keys must have signed each policy file",
)
POLICY_REQUIRED: Setting[bool] = Setting(
    name="policy_required",
    parse=_SWITCH.parse,
    grammar=_SWITCH.grammar,
    default=False,
    description="Refuse to run while SANDBOX_POLICY_PATH is not set",
)
POLICY_UNSIGNED_ALLOWED: Setting[bool] = Setting(
    name="policy_unsigned_allowed",
    parse=_SWITCH.parse,
    grammar=_SWITCH.grammar,
    default=False,
    description="Accept policy files without signatures",
)
POLICY_IDS: Setting[tuple[str, ...]] = Setting(
    name="policy_ids",
    parse=_parse_ids,
    grammar="policy ids separated by commas",
    default=(),
    description="Policy ids that must be present",
)
POLICY_MIN_SERIAL: Setting[Mapping[str, int]] = Setting(
    name="policy_min_serial",
    parse=_parse_serials,
    grammar="id=serial items separated by commas",
    default={},
    description="The lowest serial accepted, by policy id",
)
POLICY_MAX_STALE: Setting[timedelta] = Setting(
    name="policy_max_stale",
    parse=_parse_duration,
    grammar="a whole number followed by s, m, h or d, at most 90d",
    default=timedelta(hours=24),
    description="How long the last good policy set holds once the current one is refused or expired",
)
POLICY_STATE: Setting[str | None] = Setting(
    name="policy_state",
    parse=_parse_path,
    grammar="the absolute path of a folder that only the running user can use",
    default=None,
    description="Folder for what this instance remembers of policies; without it, old policies are not told from new",
)
INSTANCE: Setting[str | None] = Setting(
    name="instance",
    parse=_parse_text,
    grammar="a name",
    default=None,
    description="The name of this instance, held against each policy's audience",
)
FOREIGN_OK: Setting[tuple[str, ...]] = Setting(
    name="foreign_ok",
    parse=_parse_variable_names,
    grammar="names of variables separated by commas",
    default=(),
    description="SANDBOX_* variables that belong to other software",
)
GVISOR_URL: Setting[str | None] = Setting(
    name="gvisor_url",
    parse=_parse_url,
    grammar="an http or https address",
    default=None,
    description="Where gVisor releases are fetched, in place of the official address",
)
GVISOR_VERSION: Setting[str | None] = Setting(
    name="gvisor_version",
    parse=_parse_version,
    grammar="a release such as 20260810.0",
    default=None,
    description="The gVisor release to install; only together with SANDBOX_GVISOR_SHA512",
)
GVISOR_SHA512: Setting[str | None] = Setting(
    name="gvisor_sha512",
    parse=_parse_sha512,
    grammar="128 lower-case hexadecimal digits",
    default=None,
    description="SHA-512 of that release's gvisor.tar.bz2; only together with SANDBOX_GVISOR_VERSION",
)
GVISOR_MIN_VERSION: Setting[str | None] = Setting(
    name="gvisor_min_version",
    parse=_parse_version,
    grammar="a release such as 20240729",
    default=None,
    description="The oldest gVisor that may run code",
)
GVISOR_PLATFORM: Setting[str | None] = Setting(
    name="gvisor_platform",
    parse=partial(_parse_word_of, GVISOR_PLATFORMS),
    grammar=f"one of {', '.join(GVISOR_PLATFORMS)}",
    default=None,
    description="How gVisor catches system calls; unset, what works is found by trying",
)
NETWORK_MODE: Setting[str] = Setting(
    name="network_mode",
    parse=partial(_parse_word_of, NETWORK_MODES),
    grammar=f"one of {', '.join(NETWORK_MODES)}",
    default="proxy",
    description="How code reaches what it may: `proxy` needs no rights; `namespace` is for programs that know no proxy",
)
PACKAGES_PATH: Setting[str | None] = Setting(
    name="packages_path",
    parse=_parse_path,
    grammar="the absolute path of a virtual environment, or of a folder as pip install --target makes it",
    default=None,
    description="Python packages offered to code, read-only",
)
POOL_SIZE: Setting[int | None] = Setting(
    name="pool_size",
    parse=_parse_pool_size,
    grammar=f"a whole number from 0 to {LARGEST_POOL}",
    default=None,
    description="How many started boxes wait for code, all processes together; unset, as memory permits, up to 4",
)
POOL_IMPORTS: Setting[tuple[str, ...]] = Setting(
    name="pool_imports",
    parse=_parse_module_names,
    grammar="names of Python modules separated by commas",
    default=(),
    description="Modules that waiting boxes import beforehand",
)
QUEUE_SIZE: Setting[int] = Setting(
    name="queue_size",
    parse=_parse_queue_size,
    grammar=f"a whole number from 0 to {LARGEST_QUEUE}",
    default=16,
    description="How many runs may wait for their turn, a quarter of them one person's; 0 refuses at once",
)
QUEUE_MAX_WAIT: Setting[timedelta] = Setting(
    name="queue_max_wait",
    parse=_parse_queue_wait,
    grammar="a whole number followed by s, m, h or d, at most 1h",
    default=timedelta(seconds=60),
    description="How long a run waits for its turn before it is refused",
)
AUDIT_LOG: Setting[str | None] = Setting(
    name="audit_log",
    parse=_parse_path,
    grammar="the absolute path of a file",
    default=None,
    description="File that gets one line for each run",
)
AUDIT_REQUIRED: Setting[bool] = Setting(
    name="audit_required",
    parse=_SWITCH.parse,
    grammar=_SWITCH.grammar,
    default=False,
    description="Refuse to run while the audit log cannot be written",
)

SETTINGS: tuple[Setting[Any], ...] = (
    POLICY_PATH,
    POLICY_KEYS,
    POLICY_THRESHOLD,
    POLICY_REQUIRED,
    POLICY_UNSIGNED_ALLOWED,
    POLICY_IDS,
    POLICY_MIN_SERIAL,
    POLICY_MAX_STALE,
    POLICY_STATE,
    INSTANCE,
    FOREIGN_OK,
    GVISOR_URL,
    GVISOR_VERSION,
    GVISOR_SHA512,
    GVISOR_MIN_VERSION,
    GVISOR_PLATFORM,
    NETWORK_MODE,
    PACKAGES_PATH,
    POOL_SIZE,
    POOL_IMPORTS,
    QUEUE_SIZE,
    QUEUE_MAX_WAIT,
    AUDIT_LOG,
    AUDIT_REQUIRED,
)
"""Every setting, in the order in which people see them."""
