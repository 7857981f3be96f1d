"""What is missing is named from facts alone: one thing, and the exact settings that add it."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.host_facts import (
    CAPABILITY_BITS,
    cgroups_writable,
    host_facts,
    in_own_cgroup_namespace,
    masked_below_proc,
    surroundings_here,
)
from sandbox.preflight import (
    APPARMOR,
    CGROUP_MOUNT,
    CGROUP_NAMESPACE,
    OTHER_KERNEL,
    PIECES,
    PROC,
    SECCOMP,
    SELINUX,
    SETFCAP,
    SETUID,
    SYS_ADMIN,
    SYS_CHROOT,
    USER_NAMESPACES,
    USER_NAMESPACES_FOR_ALL,
    USER_NAMESPACES_IN_APPARMOR,
    HostFacts,
    Piece,
    Surroundings,
    lacking,
    lacking_for_cgroups,
    remedy_words,
)
from tests.test_docs import marked_part, table

OLD, NEW = "20221219.0", "20240729.0"
EVERY_CAPABILITY = frozenset(CAPABILITY_BITS)
ENGINES_CAPABILITIES = EVERY_CAPABILITY - {"SYS_ADMIN"}
WORKS = {"clone": 0, "unshare": 0, "mount": 0, "pivot_root": 0, "chroot": 0}
NO_RIGHT = {"unshare": 0}
FILTERED = {"clone": errno.EPERM, "unshare": errno.EPERM}

FREE = HostFacts(
    surroundings=Surroundings.CONTAINER,
    root=True,
    effective=EVERY_CAPABILITY,
    bounding=EVERY_CAPABILITY,
    tried_as_root=WORKS,
    tried_rootless=WORKS,
    most_user_namespaces=10_000,
)
SMALL = replace(FREE, effective=ENGINES_CAPABILITIES, bounding=ENGINES_CAPABILITIES, tried_as_root=NO_RIGHT)
USER = replace(SMALL, root=False, effective=frozenset())


def without(facts: HostFacts, name: str) -> HostFacts:
    return replace(facts, effective=facts.effective - {name}, bounding=facts.bounding - {name})


def denied(facts: HostFacts, call: str, error: int) -> HostFacts:
    tried = {**WORKS, call: error}
    return replace(facts, tried_as_root=tried if "SYS_ADMIN" in facts.effective else NO_RIGHT, tried_rootless=tried)


MASKED = ("/proc/kcore",)
DOCKERS = replace(SMALL, filtered=True, tried_as_root=FILTERED, tried_rootless=FILTERED, masked_proc=MASKED)


@pytest.mark.parametrize(
    ("facts", "version", "pieces"),
    [
        pytest.param(FREE, OLD, (), id="nothing is missing"),
        pytest.param(SMALL, NEW, (), id="a new gVisor does without SYS_ADMIN"),
        pytest.param(USER, NEW, (), id="an ordinary user can"),
        pytest.param(replace(FREE, inside_gvisor=True), NEW, (OTHER_KERNEL,), id="inside gVisor"),
        pytest.param(replace(SMALL, masked_proc=MASKED), OLD, (SYS_ADMIN,), id="an old gVisor needs SYS_ADMIN"),
        pytest.param(replace(USER, masked_proc=MASKED), OLD, (PROC,), id="an ordinary user's old gVisor needs /proc"),
        pytest.param(replace(without(FREE, "SETUID"), masked_proc=MASKED), OLD, (SETUID,), id="SETUID"),
        pytest.param(without(SMALL, "SETFCAP"), NEW, (SETFCAP,), id="SETFCAP"),
        pytest.param(without(FREE, "SYS_CHROOT"), NEW, (SYS_CHROOT,), id="SYS_CHROOT"),
        pytest.param(
            without(denied(replace(SMALL, filtered=True), "chroot", errno.EPERM), "SYS_CHROOT"),
            NEW,
            (SYS_CHROOT,),
            id="a filter that asks for SYS_CHROOT",
        ),
        pytest.param(DOCKERS, NEW, (SECCOMP,), id="Docker's own filter"),
        pytest.param(DOCKERS, OLD, (SYS_ADMIN, SECCOMP), id="Docker's defaults and an old gVisor"),
        pytest.param(
            denied(replace(SMALL, filtered=True, masked_proc=MASKED), "pivot_root", errno.EPERM),
            OLD,
            (SYS_ADMIN, SECCOMP),
            id="only pivot_root, without the rights to try it as root",
        ),
        pytest.param(
            replace(DOCKERS, apparmor="docker-default"), NEW, (SECCOMP, APPARMOR), id="Docker's filter and profile"
        ),
        pytest.param(
            denied(replace(FREE, filtered=True), "pivot_root", errno.EPERM), NEW, (SECCOMP,), id="only pivot_root"
        ),
        pytest.param(
            denied(replace(FREE, filtered=True), "unshare", errno.ENOSYS),
            NEW,
            (SECCOMP,),
            id="a call that is not there",
        ),
        pytest.param(
            denied(replace(FREE, apparmor="docker-default"), "mount", errno.EACCES), NEW, (APPARMOR,), id="AppArmor"
        ),
        pytest.param(
            denied(replace(FREE, selinux="system_u:system_r:container_t:s0"), "mount", errno.EACCES),
            NEW,
            (SELINUX,),
            id="SELinux",
        ),
        pytest.param(denied(USER, "unshare", errno.ENOSPC), NEW, (USER_NAMESPACES,), id="no user namespace left"),
        pytest.param(
            denied(replace(USER, most_user_namespaces=0), "unshare", errno.EPERM),
            NEW,
            (USER_NAMESPACES,),
            id="no user namespace at all",
        ),
        pytest.param(
            denied(replace(USER, user_namespaces_for_root_alone=True), "unshare", errno.EPERM),
            NEW,
            (USER_NAMESPACES_FOR_ALL,),
            id="user namespaces for root alone",
        ),
        pytest.param(
            denied(replace(USER, apparmor_holds_user_namespaces=True), "mount", errno.EPERM),
            NEW,
            (USER_NAMESPACES_IN_APPARMOR,),
            id="Ubuntu's user namespaces",
        ),
    ],
)
def test_what_is_missing_is_named(facts: HostFacts, version: str, pieces: tuple[Piece, ...]) -> None:
    assert lacking(facts, version, "") == pieces


@pytest.mark.parametrize(
    ("said", "pieces"),
    [
        ("fork/exec /proc/self/exe: no space left on device", (USER_NAMESPACES,)),
        ("can't run sandbox process in minimal chroot since we don't have CAP_SYS_ADMIN", (SYS_ADMIN,)),
        ("something new", ()),
    ],
)
def test_where_all_seems_well_gvisor_is_asked(said: str, pieces: tuple[Piece, ...]) -> None:
    assert lacking(FREE, NEW, said) == pieces


@pytest.mark.parametrize(
    ("facts", "pieces"),
    [
        (FREE, ()),
        (replace(FREE, cgroups_read_only=True), (CGROUP_MOUNT,)),
        (replace(FREE, cgroups_elsewhere=True), (CGROUP_NAMESPACE,)),
        (replace(FREE, cgroups_elsewhere=True, cgroups_read_only=True), (CGROUP_NAMESPACE, CGROUP_MOUNT)),
    ],
)
def test_what_cgroup_limits_lack_is_named(facts: HostFacts, pieces: tuple[Piece, ...]) -> None:
    assert lacking_for_cgroups(facts) == pieces


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
@pytest.mark.parametrize("surroundings", Surroundings)
def test_the_remedy_has_the_settings_of_its_place(piece: Piece, surroundings: Surroundings) -> None:
    words = remedy_words((piece,), surroundings)

    assert words.startswith(f"Missing: {piece.name}. ")
    if surroundings is Surroundings.HOST or not piece.docker:
        assert piece.host in words
    else:
        assert f"`{piece.docker}`" in words
        assert f"`{piece.kubernetes}`" in words


def test_several_pieces_are_one_line_of_flags() -> None:
    words = remedy_words((SYS_ADMIN, SECCOMP), Surroundings.CONTAINER)

    assert "Missing: the capability SYS_ADMIN and a system call filter that permits namespaces and mounts. " in words
    assert "`--cap-add SYS_ADMIN --security-opt seccomp=unconfined`" in words
    assert "`capabilities: {add: [SYS_ADMIN]}`, `seccompProfile: {type: Unconfined}`" in words


def test_in_a_pod_its_own_settings_come_first() -> None:
    words = remedy_words((SECCOMP,), Surroundings.KUBERNETES)

    assert words.index("Kubernetes:") < words.index("Docker and Podman:")


def test_the_table_of_pieces_in_the_document_is_that_of_the_code() -> None:
    rows = [
        (piece.name, _code(piece.docker), _code(piece.compose), _code(piece.kubernetes), piece.why) for piece in PIECES
    ]

    assert marked_part("pieces") == table(("piece", "Docker, Podman", "Compose", "Kubernetes", "why"), rows)


def _code(setting: str) -> str:
    return f"`{setting}`" if setting else "on the host"


V1_MOUNTS = [
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
    "35 31 0:32 /docker/1 /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory",
    "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd",
    "50 22 0:5 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw",
    "51 22 0:6 / /proc rw,nosuid - proc proc rw",
]
V2_MOUNTS = ["30 23 0:26 {} /sys/fs/cgroup {},relatime - cgroup2 cgroup2 rw,nsdelegate"]


def test_masks_below_proc_are_found() -> None:
    assert masked_below_proc(V1_MOUNTS) == ("/proc/kcore",)


@pytest.mark.parametrize(
    ("mounts", "writable"),
    [
        (V1_MOUNTS, False),
        ([line.replace(" ro,", " rw,") for line in V1_MOUNTS], True),
        ([V2_MOUNTS[0].format("/", "rw")], True),
        ([V2_MOUNTS[0].format("/", "ro")], False),
        ([], False),
    ],
)
def test_read_only_cgroups_are_seen(mounts: list[str], writable: bool) -> None:  # noqa: FBT001 -- a table's column
    assert cgroups_writable(mounts) is writable


def test_a_hidden_cgroup_is_seen() -> None:
    assert in_own_cgroup_namespace([V2_MOUNTS[0].format("/../..", "rw")], ["0::/"])
    assert not in_own_cgroup_namespace([V2_MOUNTS[0].format("/", "rw")], ["0::/user.slice"])
    assert not in_own_cgroup_namespace(V1_MOUNTS, ["4:memory:/x", "0::/"])


def test_the_facts_of_this_host_tell_what_a_child_was_let_do() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()

    facts = host_facts()

    assert facts.root is (os.geteuid() == 0)
    assert facts.surroundings is surroundings_here()
    assert facts.tried_as_root.keys() >= {"unshare"}
    assert facts.tried_rootless.keys() >= {"unshare"}
    if "SYS_ADMIN" in facts.effective and not facts.filtered:
        assert facts.tried_as_root == WORKS
    assert Path("/proc/self/mountinfo").read_text() == mounts
