"""What this host or container lacks for starting boxes, and the exact setting that adds it.

`lacking` turns facts (`host_facts` gathers them), and what gVisor said, purely into the pieces that are missing. There
are two ways to start a box, as root and rootless, and the one that lacks less is the one to mend. docs/setup.md has a
table of the pieces, which a test holds equal to this one.
Source: capabilities(7), user_namespaces(7), seccomp(2); measured in containers with gVisor 20221219 and 20240729.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

OLD_RELEASE = "2023"
"""gVisor before this mounts a /proc of its own inside a box's container even when rootless."""


class Surroundings(StrEnum):
    """What kind of place this is."""

    KUBERNETES = "in a Kubernetes pod"
    """A container of a pod."""
    CONTAINER = "in a container"
    """Docker's, Podman's or the like."""
    HOST = "not in a container"
    """A machine, virtual or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One thing that starting boxes, or limiting them, may lack."""

    name: str
    """What it is, for people."""
    docker: str
    """The flag of `docker run` and `podman run`; empty where it is no matter of the container's."""
    compose: str
    """The same for Compose."""
    kubernetes: str
    """The same for a pod, below the container's `securityContext` unless it says otherwise."""
    host: str
    """What to do where there is no container, or where only the host can do it."""
    why: str
    """What it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What was found of this process's surroundings."""

    surroundings: Surroundings
    """What kind of place this is."""
    root: bool
    """Whether this process's user is 0."""
    inside_gvisor: bool = False
    """Whether the kernel is gVisor's own."""
    effective: frozenset[str] = frozenset()
    """Capabilities that it has, of those that matter."""
    bounding: frozenset[str] = frozenset()
    """Capabilities that its children could have."""
    filtered: bool = False
    """Whether a filter of system calls is on."""
    tried_as_root: Mapping[str, int]
    """By call, the error number that a child got that stayed in this user namespace; 0 is success."""
    tried_rootless: Mapping[str, int]
    """The same of a child in a user namespace of its own."""
    masked_proc: tuple[str, ...] = ()
    """Paths below /proc that something is mounted over."""
    most_user_namespaces: int | None = None
    """`user.max_user_namespaces`."""
    user_namespaces_for_root_alone: bool = False
    """Debian's `kernel.unprivileged_userns_clone` is 0."""
    apparmor_holds_user_namespaces: bool = False
    """Ubuntu's `kernel.apparmor_restrict_unprivileged_userns` is 1."""
    apparmor: str = ""
    """The AppArmor profile; empty where there is none, or it confines nothing."""
    selinux: str = ""
    """The SELinux label, where SELinux enforces; empty otherwise."""
    cgroups_read_only: bool = False
    """Whether no cgroup hierarchy that limits is mounted writable."""
    cgroups_elsewhere: bool = False
    """Whether a cgroup namespace hides where this process is."""


def capability_piece(name: str, why: str) -> Piece:
    """The piece that a capability is."""
    return Piece(
        name=f"the capability {name}",
        docker=f"--cap-add {name}",
        compose=f"cap_add: [{name}]",
        kubernetes=f"capabilities: {{add: [{name}]}}",
        host="run as root, with all of root's capabilities",
        why=why,
    )


