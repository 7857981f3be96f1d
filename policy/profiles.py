"""Named profiles: for a kind of deployment, what a policy file says of each limit, and why.

A profile is where a policy of one's own begins, never a policy itself: `policy init` writes it out, with the reasons as
comments, to be read, changed and signed. Each profile takes a stand on every limit of the table, be it to leave it
open. The values are chosen by hand; each profile names where they come from.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType
from typing import Any

from policy.limits import (
    AUTO_INSTALL,
    DEBUG,
    LANGUAGES,
    MAX_CONCURRENT_RUNS,
    MAX_CPUS,
    MAX_DISK_MEGABYTES,
    MAX_FILE_MEGABYTES,
    MAX_INSTANCE_RUNS,
    MAX_OUTPUT_KILOBYTES,
    MAX_PROCESSES,
    MAX_RAM_MEGABYTES,
    MAX_RUNTIME_SECONDS,
    NETWORK_ALLOWLIST,
    NETWORK_PRIVATE_ALLOWED,
    NETWORKING_ALLOWED,
    REQUIRE_RESOURCE_LIMITING,
    Limit,
)
from policy.requester import TOOL_SURFACE, ScopeConditions
from policy.statements import Verb
from policy.values import Native

LONGEST_DAYS = 3_650
"""How long a started policy may hold at most: ten years, which is no recommendation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedFinding:
    """What `policy lint` would find in a starter, and the profile means."""

    rule: str
    """The rule's name."""
    reason: str
    """Why it is meant; no quotes, no full stop."""


@dataclass(frozen=True, slots=True)
class LimitChoice:
    """What a profile says of one limit; one without lock, ceiling and default leaves it open."""

    limit: Limit[Any]
    """Which limit."""
    why: str
    """For whoever edits the file; one line, without full stop."""
    _: KW_ONLY
    lock: Native | None = None
    """Exactly this; `None` where it is not locked."""
    default: Native | None = None
    """This, where nobody chooses; `None` where none is stated."""
    ceiling: Native | None = None
    """Nothing looser than this; `None` where none is stated."""
    reason: str = ""
    """For people who meet the bound; empty where they hardly will."""
    env_may_loosen: bool = True
    """Whether a variable on the server may be looser."""
    accepted: AcceptedFinding | None = None
    """What is meant, though `policy lint` finds it in the first line of what is stated; `None` where nothing is."""

    def __post_init__(self) -> None:
        """Refuse what no policy file could say.

        Raises:
            ValueError: a value is none of the limit's, or something stands beside a lock, or beside nothing.
        """
        for native in self.stated.values():
            self.limit.kind.from_native(native)
        if self.lock is not None and len(self.stated) > 1:
            raise ValueError(f"{self.limit.name}: something stands beside a lock")
        if self.left_open and (self.reason or not self.env_may_loosen):
            raise ValueError(f"{self.limit.name}: there is nothing to give a reason for")

    @property
    def stated(self) -> Mapping[Verb, Native]:
        """What is stated, in the order in which people read it."""
        said = {Verb.LOCK: self.lock, Verb.DEFAULT: self.default, Verb.CEILING: self.ceiling}
        return MappingProxyType({verb: native for verb, native in said.items() if native is not None})

    @property
    def left_open(self) -> bool:
        """Whether nothing is stated."""
        return not self.stated

    @property
    def is_plain_lock(self) -> bool:
        """Whether it fits `name = value`."""
        return self.lock is not None and not self.reason and self.env_may_loosen


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileScope:
    """Stricter limits for some."""

    why: str
    """For whoever edits the file; one line, without full stop."""
    conditions: ScopeConditions
    """Whom it is for."""
    ceilings: tuple[tuple[Limit[Any], Native], ...]
    """What it says of limits."""
    accepted: AcceptedFinding | None = None
    """What is meant, though `policy lint` finds it in the first condition; `None` where nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where a policy for one kind of deployment begins."""

    name: str
    """What people call it by, and the policy's id unless they choose another."""
    summary: str
    """Whom it is for, in one line without full stop."""
    description: str
    """The policy's own description, which people may see."""
    choices: tuple[LimitChoice, ...]
    """One for each limit of the table, in its order."""
    scopes: tuple[ProfileScope, ...] = ()
    """Stricter limits for some."""
    longest_days: int = LONGEST_DAYS
    """How long the policy may hold at most."""
    names_instances: bool = False
    """Whether an owner must be named, and the instances it is for, each by its own name."""


