"""The container settings of docs/setup.md, piece by piece: with all of them every limit holds, without one this error.

The tables in docs/setup.md quote the errors below, and tests/test_docs.py holds them against this file.
"""

import json
import sys
from pathlib import Path

import pytest

from tests.containers.engines import REPOSITORY, Engine, EngineError

SELF_TEST = REPOSITORY / "plugins" / "generated" / "tools" / "run_code.py"
ALL_CAPABILITIES = Path("/proc/sys/kernel/cap_last_cap")
APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
SELINUX = Path("/sys/fs/selinux/enforce")
PODMAN_FILTER = Path("/usr/share/containers/seccomp.json")
ON_CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()

EASY = ("--privileged", "--cgroupns=host")
ADMIN = ("--cap-add=SYS_ADMIN",)
FILTER = ("--security-opt=seccomp=unconfined",)
APPARMOR_OFF = ("--security-opt=apparmor=unconfined",)
LABEL = ("--security-opt=label=type:container_engine_t",)
CGROUPS = ("--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw")
HARD = (*ADMIN, *FILTER, *APPARMOR_OFF, *LABEL, *CGROUPS)
NEEDED_CAPABILITIES = ("SETFCAP", "SETGID", "SETUID", "SYS_ADMIN", "SYS_CHROOT")

NEW_GVISOR = "2023"
"""Measured were 20221219 and 20240729: between them gVisor began to need SETFCAP, and stopped needing SYS_CHROOT."""

NO_NAMESPACE = "cannot create gofer process: gofer: fork/exec /proc/self/exe: operation not permitted"
NO_SYS_ADMIN = "can't run sandbox process in minimal chroot since we don't have CAP_SYS_ADMIN"
NO_SETUID = "can't run sandbox process as user nobody since we don't have CAP_SETUID or CAP_SETGID"
NO_SYS_CHROOT = "failed to setupFS: creating mount namespace: setting up mount namespace: input/output error"
NO_PIVOT_ROOT = "cannot read client sync file: waiting for sandbox to start: EOF"
READ_ONLY = "is mounted read-only"
OWN_CGROUP_NAMESPACE = "lets this account make a child limited by"
NO_CGROUP = "this host lacks its cgroup (see above)"


def only(*capabilities: str) -> tuple[str, ...]:
    return ("--cap-drop=ALL", *(f"--cap-add={name}" for name in capabilities))


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(EASY, id="the easy way"),
        pytest.param(HARD, id="the hard way"),
        pytest.param((*HARD, "--security-opt=no-new-privileges"), id="the hard way without new privileges"),
        pytest.param((*HARD, *only(*NEEDED_CAPABILITIES)), id="the hard way with five capabilities in all"),
    ],
)
def test_every_limit_holds_with_all_settings(engine: Engine, flags: tuple[str, ...]) -> None:
    if flags is EASY and engine.name == "docker" and not _has_all_capabilities():
        pytest.skip("this machine itself lacks capabilities that Docker's --privileged asks for")
    assert engine.doctor_failures(flags) == {}


def test_every_limit_holds_with_a_filter_that_permits_pivot_root(engine: Engine) -> None:
    if not PODMAN_FILTER.exists():
        pytest.skip(f"{PODMAN_FILTER} is not here")
    filtered = (*ADMIN, f"--security-opt=seccomp={PODMAN_FILTER}", *APPARMOR_OFF, *LABEL, *CGROUPS)
    assert engine.doctor_failures(filtered) == {}