SYS_ADMIN = capability_piece("SYS_ADMIN", "namespaces and mounts without a user namespace")
SETUID = capability_piece("SETUID", "gVisor's kernel runs as nobody; starting as root needs it")
SETGID = capability_piece("SETGID", "as SETUID")
SYS_CHROOT = capability_piece("SYS_CHROOT", "each box has a root folder of its own")
SETFCAP = capability_piece("SETFCAP", "mapping root into a user namespace; rootless as root needs it")
NET_ADMIN = capability_piece("NET_ADMIN", "rules of each box's network; SANDBOX_NETWORK_MODE=namespace alone needs it")
SECCOMP = Piece(
    name="a system call filter that permits namespaces and mounts",
    docker="--security-opt seccomp=unconfined",
    compose='security_opt: ["seccomp=unconfined"]',
    kubernetes="seccompProfile: {type: Unconfined}",
    host="start the server without the filter of its service (systemd: SystemCallFilter=, RestrictNamespaces=)",
    why="boxes need unshare, clone, mount, umount2 and pivot_root. `examples/seccomp.json` is a filter that permits "
    "them, and so is Podman's own",
)
APPARMOR = Piece(
    name="freedom from the AppArmor profile",
    docker="--security-opt apparmor=unconfined",
    compose='security_opt: ["apparmor=unconfined"]',
    kubernetes="appArmorProfile: {type: Unconfined}",
    host="take the server out of the profile, or permit mounts and namespaces in it",
    why="an engine's profile forbids mounts. Debian, Ubuntu and their kin",
)
SELINUX = Piece(
    name="an SELinux label that permits namespaces",
    docker="--security-opt label=type:container_engine_t",
    compose='security_opt: ["label=type:container_engine_t"]',
    kubernetes="seLinuxOptions: {type: container_engine_t}",
    host="run the server in a domain that may make namespaces and mounts",
    why="container_t forbids them. Fedora, RHEL and their kin",
)
PROC = Piece(
    name="a /proc without masks",
    docker="--security-opt systempaths=unconfined",
    compose='security_opt: ["systempaths=unconfined"]',
    kubernetes="procMount: Unmasked, and hostUsers: false of the pod",
    host="a newer gVisor, which needs none",
    why="gVisor of 2022 mounts a /proc of its own, which a user namespace may only where none is masked. A newer "
    "gVisor is the better remedy",
)
USER_NAMESPACES = Piece(
    name="user namespaces",
    docker="",
    compose="",
    kubernetes="",
    host="sysctl -w user.max_user_namespaces=15000 on the host",
    why="each box has one; the host permits none, or all are taken",
)
USER_NAMESPACES_FOR_ALL = Piece(
    name="user namespaces for others than root",
    docker="",
    compose="",
    kubernetes="",
    host="sysctl -w kernel.unprivileged_userns_clone=1 on the host, or start boxes as root with SYS_ADMIN",
    why="an old default of Debian's forbids them",
)
USER_NAMESPACES_IN_APPARMOR = Piece(
    name="user namespaces that AppArmor leaves alone",
    docker="",
    compose="",
    kubernetes="",
    host="sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 on the host, or start boxes as root with SYS_ADMIN",
    why="Ubuntu since 23.10 takes all rights from those that programs without a profile make",
)
CGROUP_MOUNT = Piece(
    name="a writable cgroup file system",
    docker="-v /sys/fs/cgroup:/sys/fs/cgroup:rw",
    compose='volumes: ["/sys/fs/cgroup:/sys/fs/cgroup:rw"]',
    kubernetes="privileged: true",
    host="mount /sys/fs/cgroup writable",
    why="a cgroup for each run holds RAM, CPU and processes",
)
CGROUP_NAMESPACE = Piece(
    name="the host's cgroup namespace",
    docker="--cgroupns=host",
    compose="cgroup: host",
    kubernetes="privileged: true",
    host="start the server outside a cgroup namespace",
    why="cgroup v2: the container must find its own cgroup in what is mounted",
)
OTHER_KERNEL = Piece(
    name="a kernel that is not gVisor's",
    docker="--runtime=runc",
    compose="runtime: runc",
    kubernetes="no runtimeClassName of gVisor for this pod",
    host="run it outside gVisor",
    why="gVisor does not run inside gVisor",
)

PIECES = (
    SECCOMP,
    APPARMOR,
    SELINUX,
    CGROUP_NAMESPACE,
    CGROUP_MOUNT,
    SYS_ADMIN,
    SETUID,
    SETGID,
    SYS_CHROOT,
    SETFCAP,
    NET_ADMIN,
    PROC,
    USER_NAMESPACES,
    USER_NAMESPACES_FOR_ALL,
    USER_NAMESPACES_IN_APPARMOR,
    OTHER_KERNEL,
)
"""All of them, in the order in which people see them."""

_ROOT_NEEDS = {"SYS_ADMIN": SYS_ADMIN, "SETUID": SETUID, "SETGID": SETGID, "SYS_CHROOT": SYS_CHROOT}
_NAMESPACES_NEED = {"SYS_ADMIN": SYS_ADMIN, "NET_ADMIN": NET_ADMIN}
_SAID = {
    "no space left on device": USER_NAMESPACES,
    "since we don't have CAP_SYS_ADMIN": SYS_ADMIN,
    "since we don't have CAP_SETUID or CAP_SETGID": SETUID,
}
"""What gVisor says where it alone noticed."""
_FILTER_ERRORS = frozenset({errno.EPERM, errno.ENOSYS})
_NO_MORE_NAMESPACES = frozenset({errno.ENOSPC, errno.EUSERS})
_ENGINE_PROFILES = ("docker-default", "containers-default", "cri-containerd", "crio-default")