SINGLE_USER = Profile(
    name="single-user",
    summary="one person whom you trust, on a machine of their own",
    description="One trusted person: comfortable, and bounded against mistakes",
    choices=(
        LimitChoice(
            NETWORKING_ALLOWED,
            "fetching a page or a data set is what you want; a valve turns it off",
            default=True,
            accepted=AcceptedFinding(rule="network-open", reason="nobody but you has chats here"),
        ),
        LimitChoice(
            MAX_RUNTIME_SECONDS,
            "a minute unasked; ten where you raise the valve",
            default=60,
            ceiling=600,
            reason="a loop that never ends should not run all night",
        ),
        LimitChoice(
            MAX_RAM_MEGABYTES,
            "enough for a table of some million rows; not your whole machine",
            default=512,
            ceiling=4096,
            reason="the rest of the machine stays usable",
        ),
        LimitChoice(
            AUTO_INSTALL,
            "nobody else installs gVisor for you; say false once `sandbox install` has run",
            default=True,
            accepted=AcceptedFinding(rule="auto-install-open", reason="nobody else waits for it"),
        ),
        LimitChoice(NETWORK_ALLOWLIST, "any public address", ceiling=["public"]),
        LimitChoice(
            NETWORK_PRIVATE_ALLOWED,
            "code out of a chat has no business with your router, printer and other machines",
            lock=False,
        ),
        LimitChoice(MAX_CPUS, "the desktop keeps answering", default=2, ceiling=4),
        LimitChoice(MAX_PROCESSES, "build tools start many; a fork bomb starts more", default=128, ceiling=512),
        LimitChoice(
            MAX_DISK_MEGABYTES, "everything that code writes, temporary files included", default=256, ceiling=2048
        ),
        LimitChoice(MAX_OUTPUT_KILOBYTES, "a model reads all of it; more only costs", default=256, ceiling=1024),
        LimitChoice(MAX_FILE_MEGABYTES, "pictures and tables; raise it for videos", default=16, ceiling=256),
        LimitChoice(
            MAX_CONCURRENT_RUNS, "two chats at once; four where a valve of the plugin says so", default=2, ceiling=4
        ),
        LimitChoice(MAX_INSTANCE_RUNS, "you are the only one here: no more than max_concurrent_runs", ceiling=4),
        LimitChoice(LANGUAGES, "whatever this version runs is yours to use"),
        LimitChoice(
            REQUIRE_RESOURCE_LIMITING,
            "a laptop without cgroups cannot limit RAM and CPU; a valve of the plugin lets code run there all the same",
            default=True,
        ),
        LimitChoice(DEBUG, "what it shows is your own machine; off until you turn the plugin's valve on"),
    ),
)
"""One person alone, who is administrator too.

Source: the built-in values, doubled or more where one machine serves one person; ceilings are what a laptop with four
cores and 8 GB can give without swapping.
"""

CLASSROOM = Profile(
    name="classroom",
    summary="many people who do not know each other, and a few who look after them",
    description="A class: no network, short runs, a fair share for everybody",
    choices=(
        LimitChoice(
            NETWORKING_ALLOWED, "nobody mines, scans or looks up answers", lock=False, reason="no network in class"
        ),
        LimitChoice(
            MAX_RUNTIME_SECONDS,
            "an exercise takes seconds; 60 is for staff, see the scopes below",
            default=10,
            ceiling=60,
            reason="everybody shares this machine",
        ),
        LimitChoice(
            MAX_RAM_MEGABYTES,
            "an exercise fits; 512 is for staff, see the scopes below",
            default=128,
            ceiling=512,
            reason="everybody shares this machine",
        ),
        LimitChoice(AUTO_INSTALL, "install gVisor before the lesson: sandbox install", lock=False),
        LimitChoice(
            NETWORK_ALLOWLIST, "nowhere, should a network be allowed one day: then name the hosts here", lock=[]
        ),
        LimitChoice(NETWORK_PRIVATE_ALLOWED, "the school's own network stays out of reach", lock=False),
        LimitChoice(MAX_CPUS, "half a core each; eight at once fit four cores", default=0.5, ceiling=1),
        LimitChoice(
            MAX_PROCESSES,
            "threads are taught with a handful; a fork bomb ends here",
            default=32,
            ceiling=64,
            reason="so that nobody stops the others",
        ),
        LimitChoice(MAX_DISK_MEGABYTES, "exercises write little", default=16, ceiling=64),
        LimitChoice(MAX_OUTPUT_KILOBYTES, "an endless print ends here", default=64, ceiling=256),
        LimitChoice(
            MAX_FILE_MEGABYTES, "a data set for an exercise", default=4, ceiling=16, reason="keep hand-ins small"
        ),
        LimitChoice(MAX_CONCURRENT_RUNS, "one after the other, so that all get their turn", lock=1),
        LimitChoice(MAX_INSTANCE_RUNS, "8 runs of 512 + 64 MB fit 5 GB; count again for your machine", ceiling=8),
        LimitChoice(
            LANGUAGES, "a language that an update brings stays off until you add it", ceiling=["python", "bash"]
        ),
        LimitChoice(
            REQUIRE_RESOURCE_LIMITING,
            "without limits one person stops everybody",
            lock=True,
            env_may_loosen=False,
        ),
        LimitChoice(
            DEBUG, "it shows the server's inside to people who may be curious", lock=False, env_may_loosen=False
        ),
    ),
    scopes=(
        ProfileScope(
            why='Everybody except who is in the group "staff" of Open WebUI (without such a group: everybody)',
            conditions=ScopeConditions(match={}, excepted={"groups": frozenset({"staff"})}),
            ceilings=((MAX_RUNTIME_SECONDS, 20), (MAX_RAM_MEGABYTES, 256)),
        ),
        ProfileScope(
            why="Code that the model runs by itself, which nobody has read; administrators may try more",
            conditions=ScopeConditions(
                match={"surface": frozenset({TOOL_SURFACE})}, excepted={"roles": frozenset({"admin"})}
            ),
            ceilings=((MAX_RUNTIME_SECONDS, 15),),
            accepted=AcceptedFinding(rule="scope-on-chosen-attribute", reason="people read what they run"),
        ),
    ),
)
"""A school, a course, a workshop.

Source: the lockdown values of the table as defaults; ceilings sized so that eight runs at once fit a server of four
cores and 8 GB beside Open WebUI.
"""