@pytest.mark.parametrize(
    ("flags", "old", "new"),
    [
        pytest.param((*FILTER, *APPARMOR_OFF, *LABEL, *CGROUPS), {NO_NAMESPACE}, {NO_SYS_ADMIN}, id="SYS_ADMIN"),
        pytest.param(
            (*HARD, *only("SYS_ADMIN", "SYS_CHROOT", "SETFCAP")), {NO_SETUID}, {NO_NAMESPACE}, id="SETUID and SETGID"
        ),
        # Its gofer and its kernel both fail, and which of them is heard first differs from run to run.
        pytest.param(
            (*HARD, *only("SYS_ADMIN", "SETUID", "SETGID", "SETFCAP")),
            {NO_SYS_CHROOT, NO_PIVOT_ROOT},
            set(),
            id="SYS_CHROOT",
        ),
        pytest.param(
            (*HARD, *only("SYS_ADMIN", "SYS_CHROOT", "SETUID", "SETGID")), set(), {NO_NAMESPACE}, id="SETFCAP"
        ),
    ],
)
def test_no_box_starts_without(engine: Engine, flags: tuple[str, ...], old: set[str], new: set[str]) -> None:
    errors = new if engine.gvisor >= NEW_GVISOR else old
    if not errors:
        pytest.skip(f"gVisor {engine.gvisor} does not need it")
    detail = engine.doctor_failures(flags)["languages"]
    assert any(error in detail for error in errors), detail


def test_no_box_starts_with_an_engines_defaults(engine: Engine) -> None:
    detail = engine.doctor_failures(())["languages"]
    assert NO_NAMESPACE in detail or NO_SYS_ADMIN in detail


def test_no_box_starts_where_the_filter_forbids_pivot_root(engine: Engine, tmp_path: Path) -> None:
    assert NO_PIVOT_ROOT in engine.doctor_failures((*HARD, *_filter_without_pivot_root(tmp_path)))["languages"]


def test_no_box_starts_under_the_engines_apparmor_profile(engine: Engine) -> None:
    if not APPARMOR.exists() or APPARMOR.read_text().strip() != "Y":
        pytest.skip("this kernel has no AppArmor")
    flags = (*ADMIN, *FILTER, *LABEL, *CGROUPS)
    assert NO_PIVOT_ROOT in engine.doctor_failures(flags)["languages"]


def test_no_box_starts_under_the_engines_selinux_label(engine: Engine) -> None:
    if not SELINUX.exists() or SELINUX.read_text().strip() != "1":
        pytest.skip("this kernel does not enforce SELinux")
    assert "languages" in engine.doctor_failures((*ADMIN, *FILTER, *APPARMOR_OFF, *CGROUPS))


def test_cgroup_limits_are_missing_where_cgroups_are_read_only(engine: Engine) -> None:
    failures = dict(engine.doctor_failures((*ADMIN, *FILTER, *APPARMOR_OFF, *LABEL, "--cgroupns=host")))
    assert all(READ_ONLY in failures.pop(f"cgroup {name}") for name in ("memory", "cpu", "pids"))
    assert failures == dict.fromkeys(("max_ram_megabytes", "max_cpus", "max_processes"), NO_CGROUP)


@pytest.mark.skipif(not ON_CGROUP_V2, reason="cgroup v1 gives containers the host's cgroup namespace by default")
def test_cgroup_limits_are_missing_in_a_cgroup_namespace_of_its_own(engine: Engine) -> None:
    failures = engine.doctor_failures(("--privileged", "--cgroupns=private"))
    assert OWN_CGROUP_NAMESPACE in failures["cgroup memory"]


@pytest.mark.parametrize(
    ("flags", "status"), [pytest.param(HARD, "OK", id="the hard way"), pytest.param((), "REFUSED", id="nothing at all")]
)
def test_the_self_test_says(engine: Engine, flags: tuple[str, ...], status: str) -> None:
    said = engine.run(flags, sys.executable, str(SELF_TEST), "--use-sample-code")
    if not said.stdout:
        raise EngineError(said.stderr)
    assert json.loads(said.stdout.splitlines()[-1])["status"] == status
    assert said.returncode == (0 if status == "OK" else 1)


def _filter_without_pivot_root(folder: Path) -> tuple[str, ...]:
    """Podman's own filter without the one call that Docker's forbids even beside SYS_ADMIN."""
    if not PODMAN_FILTER.exists():
        pytest.skip(f"{PODMAN_FILTER} is not here")
    rules = json.loads(PODMAN_FILTER.read_text())
    for rule in rules["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != "pivot_root"]
    path = folder / "seccomp.json"
    path.write_text(json.dumps(rules))
    return (f"--security-opt=seccomp={path}",)


def _has_all_capabilities() -> bool:
    bounding = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    return int(bounding.split()[1], 16) == (2 << int(ALL_CAPABILITIES.read_text())) - 1