def lacking(facts: HostFacts, gvisor_version: str, said: str) -> tuple[Piece, ...]:
    """The pieces that starting a box lacks here, for the way to start one that lacks the fewest; none if none is known.

    Args:
        facts: what was found.
        gvisor_version: `YYYYMMDD…`, which decides what is needed.
        said: what gVisor said when it did not start.
    """
    if facts.inside_gvisor:
        return (OTHER_KERNEL,)
    ways = [_lacking_rootless(facts, gvisor_version)]
    if facts.root:
        ways.insert(0, _lacking_as_root(facts))
    if not all(ways):  # by all that was found it should work, so gVisor alone knows
        return tuple(piece for words, piece in _SAID.items() if words in said)[:1]
    # of two ways that lack as much, not the one that opens more of the host
    return min(ways, key=lambda pieces: (len(pieces), PROC in pieces, SYS_ADMIN in pieces))


def lacking_for_cgroups(facts: HostFacts) -> tuple[Piece, ...]:
    """The pieces that RAM, CPU and process limits lack in a container."""
    needs = ((CGROUP_NAMESPACE, facts.cgroups_elsewhere), (CGROUP_MOUNT, facts.cgroups_read_only))
    return tuple(piece for piece, lacks in needs if lacks)


def lacking_for_namespaces(facts: HostFacts) -> tuple[Piece, ...]:
    """The pieces that a network namespace for each box lacks."""
    return tuple(piece for name, piece in _NAMESPACES_NEED.items() if name not in facts.effective)


def remedy_words(pieces: tuple[Piece, ...], surroundings: Surroundings) -> str:
    """What is missing, and the settings that add it, in the words of the place where they are set."""
    names = " and ".join(piece.name for piece in pieces)
    return f"Missing: {names}. {_settings(pieces, surroundings)}. See docs/setup.md"


def _settings(pieces: tuple[Piece, ...], surroundings: Surroundings) -> str:
    at_host = [piece.host for piece in pieces if surroundings is Surroundings.HOST or not piece.docker]
    inside = [piece for piece in pieces if surroundings is not Surroundings.HOST and piece.docker]
    docker = f"Docker and Podman: `{' '.join(piece.docker for piece in inside)}`"
    kubernetes = f"Kubernetes: `{'`, `'.join(dict.fromkeys(piece.kubernetes for piece in inside))}`"
    settings = [kubernetes, docker] if surroundings is Surroundings.KUBERNETES else [docker, kubernetes]
    return "; ".join([*(settings if inside else []), *at_host])


def _lacking_as_root(facts: HostFacts) -> tuple[Piece, ...]:
    capabilities = tuple(piece for name, piece in _ROOT_NEEDS.items() if name not in facts.effective)
    # what could not be tried for want of rights was tried in a user namespace, and a filter forbids it there too
    tried = {**facts.tried_rootless, **facts.tried_as_root}
    tried.pop("chroot", None)
    return (*capabilities, *_forbidden(facts, tried))


def _lacking_rootless(facts: HostFacts, gvisor_version: str) -> tuple[Piece, ...]:
    capabilities = (SETFCAP,) if facts.root and "SETFCAP" not in facts.effective else ()
    tried = dict(facts.tried_rootless)
    administers = facts.root and "SYS_ADMIN" in facts.effective  # gVisor then makes no user namespace for itself
    if "SYS_CHROOT" not in facts.bounding and (tried.pop("chroot", 0) or administers):
        capabilities = (*capabilities, SYS_CHROOT)  # engines' filters forbid the call to who lacks the capability
    masked = (PROC,) if gvisor_version < OLD_RELEASE and facts.masked_proc else ()
    return (*capabilities, *masked, *_forbidden(facts, tried))


def _forbidden(facts: HostFacts, tried: Mapping[str, int]) -> tuple[Piece, ...]:
    """What forbids the calls that failed."""
    errors = frozenset(tried.values()) - {0}
    pieces: list[Piece] = []
    if errors & _NO_MORE_NAMESPACES or (errors and facts.most_user_namespaces == 0):
        pieces.append(USER_NAMESPACES)
    elif errors & _FILTER_ERRORS:
        pieces.append(_forbidder(facts))
    # what a filter forbids never comes before the profile of the same engine, which forbids mounts too
    if errno.EACCES in errors or (errors and facts.apparmor.startswith(_ENGINE_PROFILES)):
        pieces.append(SELINUX if facts.selinux and not facts.apparmor else APPARMOR)
    return tuple(pieces)


def _forbidder(facts: HostFacts) -> Piece:
    """Who answers that a call is not permitted, or not there."""
    if facts.filtered:
        return SECCOMP
    if facts.user_namespaces_for_root_alone:
        return USER_NAMESPACES_FOR_ALL
    return USER_NAMESPACES_IN_APPARMOR if facts.apparmor_holds_user_namespaces else SECCOMP