PRODUCTION = Profile(
    name="production",
    summary="a shared service with people whose data matters, looked after by a team",
    description="Production: no network, small boxes, a bound on everything",
    longest_days=90,
    names_instances=True,
    choices=(
        LimitChoice(
            NETWORKING_ALLOWED,
            "chats hold other people's data, and code could send it anywhere",
            lock=False,
            reason="chats may hold confidential data",
            env_may_loosen=False,
        ),
        LimitChoice(
            MAX_RUNTIME_SECONDS,
            "plots and tables take seconds",
            default=20,
            ceiling=60,
            reason="many people share this service",
            env_may_loosen=False,
        ),
        LimitChoice(
            MAX_RAM_MEGABYTES,
            "4 runs of 256 + 64 MB fit 1.3 GB; count again before you raise it",
            default=128,
            ceiling=256,
            reason="many people share this service",
            env_may_loosen=False,
        ),
        LimitChoice(
            AUTO_INSTALL,
            "the image brings a gVisor that you tested: sandbox install, while it is built",
            lock=False,
            reason="gVisor comes with the server's image",
            env_may_loosen=False,
        ),
        LimitChoice(
            NETWORK_ALLOWLIST,
            'nowhere; to open it: hosts here, as in ["api.acme.example:443"], and networking_allowed = true above',
            lock=[],
            reason="chats may hold confidential data",
            env_may_loosen=False,
        ),
        LimitChoice(
            NETWORK_PRIVATE_ALLOWED,
            "databases, metadata services and the server itself stay out of reach",
            lock=False,
            reason="internal services stay out of reach",
            env_may_loosen=False,
        ),
        LimitChoice(
            MAX_CPUS,
            "one core at most, so that four runs leave the server its own",
            default=0.5,
            ceiling=1,
            reason="many people share this service",
        ),
        LimitChoice(MAX_PROCESSES, "numeric libraries start a thread for each core", default=32, ceiling=64),
        LimitChoice(MAX_DISK_MEGABYTES, "scratch space, gone after the run", default=16, ceiling=64),
        LimitChoice(MAX_OUTPUT_KILOBYTES, "a model reads all of it, and you pay for it", default=64, ceiling=256),
        LimitChoice(
            MAX_FILE_MEGABYTES,
            "no files in or out until you decide who may; then a ceiling",
            lock=0,
            reason="files are not handed to code here",
        ),
        LimitChoice(
            MAX_CONCURRENT_RUNS, "one at a time; two where a valve of the plugin says so", default=1, ceiling=2
        ),
        LimitChoice(MAX_INSTANCE_RUNS, "what the server can carry at once; see max_ram_megabytes", ceiling=4),
        LimitChoice(
            LANGUAGES, "a language that an update brings stays off until you review it", ceiling=["python", "bash"]
        ),
        LimitChoice(
            REQUIRE_RESOURCE_LIMITING,
            "where a limit cannot be enforced, better no run",
            lock=True,
            reason="a run without limits could stop the service for everybody",
            env_may_loosen=False,
        ),
        LimitChoice(
            DEBUG,
            "it would show the server's inside in chats",
            lock=False,
            reason="it shows the server's inside",
            env_may_loosen=False,
        ),
    ),
)
"""A service that others depend on.

Source: `examples/lockdown.env`, whose defaults are the lockdown values of the table; ninety days are what `policy lint`
asks for, so that nobody's decision outlives the people who made it.
"""

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {profile.name: profile for profile in (SINGLE_USER, CLASSROOM, PRODUCTION)}
)
"""By name, from the least strict to the strictest."""
