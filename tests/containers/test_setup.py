"""The container settings of docs/setup.md: with all of them every limit holds, without one the doctor names that one.

The tables in docs/setup.md quote the errors below, and tests/test_docs.py holds them against this file.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandbox.preflight import (
    APPARMOR,
    CGROUP_MOUNT,
    CGROUP_NAMESPACE,
    NET_ADMIN,
    PIECES,
    PROC,
    SECCOMP,
    SELINUX,
    SETFCAP,
    SETGID,
    SETUID,
    SYS_ADMIN,
    SYS_CHROOT,
    USER_NAMESPACES,
    Piece,
)
from tests.containers.engines import DOCTOR, REPOSITORY, Engine, EngineError, Failure

SELF_TEST = REPOSITORY / "plugins" / "generated" / "tools" / "run_code.py"
OUR_FILTER = REPOSITORY / "examples" / "seccomp.json"
ALL_CAPABILITIES = Path("/proc/sys/kernel/cap_last_cap")
APPARMOR_ON = Path("/sys/module/apparmor/parameters/enabled")
SELINUX_ON = Path("/sys/fs/selinux/enforce")
PODMAN_FILTER = Path("/usr/share/containers/seccomp.json")
ON_CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
NAMESPACE_FLAGS = 0x7E020000
"""Every flag of clone(2) that makes a namespace."""

EASY = ("--privileged", "--cgroupns=host")
ADMIN = ("--cap-add=SYS_ADMIN",)
UNFILTERED = ("--security-opt=seccomp=unconfined",)
FILTER = (f"--security-opt=seccomp={OUR_FILTER}",)
APPARMOR_OFF = ("--security-opt=apparmor=unconfined",)
LABEL = ("--security-opt=label=type:container_engine_t",)
CGROUPS = ("--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw")
NAMESPACE_MODE = "--env=SANDBOX_NETWORK_MODE=namespace"
NO_NEW_PRIVILEGES = ("--security-opt=no-new-privileges",)
SMALL = (*FILTER, *APPARMOR_OFF, *LABEL, *CGROUPS)
HARD = (*ADMIN, *UNFILTERED, *APPARMOR_OFF, *LABEL, *CGROUPS)
HARD_CAPABILITIES = ("SETFCAP", "SETGID", "SETUID", "SYS_ADMIN", "SYS_CHROOT")
CGROUP_LIMITS = ("max_ram_megabytes", "max_cpus", "max_processes")

NO_MAPPING = "re-executing self: fork/exec /proc/self/exe: operation not permitted"
NO_SETUID = "can't run sandbox process as user nobody since we don't have CAP_SETUID or CAP_SETGID"
NO_SYS_CHROOT = "failed to setupFS: creating mount namespace: setting up mount namespace: input/output error"
NO_PIVOT_ROOT = "cannot read client sync file: waiting for sandbox to start: EOF"
READ_ONLY = "is mounted read-only"
OWN_CGROUP_NAMESPACE = "lets this account make a child limited by"
NO_CGROUP = "this host lacks its cgroup (see above)"


def only(*capabilities: str) -> tuple[str, ...]:
    return ("--cap-drop=ALL", *(f"--cap-add={name}" for name in capabilities))


def hard_without(capability: str) -> tuple[str, ...]:
    return (*HARD, *only(*(name for name in HARD_CAPABILITIES if name != capability)))


def assert_names_alone(piece: Piece, failure: Failure) -> None:
    """The remedy names this piece and no other, and the settings of both kinds of place that add it."""
    assert f"Missing: {piece.name}. " in failure.remedy, failure
    assert [other.name for other in PIECES if other is not piece and other.name in failure.remedy] == []
    for setting in (piece.docker, piece.kubernetes) if piece.docker else (piece.host,):
        assert setting in failure.remedy, failure


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(EASY, id="the easy way"),
        pytest.param((*HARD, *NO_NEW_PRIVILEGES), id="the hard way without new privileges"),
        pytest.param((*HARD, *only(*HARD_CAPABILITIES)), id="the hard way with five capabilities in all"),
        pytest.param((*ADMIN, *SMALL), id="the hard way with our filter"),
    ],
)
def test_every_limit_holds_with_all_settings(either: Engine, flags: tuple[str, ...]) -> None:
    if flags is EASY and either.name == "docker" and not _has_all_capabilities():
        pytest.skip("this machine itself lacks capabilities that Docker's --privileged asks for")
    assert either.failures(flags) == {}


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((*SMALL, *NO_NEW_PRIVILEGES), id="the small way without new privileges"),
        pytest.param((*SMALL, *only("SETFCAP")), id="the small way with one capability in all"),
    ],
)
def test_every_limit_holds_without_the_right_to_administer(new: Engine, flags: tuple[str, ...]) -> None:
    assert new.failures(flags) == {}


def test_every_limit_holds_with_podmans_own_filter(either: Engine) -> None:
    flags = (*(ADMIN if either.suite == "bookworm" else ()), f"--security-opt=seccomp={_podman_filter()}")
    assert either.failures((*flags, *APPARMOR_OFF, *LABEL, *CGROUPS)) == {}


def test_an_ordinary_user_lacks_only_cgroups(new: Engine) -> None:
    assert_only_cgroup_limits_fail(new.as_user(1000).failures((*SMALL, *only())))


def test_root_of_a_user_namespace_lacks_only_cgroups(new: Engine) -> None:
    if new.name == "docker":
        pytest.skip("Docker's user namespaces are a setting of its daemon")
    assert_only_cgroup_limits_fail(new.in_user_namespace().failures((*FILTER, *APPARMOR_OFF, *LABEL)))


@pytest.mark.parametrize(
    ("flags", "errors", "piece"),
    [
        pytest.param((*UNFILTERED, *APPARMOR_OFF, *LABEL, *CGROUPS), (NO_PIVOT_ROOT,), SYS_ADMIN, id="SYS_ADMIN"),
        pytest.param(hard_without("SETUID"), (NO_SETUID,), SETUID, id="SETUID"),
        pytest.param(hard_without("SETGID"), (NO_SETUID,), SETGID, id="SETGID"),
        # Its gofer and its kernel both fail, and which of them is heard first differs from run to run.
        pytest.param(hard_without("SYS_CHROOT"), (NO_SYS_CHROOT, NO_PIVOT_ROOT), SYS_CHROOT, id="SYS_CHROOT"),
    ],
)
def test_the_one_missing_capability_is_named_with_an_old_gvisor(
    old: Engine, flags: tuple[str, ...], errors: tuple[str, ...], piece: Piece
) -> None:
    failure = old.failures(flags)["languages"]
    assert any(error in failure.detail for error in errors), failure
    assert_names_alone(piece, failure)


def test_the_one_missing_capability_is_named_with_a_new_gvisor(new: Engine) -> None:
    failure = new.failures((*SMALL, *only()))["languages"]
    assert NO_MAPPING in failure.detail
    assert_names_alone(SETFCAP, failure)


def test_the_capability_that_an_engines_filter_asks_for_is_named(new: Engine) -> None:
    flags = (f"--security-opt=seccomp={_podman_filter()}", *APPARMOR_OFF, *LABEL, *CGROUPS, *only("SETFCAP"))
    assert_names_alone(SYS_CHROOT, new.failures(flags)["languages"])


@pytest.mark.parametrize("lacking", ["SETUID", "SETFCAP"])
def test_a_new_gvisor_starts_in_another_way_without(new: Engine, lacking: str) -> None:
    assert "languages" not in new.failures(hard_without(lacking))


def test_a_filter_without_pivot_root_is_named(either: Engine, tmp_path: Path) -> None:
    failure = either.failures((*HARD, *_filter_without(tmp_path, "pivot_root")))["languages"]
    assert NO_PIVOT_ROOT in failure.detail
    assert_names_alone(SECCOMP, failure)


def test_a_filter_as_dockers_own_is_named(new: Engine, tmp_path: Path) -> None:
    calls = (
        "unshare",
        "setns",
        "mount",
        "umount",
        "umount2",
        "pivot_root",
        "clone3",
        "fsopen",
        "fsmount",
        "move_mount",
    )
    flags = (*SMALL, *_filter_without(tmp_path, *calls, clone=True))
    assert_names_alone(SECCOMP, new.failures(flags)["languages"])


def test_a_masked_proc_is_named_where_an_ordinary_user_has_an_old_gvisor(old: Engine) -> None:
    assert_names_alone(PROC, old.as_user(1000).failures(SMALL)["languages"])


def test_an_ordinary_user_starts_an_old_gvisor_where_proc_is_not_masked(old: Engine) -> None:
    assert_only_cgroup_limits_fail(old.as_user(1000).failures((*SMALL, _unmasked(old))))


def test_missing_user_namespaces_are_named(new: Engine) -> None:
    # A user namespace has a limit of its own, which its own root may set.
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    command = ("/usr/bin/unshare", "--user", "--map-root-user", "/bin/sh", "-c", forbid, "sh", *DOCTOR)
    assert_names_alone(USER_NAMESPACES, new.failures((*SMALL, _unmasked(new)), *command)["languages"])


def test_the_engines_apparmor_profile_is_named(either: Engine) -> None:
    if not APPARMOR_ON.exists() or APPARMOR_ON.read_text().strip() != "Y":
        pytest.skip("this kernel has no AppArmor")
    failure = either.failures((*ADMIN, *UNFILTERED, *LABEL, *CGROUPS))["languages"]
    assert NO_PIVOT_ROOT in failure.detail
    assert_names_alone(APPARMOR, failure)


def test_the_engines_selinux_label_is_named(either: Engine) -> None:
    if not SELINUX_ON.exists() or SELINUX_ON.read_text().strip() != "1":
        pytest.skip("this kernel does not enforce SELinux")
    assert_names_alone(SELINUX, either.failures((*ADMIN, *UNFILTERED, *APPARMOR_OFF, *CGROUPS))["languages"])


def test_a_missing_cgroup_mount_is_named(either: Engine) -> None:
    failures = dict(either.failures((*ADMIN, *UNFILTERED, *APPARMOR_OFF, *LABEL, "--cgroupns=host")))
    for name in ("memory", "cpu", "pids"):
        assert READ_ONLY in failures[f"cgroup {name}"].detail
        assert_names_alone(CGROUP_MOUNT, failures[f"cgroup {name}"])
    assert_only_cgroup_limits_fail(failures)


@pytest.mark.skipif(not ON_CGROUP_V2, reason="cgroup v1 gives containers the host's cgroup namespace by default")
def test_a_cgroup_namespace_of_its_own_is_named(either: Engine) -> None:
    failure = either.failures(("--privileged", "--cgroupns=private"))["cgroup memory"]
    assert OWN_CGROUP_NAMESPACE in failure.detail
    assert_names_alone(CGROUP_NAMESPACE, failure)


def test_network_namespaces_work_with_the_capability_for_them(either: Engine) -> None:
    assert either.failures((*HARD, "--cap-add=NET_ADMIN", NAMESPACE_MODE)) == {}


def test_the_capability_that_network_namespaces_lack_is_named(either: Engine) -> None:
    failures = either.failures((*HARD, NAMESPACE_MODE))
    assert list(failures) == ["SANDBOX_NETWORK_MODE=namespace"]
    assert_names_alone(NET_ADMIN, failures["SANDBOX_NETWORK_MODE=namespace"])


@pytest.mark.parametrize(
    ("flags", "status"), [pytest.param(HARD, "OK", id="the hard way"), pytest.param((), "REFUSED", id="nothing at all")]
)
def test_the_self_test_says(old: Engine, flags: tuple[str, ...], status: str) -> None:
    said = old.run(flags, sys.executable, str(SELF_TEST), "--use-sample-code")
    if not said.stdout:
        raise EngineError(said.stderr)
    assert json.loads(said.stdout.splitlines()[-1])["status"] == status
    assert said.returncode == (0 if status == "OK" else 1)


def assert_only_cgroup_limits_fail(failures: Mapping[str, Failure]) -> None:
    limits = {name: failure.detail for name, failure in failures.items() if not name.startswith("cgroup ")}
    assert limits == dict.fromkeys(CGROUP_LIMITS, NO_CGROUP)


def _unmasked(engine: Engine) -> str:
    return "--security-opt=unmask=ALL" if engine.name == "podman" else "--security-opt=systempaths=unconfined"


def _podman_filter() -> Path:
    if not PODMAN_FILTER.exists():
        pytest.skip(f"{PODMAN_FILTER} is not here")
    return PODMAN_FILTER


def _filter_without(folder: Path, *calls: str, clone: bool = False) -> tuple[str, ...]:
    """Podman's own filter without some calls, as Docker's is; and, if asked, without clone for namespaces."""
    rules = json.loads(_podman_filter().read_text())
    gone = {*calls, "clone"} if clone else {*calls}
    for rule in rules["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in gone]
    if clone:
        no_namespace = {"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules["syscalls"].append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_namespace]})
    path = folder / "seccomp.json"
    path.write_text(json.dumps(rules))
    return (f"--security-opt=seccomp={path}",)


def _has_all_capabilities() -> bool:
    bounding = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    return int(bounding.split()[1], 16) == (2 << int(ALL_CAPABILITIES.read_text())) - 1
