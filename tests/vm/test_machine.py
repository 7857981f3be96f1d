"""The virtual machine itself: it reaches and writes nothing here, and only a success is taken for one.

Run on the host, by `make vm`, before the machine is trusted with tests.
"""

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox.conftest import command_lines_with
from tests.vm.__main__ import Record
from tests.vm.initramfs import ArchiveEntry, archive, modules_in_order
from tests.vm.machine import Machine, MachineError, newest_kernel
from tests.vm.sessions import SESSIONS

REPOSITORY = Path(__file__).parents[2]
BOOT_SECONDS = 120.0
LOOK_AROUND = """
import os, sys
from pathlib import Path
from tests.vm.recorder import say
Path(sys.argv[1]).write_text("written in the machine")
say({
    "written": Path(sys.argv[1]).read_text(),
    "networks": sorted(os.listdir("/sys/class/net")),
    "mounted": sorted(word for word in Path("/proc/self/mountinfo").read_text().split() if word.startswith("cgroup")),
    "controllers": Path("/sys/fs/cgroup/cgroup.controllers").read_text().split(),
    "processors": os.cpu_count(),
})
"""


def machine(folder: Path, *command: str, deadline_seconds: float = BOOT_SECONDS) -> Machine:
    return Machine(
        kernel=newest_kernel(),
        command=command,
        folder=REPOSITORY,
        console=folder / "console.log",
        deadline_seconds=deadline_seconds,
    )


def test_machine_has_this_checkout_and_cgroup_v2_but_no_network_and_changes_nothing_here(tmp_path: Path) -> None:
    target = REPOSITORY / "build" / f"never-{secrets.token_hex(8)}"

    [said] = machine(tmp_path, sys.executable, "-c", LOOK_AROUND, str(target)).reports()

    assert said["written"] == "written in the machine"
    assert not target.exists()
    assert said["networks"] == ["lo"]
    assert said["mounted"] == ["cgroup2", "cgroup2"]
    assert isinstance(said["controllers"], list)
    assert {"cpu", "memory", "pids"} <= set(said["controllers"])
    assert said["processors"] == 2


def test_panic_ends_the_machine_and_stands_at_the_end_of_its_console(tmp_path: Path) -> None:
    crashing = machine(tmp_path, "/bin/sh", "-c", "echo c > /proc/sysrq-trigger")

    assert list(crashing.reports()) == []

    assert "Kernel panic" in crashing.last_words()


def test_machine_that_hangs_is_switched_off_at_its_deadline(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="switched off after 3 s"):
        list(machine(tmp_path, "/bin/sleep", "1000", deadline_seconds=3).reports())


def test_machine_nobody_listens_to_any_more_is_ended(tmp_path: Path) -> None:
    talking = machine(tmp_path, "/bin/sh", "-c", 'while echo "{}"; do sleep 0.1; done > /dev/ttyS1')

    for report in talking.reports():
        assert report == {}
        break

    assert command_lines_with(str(tmp_path)) == {}


def test_host_without_a_kernel_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"apt-get install .*linux-image-amd64"):
        newest_kernel(tmp_path, tmp_path)


def test_newest_kernel_that_has_its_modules_is_chosen(tmp_path: Path) -> None:
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.0-1-amd64"):
        (tmp_path / f"vmlinuz-{release}").touch()
    for release in ("6.1.0-9-amd64", "6.1.0-56-amd64"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "modules.dep").touch()

    assert newest_kernel(tmp_path, tmp_path).modules == tmp_path / "6.1.0-56-amd64"


def test_modules_come_after_those_they_need_and_built_in_ones_are_left_out(tmp_path: Path) -> None:
    dependencies = tmp_path / "modules.dep"
    dependencies.write_text("a/top.ko.xz: b/low-er.ko.xz c/base.ko.xz\nb/low-er.ko.xz: c/base.ko.xz\nc/base.ko.xz:\n")

    assert modules_in_order(dependencies, ("top", "built_in", "low_er")) == (
        "c/base.ko.xz",
        "b/low-er.ko.xz",
        "a/top.ko.xz",
    )


def test_archive_is_read_by_another_program(tmp_path: Path) -> None:
    written = archive((ArchiveEntry(name="odd", mode=0o100755, content=b"x" * 5), ArchiveEntry(name="d", mode=0o40755)))

    subprocess.run(["/bin/busybox", "cpio", "-id"], input=written, cwd=tmp_path, check=True, capture_output=True)

    assert (tmp_path / "odd").read_bytes() == b"xxxxx"
    assert (tmp_path / "d").is_dir()


# What counts as a success

ENDS: tuple[dict[str, object], ...] = tuple(
    {"kind": "session", "session": session.name, "exit_code": 0} for session in SESSIONS
)
END: dict[str, object] = {"kind": "end"}
PASSED: dict[str, object] = {
    "kind": "ended",
    "session": "root",
    "test": "t",
    "outcome": "passed",
    "seconds": 1.0,
    "text": "",
}


def recorded(*reports: dict[str, object]) -> Record:
    record = Record()
    for report in reports:
        record.add(report)
    return record


def test_every_session_that_ended_with_0_is_a_success() -> None:
    assert list(recorded(PASSED, *ENDS, END).faults()) == []


@pytest.mark.parametrize(
    ("reports", "fault"),
    [
        pytest.param((), "ended too early", id="nothing at all"),
        pytest.param((PASSED, *ENDS), "ended too early", id="no end"),
        pytest.param((PASSED, ENDS[0], END), f"session {SESSIONS[1].name}: it did not end", id="a session missing"),
        pytest.param((PASSED, ENDS[0] | {"exit_code": 1}, *ENDS[1:], END), "pytest ended with 1", id="failed tests"),
        pytest.param((PASSED, ENDS[0] | {"exit_code": 5}, *ENDS[1:], END), "pytest ended with 5", id="no tests"),
        pytest.param((PASSED, ENDS[0] | {"exit_code": -9}, *ENDS[1:], END), "pytest ended with -9", id="killed"),
        pytest.param((*ENDS, END), "no test passed", id="nothing passed"),
    ],
)
def test_anything_less_is_a_failure(reports: tuple[dict[str, object], ...], fault: str) -> None:
    assert any(fault in one for one in recorded(*reports).faults())


def test_test_that_began_last_is_named_where_the_machine_ended_too_early() -> None:
    assert "after it began t9" in next(recorded({"kind": "begun", "test": "t9"}).faults())
