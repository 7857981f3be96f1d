"""The one table of limits. Environment variables, TOML keys, valves, JSON Schema, docs and plugins derive from it.

To add a limit, add an entry to `LIMITS`; to enforce it is `sandbox`'s business. Each limit has one name everywhere:
valve `MAX_RUNTIME_SECONDS`, TOML `max_runtime_seconds`, variable `SANDBOX_MAX_RUNTIME_SECONDS`. Mega and kilo are
2^20 and 2^10.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, TypeVar

from policy.destinations import Destination, parse_destination
from policy.values import Destinations, Kind, Switch, Thousandths, Unlimited, Whole, Words

L = TypeVar("L")

VARIABLE_PREFIX = "SANDBOX_"


class Chooser(Enum):
    """Who has a valve for a limit."""

    PERSON = "person"
    """A person in their own valves; the administrator in the plugin's valves too."""
    ADMINISTRATOR = "administrator"
    """Only the plugin's valves."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts, for people."""

    one: str
    """Beside the number 1."""
    many: str
    """Beside every other number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit(Generic[L]):
    """One limit: everything about it that is not enforcement."""

    name: str
    """Its TOML key, in snake case; the other names derive from it."""
    kind: Kind[L]
    """The type, unit range and order of its values."""
    unit: Unit | None
    """What a number counts, for people; `None` where there is none."""
    built_in: L
    """What holds where no layer says anything, and the most a person gets unasked."""
    lockdown: L
    """What a deployment falls back to when its policy set is no longer good."""
    chosen_by: Chooser
    """Who has a valve for it."""
    may_go_unenforced: bool = False
    """Whether a run may go without it on a host that cannot enforce it, when `require_resource_limiting` is false."""
    description: str
    """One sentence for people, without full stop."""

    @property
    def variable(self) -> str:
        """The environment variable that locks it."""
        return f"{VARIABLE_PREFIX}{self.name.upper()}"

    @property
    def valve(self) -> str:
        """The valve in Open WebUI."""
        return self.name.upper()

    def words(self, value: L) -> str:
        """The value with its unit, for people."""
        text = self.kind.text(value)
        if self.unit is None or isinstance(value, Unlimited):
            return text
        return f"{text} {self.unit.one if text == '1' else self.unit.many}"


NETWORKING_ALLOWED: Limit[bool] = Limit(
    name="networking_allowed",
    kind=Switch(strict=False),
    unit=None,
    built_in=True,
    lockdown=False,
    chosen_by=Chooser.PERSON,
    description="Whether code may reach a network at all",
)
MAX_RUNTIME_SECONDS: Limit[int | Unlimited] = Limit(
    name="max_runtime_seconds",
    kind=Whole(minimum=1, maximum=86_400),
    unit=Unit("second", "seconds"),
    built_in=30,
    lockdown=10,
    chosen_by=Chooser.PERSON,
    description="Wall clock for the code, from the moment its interpreter is ready",
)
MAX_RAM_MEGABYTES: Limit[int | Unlimited] = Limit(
    name="max_ram_megabytes",
    kind=Whole(minimum=32, maximum=1_048_576),
    unit=Unit("megabyte", "megabytes"),
    built_in=128,
    lockdown=128,
    chosen_by=Chooser.PERSON,
    may_go_unenforced=True,
    description="Memory for the code, the files it writes included",
)
AUTO_INSTALL: Limit[bool] = Limit(
    name="auto_install",
    kind=Switch(strict=False),
    unit=None,
    built_in=True,
    lockdown=False,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Whether a missing gVisor may be downloaded",
)
NETWORK_ALLOWLIST: Limit[frozenset[Destination]] = Limit(
    name="network_allowlist",
    kind=Destinations(),
    unit=None,
    built_in=frozenset({parse_destination("public")}),
    lockdown=frozenset(),
    chosen_by=Chooser.ADMINISTRATOR,
    description="Where code may reach when it may reach a network",
)
NETWORK_PRIVATE_ALLOWED: Limit[bool] = Limit(
    name="network_private_allowed",
    kind=Switch(strict=False),
    unit=None,
    built_in=False,
    lockdown=False,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Whether code may reach loopback, LAN, link-local and metadata addresses too",
)
MAX_CPUS: Limit[Decimal | Unlimited] = Limit(
    name="max_cpus",
    kind=Thousandths(minimum=Decimal("0.01"), maximum=Decimal(1024)),
    unit=Unit("CPU", "CPUs"),
    built_in=Decimal(1),
    lockdown=Decimal("0.5"),
    chosen_by=Chooser.PERSON,
    may_go_unenforced=True,
    description="Share of the processors",
)
MAX_PROCESSES: Limit[int | Unlimited] = Limit(
    name="max_processes",
    kind=Whole(minimum=1, maximum=32_768),
    unit=Unit("process or thread", "processes and threads"),
    built_in=64,
    lockdown=32,
    chosen_by=Chooser.PERSON,
    may_go_unenforced=True,
    description="Processes and threads at once",
)
MAX_DISK_MEGABYTES: Limit[int | Unlimited] = Limit(
    name="max_disk_megabytes",
    kind=Whole(minimum=1, maximum=1_048_576),
    unit=Unit("megabyte", "megabytes"),
    built_in=64,
    lockdown=16,
    chosen_by=Chooser.PERSON,
    may_go_unenforced=True,
    description="Everything the code can write to, together",
)
MAX_OUTPUT_KILOBYTES: Limit[int | Unlimited] = Limit(
    name="max_output_kilobytes",
    kind=Whole(minimum=1, maximum=65_536, may_be_unlimited=False),
    unit=Unit("kilobyte", "kilobytes"),
    built_in=256,
    lockdown=64,
    chosen_by=Chooser.PERSON,
    description="Standard output and standard error that are kept, together",
)
MAX_FILE_MEGABYTES: Limit[int | Unlimited] = Limit(
    name="max_file_megabytes",
    kind=Whole(minimum=0, maximum=4_096, may_be_unlimited=False),
    unit=Unit("megabyte", "megabytes"),
    built_in=16,
    lockdown=0,
    chosen_by=Chooser.PERSON,
    description="Files handed in and out of each run",
)
MAX_CONCURRENT_RUNS: Limit[int | Unlimited] = Limit(
    name="max_concurrent_runs",
    kind=Whole(minimum=1, maximum=10_000),
    unit=Unit("run", "runs"),
    built_in=2,
    lockdown=1,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Runs at once for each person",
)
MAX_INSTANCE_RUNS: Limit[int | Unlimited] = Limit(
    name="max_instance_runs",
    kind=Whole(minimum=1, maximum=10_000),
    unit=Unit("run", "runs"),
    built_in=8,
    lockdown=2,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Runs at once on this instance",
)
LANGUAGES: Limit[frozenset[str]] = Limit(
    name="languages",
    kind=Words(choices=("python", "bash")),
    unit=None,
    built_in=frozenset({"python", "bash"}),
    lockdown=frozenset({"python", "bash"}),
    chosen_by=Chooser.PERSON,
    description="Languages that may run",
)
REQUIRE_RESOURCE_LIMITING: Limit[bool] = Limit(
    name="require_resource_limiting",
    kind=Switch(strict=True),
    unit=None,
    built_in=True,
    lockdown=True,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Whether to refuse a run where a RAM, CPU, process or disk limit cannot be enforced",
)
DEBUG: Limit[bool] = Limit(
    name="debug",
    kind=Switch(strict=False),
    unit=None,
    built_in=False,
    lockdown=False,
    chosen_by=Chooser.ADMINISTRATOR,
    description="Whether internals of the sandbox may be shown",
)

LIMITS: tuple[Limit[Any], ...] = (
    NETWORKING_ALLOWED,
    MAX_RUNTIME_SECONDS,
    MAX_RAM_MEGABYTES,
    AUTO_INSTALL,
    NETWORK_ALLOWLIST,
    NETWORK_PRIVATE_ALLOWED,
    MAX_CPUS,
    MAX_PROCESSES,
    MAX_DISK_MEGABYTES,
    MAX_OUTPUT_KILOBYTES,
    MAX_FILE_MEGABYTES,
    MAX_CONCURRENT_RUNS,
    MAX_INSTANCE_RUNS,
    LANGUAGES,
    REQUIRE_RESOURCE_LIMITING,
    DEBUG,
)
"""Every limit, in the order in which people see them."""


def limit_named(name: str) -> Limit[Any] | None:
    """The limit of this TOML key, or `None`."""
    return next((limit for limit in LIMITS if limit.name == name), None)
