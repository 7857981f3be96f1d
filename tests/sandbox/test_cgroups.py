"""Cgroups are found without guessing, bite for real on this host, and leave nothing behind."""

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.cgroup_discovery import find_cgroup_parent
from sandbox.cgroup_files import cgroup_members
from sandbox.cgroup_limits import CgroupLimits
from sandbox.cgroup_places import CgroupController, CgroupPlace, CgroupVersion
from sandbox.cgroups import CgroupParent, CgroupsUnavailable, RunCgroup, make_cgroup
from sandbox.errors import UnenforceableError

PID = 4242
ALL = "cpu memory pids"
MEBIBYTE = 1 << 20
PLAIN_FILES = ("cgroup.procs", "cgroup.controllers", "cgroup.subtree_control", "cgroup.type")


def limits(*, memory: int | None = None, cpu: int | None = None, pids: int | None = None) -> CgroupLimits:
    return CgroupLimits(memory_bytes=memory, cpu_thousandths=cpu, processes_hard_stop=pids)


@dataclass(frozen=True)
class FakeKernel:
    """Folders and files as the kernel shows them, below a temporary folder."""

    root: Path

    @property
    def cgroups(self) -> Path:
        return self.root / "sys"

    def proc(self, *, mounts: list[str], own: list[str]) -> Path:
        folder = self.root / "proc" / "self"
        folder.mkdir(parents=True)
        (folder / "mountinfo").write_text("\n".join(["22 1 0:5 / /proc rw - proc proc rw", *mounts]) + "\n")
        (folder / "cgroup").write_text("\n".join(own) + "\n")
        return folder.parent

    def v1_mount(self, name: str, *, root: str = "/", options: str = "rw,relatime", controllers: str = "") -> str:
        return f"35 31 0:32 {root} {self.cgroups / name} {options} shared:9 - cgroup cgroup rw,{controllers or name}"

    def v2_mount(self, *, root: str = "/", options: str = "rw,relatime") -> str:
        return f"38 31 0:38 {root} {self.cgroups} {options} - cgroup2 cgroup2 rw,nsdelegate"

    def v1(self, path: str, *, procs: str = "") -> Path:
        folder = self.cgroups / path
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").write_text(procs)
        return folder

    def v2(
        self, path: str, *, procs: str = "", available: str = ALL, handed_down: str = "", kind: str = "domain"
    ) -> Path:
        folder = self.cgroups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text(procs)
        (folder / "cgroup.controllers").write_text(available)
        (folder / "cgroup.subtree_control").write_text(handed_down)
        if kind:
            (folder / "cgroup.type").write_text(f"{kind}\n")
        return folder

    def make_v2_folder(self, folder: Path) -> None:
        folder.mkdir()
        for name in (*PLAIN_FILES, "memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"):
            (folder / name).write_text("")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def found(proc: Path) -> CgroupParent:
    parent = find_cgroup_parent(proc_root=proc, pid=PID)
    assert isinstance(parent, CgroupParent), parent
    return parent


def refused(proc: Path) -> CgroupsUnavailable:
    answer = find_cgroup_parent(proc_root=proc, pid=PID)
    assert isinstance(answer, CgroupsUnavailable), answer
    return answer


def folders_of(parent: CgroupParent) -> dict[str, Path]:
    return {str(name): place.folder for place in parent.places for name in place.controllers}


# Version 1


def test_v1_hierarchies_are_used_below_the_own_cgroup_of_each(kernel: FakeKernel) -> None:
    own = {name: kernel.v1(f"{name}/box/own", procs=f"7\n{PID}\n") for name in ("memory", "cpu,cpuacct", "pids")}
    proc = kernel.proc(
        mounts=[kernel.v1_mount(name) for name in own],
        own=["4:memory:/box/own", "2:cpu,cpuacct:/box/own", "8:pids:/box/own", "0::/"],
    )

    parent = found(proc)

    assert folders_of(parent) == {
        "memory": own["memory"],
        "cpu": own["cpu,cpuacct"],
        "cpuacct": own["cpu,cpuacct"],
        "pids": own["pids"],
    }
    assert parent.missing == ()
    assert len(parent.places) == 3


def test_v1_mount_of_a_subtree_is_read_relative_to_its_root(kernel: FakeKernel) -> None:
    own = kernel.v1("memory/inner", procs=f"{PID}\n")
    proc = kernel.proc(
        mounts=[kernel.v1_mount("memory", root="/docker/abc")], own=["4:memory:/docker/abc/inner", "0::/"]
    )

    assert folders_of(found(proc))["memory"] == own


def test_v1_controller_without_its_mount_is_missing_and_the_others_stay(kernel: FakeKernel) -> None:
    kernel.v1("memory", procs=f"{PID}\n")
    proc = kernel.proc(mounts=[kernel.v1_mount("memory")], own=["4:memory:/", "8:pids:/", "1:cpu:/"])

    parent = found(proc)

    assert {missing.controller for missing in parent.missing} == {CgroupController.CPU, CgroupController.PIDS}
    assert "`cpu` is not mounted" in parent.missing[0].reason
    assert "--cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw" in parent.missing[0].remedy


def test_v1_mount_point_with_a_space_is_unescaped(kernel: FakeKernel) -> None:
    own = kernel.v1("my memory", procs=f"{PID}\n")
    mount = kernel.v1_mount("my\\040memory", controllers="memory")

    assert folders_of(found(kernel.proc(mounts=[mount], own=["4:memory:/"])))["memory"] == own


def test_hybrid_controllers_come_from_v1_where_bound_and_else_from_v2(kernel: FakeKernel) -> None:
    memory = kernel.v1("memory", procs=f"{PID}\n")
    unified = kernel.v2("", procs=f"{PID}\n", available="pids cpu", kind="")
    proc = kernel.proc(mounts=[kernel.v1_mount("memory"), kernel.v2_mount()], own=["4:memory:/", "0::/"])

    assert folders_of(found(proc)) == {"memory": memory, "cpu": unified, "pids": unified}


# Version 2


def test_v2_true_root_can_be_used_with_processes_in_it(kernel: FakeKernel) -> None:
    root = kernel.v2("", procs=f"1\n{PID}\n", kind="")

    assert folders_of(found(kernel.proc(mounts=[kernel.v2_mount()], own=["0::/"]))) == dict.fromkeys(ALL.split(), root)


def test_v2_nearest_ancestor_that_hands_down_all_is_chosen(kernel: FakeKernel) -> None:
    kernel.v2("", handed_down=ALL, kind="")
    nearest = kernel.v2("system.slice", handed_down=ALL)
    kernel.v2("system.slice/app.service", procs=f"{PID}\n")
    proc = kernel.proc(mounts=[kernel.v2_mount()], own=["0::/system.slice/app.service"])

    assert set(folders_of(found(proc)).values()) == {nearest}


def test_v2_delegated_cgroup_without_processes_is_chosen_before_it_hands_anything_down(kernel: FakeKernel) -> None:
    kernel.v2("", handed_down=ALL, kind="")
    service = kernel.v2("app.service")
    kernel.v2("app.service/runner", procs=f"{PID}\n", available="")
    proc = kernel.proc(mounts=[kernel.v2_mount()], own=["0::/app.service/runner"])

    assert set(folders_of(found(proc)).values()) == {service}


def test_v2_threaded_ancestor_is_passed_over(kernel: FakeKernel) -> None:
    root = kernel.v2("", kind="")
    kernel.v2("threads", handed_down=ALL, kind="domain threaded")
    kernel.v2("threads/own", procs=f"{PID}\n", kind="threaded")
    proc = kernel.proc(mounts=[kernel.v2_mount()], own=["0::/threads/own"])

    assert set(folders_of(found(proc)).values()) == {root}


def test_v2_controller_that_no_ancestor_has_is_missing_with_the_rest_usable(kernel: FakeKernel) -> None:
    root = kernel.v2("", available="memory cpu", kind="")
    kernel.v2("own", procs=f"{PID}\n", available="memory cpu")

    parent = found(kernel.proc(mounts=[kernel.v2_mount()], own=["0::/own"]))

    assert folders_of(parent) == {"memory": root, "cpu": root}
    [missing] = parent.missing
    assert missing.controller is CgroupController.PIDS
    assert "kernel does not offer" in missing.reason
    assert "cgroup_enable=pids" in missing.remedy


def test_v2_container_namespace_whose_root_holds_processes_moves_nobody_and_is_refused(kernel: FakeKernel) -> None:
    own = kernel.v2("", procs=f"1\n{PID}\n")

    answer = refused(kernel.proc(mounts=[kernel.v2_mount()], own=["0::/"]))

    assert "without moving processes of others" in answer.reason
    assert "--cgroupns=host" in answer.remedy
    assert "Delegate=yes" in answer.remedy
    assert (own / "cgroup.procs").read_text() == f"1\n{PID}\n"
    assert (own / "cgroup.subtree_control").read_text() == ""


@pytest.mark.parametrize(
    ("root", "own", "options", "procs", "reason"),
    [
        pytest.param("/", "/", "ro,nosuid", f"{PID}", "read-only", id="docker-default"),
        pytest.param("/../..", "/", "rw", f"{PID}", "does not hold", id="host-mount-in-private-namespace"),
        pytest.param("/other", "/own", "rw", f"{PID}", "does not hold", id="another-subtree"),
        pytest.param("/", "/../out", "rw", f"{PID}", "does not hold", id="process-outside-its-namespace"),
        pytest.param("/", "/", "rw", "99", "does not hold this process", id="a-cgroup-that-does-not-list-us"),
        pytest.param("/", "/gone (deleted)", "rw", f"{PID}", "does not hold this process", id="deleted"),
    ],
)
def test_mount_that_cannot_be_used_is_refused_with_the_docker_setting(
    kernel: FakeKernel, root: str, own: str, options: str, procs: str, reason: str
) -> None:
    kernel.v2("", procs=procs, kind="")

    answer = refused(kernel.proc(mounts=[kernel.v2_mount(root=root, options=options)], own=[f"0::{own}"]))

    assert reason in answer.reason
    assert "--cgroupns=host" in answer.remedy


def test_no_cgroup_mount_at_all_is_refused(kernel: FakeKernel) -> None:
    assert "no cgroup v2 hierarchy is mounted" in refused(kernel.proc(mounts=[], own=["0::/"])).reason


def test_proc_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "nothing").reason


@pytest.fixture
def v2_parent(kernel: FakeKernel) -> CgroupParent:
    kernel.v2("", handed_down=ALL, kind="")
    kernel.v2("slice", handed_down="pids")
    kernel.v2("slice/own", procs=f"{PID}\n")
    return found(kernel.proc(mounts=[kernel.v2_mount()], own=["0::/slice/own"]))


def test_v2_limits_are_written_and_handed_down_at_each_level(kernel: FakeKernel, v2_parent: CgroupParent) -> None:
    asked = limits(memory=64 * MEBIBYTE + 5, cpu=250, pids=99)

    run = make_cgroup(v2_parent, "a" * 32, asked, make_folder=kernel.make_v2_folder)

    [place] = run.places
    written = {name: (place.folder / name).read_text() for name in ("memory.max", "cpu.max", "pids.max")}
    assert written == {"memory.max": str(64 * MEBIBYTE), "cpu.max": "25000 100000", "pids.max": "99"}
    assert (place.folder / "memory.swap.max").read_text() == "0"
    assert (place.folder / "memory.oom.group").read_text() == "1"
    assert (kernel.cgroups / "slice/cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (kernel.cgroups / "slice/sandbox-lockdown/cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert run.procs_files == (kernel.cgroups / "slice/sandbox-lockdown" / ("a" * 32) / "cgroup.procs",)


def test_limit_that_is_none_is_not_written(kernel: FakeKernel, v2_parent: CgroupParent) -> None:
    run = make_cgroup(v2_parent, "a" * 32, limits(pids=9), make_folder=kernel.make_v2_folder)

    assert (run.places[0].folder / "memory.max").read_text() == ""


def test_limit_that_the_kernel_does_not_take_is_unenforceable(kernel: FakeKernel, v2_parent: CgroupParent) -> None:
    def deaf(folder: Path) -> None:
        kernel.make_v2_folder(folder)
        (folder / "memory.max").unlink()
        (folder / "memory.max").symlink_to(os.devnull)

    with pytest.raises(UnenforceableError, match=r"memory\.max says") as caught:
        make_cgroup(v2_parent, "a" * 32, limits(memory=MEBIBYTE), make_folder=deaf)

    assert caught.value.key == "max_ram_megabytes"


def test_limit_whose_file_is_missing_is_unenforceable_and_never_created(
    kernel: FakeKernel, v2_parent: CgroupParent
) -> None:
    def without_quota(folder: Path) -> None:
        kernel.make_v2_folder(folder)
        (folder / "cpu.max").unlink()

    with pytest.raises(UnenforceableError, match="max_cpus"):
        make_cgroup(v2_parent, "a" * 32, limits(cpu=500), make_folder=without_quota)

    assert not (kernel.cgroups / "slice/sandbox-lockdown" / ("a" * 32) / "cpu.max").exists()


def test_limit_of_a_missing_controller_is_unenforceable_before_anything_is_made(kernel: FakeKernel) -> None:
    root = kernel.v2("", procs=f"{PID}\n", available="memory", kind="")
    parent = found(kernel.proc(mounts=[kernel.v2_mount()], own=["0::/"]))

    with pytest.raises(UnenforceableError, match="cgroup_enable=pids"):
        make_cgroup(parent, "a" * 32, limits(memory=MEBIBYTE, pids=9), make_folder=kernel.make_v2_folder)

    assert not (root / "sandbox-lockdown").exists()


def test_run_name_in_use_is_unenforceable_and_left_alone(kernel: FakeKernel, v2_parent: CgroupParent) -> None:
    first = make_cgroup(v2_parent, "a" * 32, limits(pids=9), make_folder=kernel.make_v2_folder)

    with pytest.raises(UnenforceableError, match="File exists"):
        make_cgroup(v2_parent, "a" * 32, limits(pids=5), make_folder=kernel.make_v2_folder)

    assert (first.places[0].folder / "pids.max").read_text() == "9"


def test_shared_folder_removed_by_another_runner_meanwhile_is_made_again(
    kernel: FakeKernel, v2_parent: CgroupParent
) -> None:
    removed: list[Path] = []

    def racing(folder: Path) -> None:
        if folder.name == "a" * 32 and not removed:
            for name in folder.parent.iterdir():
                name.unlink()
            folder.parent.rmdir()
            removed.append(folder.parent)
        kernel.make_v2_folder(folder)

    run = make_cgroup(v2_parent, "a" * 32, limits(pids=9), make_folder=racing)

    assert removed
    assert (run.places[0].folder / "pids.max").read_text() == "9"


def test_v2_shared_folder_made_anew_by_another_runner_meanwhile_hands_down_all_the_same(
    kernel: FakeKernel, v2_parent: CgroupParent
) -> None:
    switch = kernel.cgroups / "slice/sandbox-lockdown/cgroup.subtree_control"

    def racing(folder: Path) -> None:
        if folder.name == "a" * 32:
            switch.write_text("")
        kernel.make_v2_folder(folder)

    make_cgroup(v2_parent, "a" * 32, limits(pids=9), make_folder=racing)

    assert switch.read_text() == "+cpu +memory +pids"


def test_v2_shared_folder_that_hands_nothing_down_is_unenforceable_and_leaves_nothing(
    kernel: FakeKernel, v2_parent: CgroupParent
) -> None:
    def without_switch(folder: Path) -> None:
        if folder.name != "a" * 32:
            kernel.make_v2_folder(folder)
            (folder / "cgroup.subtree_control").unlink()
        else:
            folder.mkdir()

    with pytest.raises(UnenforceableError, match="cannot hand its controllers down"):
        make_cgroup(v2_parent, "a" * 32, limits(pids=9), make_folder=without_switch)

    assert not (kernel.cgroups / "slice/sandbox-lockdown" / ("a" * 32)).exists()


def test_v2_counters_are_read_from_the_kernels_files(kernel: FakeKernel, v2_parent: CgroupParent) -> None:
    run = make_cgroup(v2_parent, "a" * 32, limits(), make_folder=kernel.make_v2_folder)
    folder = run.places[0].folder
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 1\n")
    (folder / "memory.peak").write_text("67108864\n")
    (folder / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 9\nsystem_usec 9\n")
    (folder / "pids.events").write_text("max 7\n")

    counted = run.counters()

    assert (counted.oom_kills, counted.peak_memory_bytes) == (3, 67108864)
    assert (counted.cpu_seconds, counted.pids_limit_hits) == (1.5, 7)


def test_counters_a_kernel_lacks_are_absent_but_a_lost_oom_counter_is_an_error(
    kernel: FakeKernel, v2_parent: CgroupParent
) -> None:
    run = make_cgroup(v2_parent, "a" * 32, limits(), make_folder=kernel.make_v2_folder)
    (run.places[0].folder / "memory.events").write_text("oom_kill 0\n")

    assert (run.counters().peak_memory_bytes, run.counters().cpu_seconds) == (None, None)
    (run.places[0].folder / "memory.events").unlink()
    with pytest.raises(UnenforceableError, match="oom_kill"):
        run.counters()


@pytest.mark.parametrize("run_name", ["", "a" * 31, "a" * 33, "A" * 32, "../" + "a" * 29, "a" * 32 + "\n"], ids=ascii)
def test_run_name_of_another_shape_is_refused(v2_parent: CgroupParent, run_name: str) -> None:
    with pytest.raises(ValueError, match="32 lower-case"):
        make_cgroup(v2_parent, run_name, limits())


@pytest.mark.parametrize("bad", [{"memory": 0}, {"memory": -1}, {"cpu": 0}, {"cpu": 9}, {"pids": 0}], ids=str)
def test_limits_that_no_kernel_means_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="less than"):
        limits(**bad)


# For real, on this host


@pytest.fixture
def host_parent() -> Iterator[CgroupParent]:
    parent = find_cgroup_parent()
    if isinstance(parent, CgroupsUnavailable):
        pytest.skip(f"no cgroups here: {parent.reason}")
    if parent.missing:
        pytest.skip(f"a controller is missing here: {parent.missing[0].reason}")
    yield parent
    parent.remove_once()


@pytest.fixture
async def new_run(host_parent: CgroupParent) -> AsyncIterator[Callable[[CgroupLimits], RunCgroup]]:
    runs: list[RunCgroup] = []

    def made(asked: CgroupLimits) -> RunCgroup:
        runs.append(make_cgroup(host_parent, secrets.token_hex(16), asked))
        return runs[-1]

    yield made
    for run in runs:
        assert await run.kill() == frozenset()
        assert await run.remove() == ()


@pytest.fixture
def open_run(new_run: Callable[[CgroupLimits], RunCgroup]) -> RunCgroup:
    return new_run(limits())


def born_inside(run: RunCgroup, *command: str) -> list[str]:
    enter = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 99; shift; done; shift; exec "$@"'
    return ["/bin/sh", "-c", enter, "sh", *map(str, run.procs_files), "--", *command]


def python_inside(run: RunCgroup, code: str) -> list[str]:
    return born_inside(run, sys.executable, "-I", "-S", "-c", code)


async def exit_code(command: list[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    return await asyncio.wait_for(process.wait(), 20)


async def first_member(run: RunCgroup) -> int:
    """The first process that is in the run's cgroups of all hierarchies."""
    async with asyncio.timeout(20):
        while True:
            if members := frozenset.intersection(*(cgroup_members(place.folder) for place in run.places)):
                return min(members)
            await asyncio.sleep(0.01)


async def test_allocating_past_the_limit_is_killed_and_counted(new_run: Callable[[CgroupLimits], RunCgroup]) -> None:
    run = new_run(limits(memory=48 * MEBIBYTE))

    code = await exit_code(python_inside(run, "bytearray(200 << 20)"))
    counted = run.counters()

    assert code == -9
    assert counted.oom_kills >= 1
    assert counted.peak_memory_bytes is not None
    assert 40 * MEBIBYTE < counted.peak_memory_bytes <= 48 * MEBIBYTE


async def test_allocating_within_the_limit_is_not_counted(new_run: Callable[[CgroupLimits], RunCgroup]) -> None:
    run = new_run(limits(memory=96 * MEBIBYTE))

    code = await exit_code(python_inside(run, "bytearray(40 << 20)"))

    assert (code, run.counters().oom_kills) == (0, 0)


async def test_files_in_tmpfs_count_as_memory(new_run: Callable[[CgroupLimits], RunCgroup]) -> None:
    run = new_run(limits(memory=48 * MEBIBYTE))
    fill = "import os\nfile = os.memfd_create('x')\nfor _ in range(100): os.write(file, bytes(1 << 20))"

    assert await exit_code(python_inside(run, fill)) == -9
    assert run.counters().oom_kills >= 1


async def test_cpu_quota_bites(new_run: Callable[[CgroupLimits], RunCgroup]) -> None:
    run = new_run(limits(cpu=200))
    spin = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"

    before = time.monotonic()
    code = await exit_code(python_inside(run, spin))
    wall_seconds, used = time.monotonic() - before, run.counters().cpu_seconds

    assert code == 0
    assert used is not None
    assert 0.05 < used / wall_seconds < 0.35


async def test_process_limit_stops_forks_and_is_counted(new_run: Callable[[CgroupLimits], RunCgroup]) -> None:
    run = new_run(limits(pids=5))
    fork = (
        "import os, sys, time\n"
        "for _ in range(20):\n"
        "    try:\n        child = os.fork()\n    except BlockingIOError:\n        sys.exit(42)\n"
        "    if child == 0:\n        time.sleep(30)\n        os._exit(0)"
    )

    code = await exit_code(python_inside(run, fork))

    assert code == 42
    assert len(run.processes()) == 4
    assert run.counters().pids_limit_hits >= 1


async def test_kill_ends_children_that_ignore_signals_and_removal_leaves_nothing(open_run: RunCgroup) -> None:
    stubborn = (
        "import os, signal, time\nfor number in (1, 2, 13, 15): signal.signal(number, signal.SIG_IGN)\n"
        "for _ in range(3): os.fork()\nprint('ready', flush=True)\nos.setsid() if os.getpgrp() != os.getpid() else 0\n"
        "time.sleep(60)"
    )
    process = await asyncio.create_subprocess_exec(*python_inside(open_run, stubborn), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(8):
        assert await process.stdout.readline() == b"ready\n"
    assert len(open_run.processes()) == 8

    assert await open_run.kill(within_seconds=5) == frozenset()

    assert await process.wait() == -9
    assert await open_run.remove() == ()
    assert not any(place.folder.exists() for place in open_run.places)


@pytest.mark.gvisor
def test_shared_folder_goes_with_its_last_run(host_parent: CgroupParent) -> None:
    private = CgroupParent(places=make_cgroup(host_parent, secrets.token_hex(16), limits()).places, missing=())
    runs = [make_cgroup(private, secrets.token_hex(16), limits()) for _ in range(2)]
    shared = [place.folder / "sandbox-lockdown" for place in private.places]

    assert runs[0].remove_once() == ()
    assert all(folder.exists() for folder in shared)
    assert runs[1].remove_once() == ()
    assert not any(folder.exists() for folder in shared)
    for place in private.places:
        place.folder.rmdir()


@pytest.mark.gvisor
def test_many_at_once_make_and_remove_runs_and_none_takes_the_shared_folder_from_another(
    host_parent: CgroupParent,
) -> None:
    private = CgroupParent(places=make_cgroup(host_parent, secrets.token_hex(16), limits()).places, missing=())

    def make_and_remove(_: int) -> tuple[Path, ...]:
        return make_cgroup(private, secrets.token_hex(16), limits(memory=MEBIBYTE, cpu=500, pids=9)).remove_once()

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(make_and_remove, range(100))) == {()}
    assert private.remove_once() == ()
    for place in private.places:
        place.folder.rmdir()


async def test_removal_of_a_cgroup_in_use_says_what_is_left_and_does_not_block(open_run: RunCgroup) -> None:
    process = await asyncio.create_subprocess_exec(*born_inside(open_run, "/bin/sleep", "30"))
    await first_member(open_run)

    left = await open_run.remove(within_seconds=0.05)

    assert set(left) == {place.folder for place in open_run.places}
    await open_run.kill()
    await process.wait()


async def test_kill_never_touches_a_process_outside(open_run: RunCgroup) -> None:
    outside = await asyncio.create_subprocess_exec("/bin/sleep", "30")

    await open_run.kill()

    assert outside.returncode is None
    with suppress(ProcessLookupError):
        outside.kill()
    assert await outside.wait() == -9


@pytest.mark.gvisor
def test_existing_runs_of_a_crashed_runner_are_found_again(host_parent: CgroupParent) -> None:
    run = make_cgroup(host_parent, secrets.token_hex(16), limits())

    assert run in host_parent.existing_runs()
    assert run.remove_once() == ()
    assert run not in host_parent.existing_runs()


def test_v1_quota_above_the_parents_is_brought_within_it(host_parent: CgroupParent) -> None:
    outer = make_cgroup(host_parent, secrets.token_hex(16), limits(cpu=300))
    places = tuple(place for place in outer.places if CgroupController.CPU in place.controllers)
    if places[0].version is CgroupVersion.V2:
        outer.remove_once()
        pytest.skip("v2 allows a child more than its parent")
    parent = CgroupParent(places=places, missing=())
    try:
        inner = make_cgroup(parent, secrets.token_hex(16), limits(cpu=900))
        quota = (inner.places[0].folder / "cpu.cfs_quota_us").read_text().strip()
        assert inner.remove_once() == ()
    finally:
        parent.remove_once()
        assert outer.remove_once() == ()

    assert quota == "30000"


@pytest.fixture
def bare_v2_run() -> Iterator[RunCgroup]:
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    if not mounts or not os.access(mounts[0][4], os.W_OK) or "ro" in mounts[0][5].split(","):
        pytest.skip("no writable cgroup v2 hierarchy here")
    folder = Path(mounts[0][4]) / f"sandbox-lockdown-test-{os.getpid()}"
    folder.mkdir()
    place = CgroupPlace(folder=folder, version=CgroupVersion.V2, controllers=frozenset())
    yield RunCgroup(run_name="a" * 32, places=(place,))
    if folder.exists():
        folder.rmdir()


async def test_v2_cgroup_is_killed_in_one_stroke(bare_v2_run: RunCgroup) -> None:
    process = await asyncio.create_subprocess_exec(*born_inside(bare_v2_run, "/bin/sleep", "30"))
    assert await first_member(bare_v2_run) == process.pid

    assert await bare_v2_run.kill() == frozenset()

    assert await process.wait() == -9
    assert await bare_v2_run.remove() == ()
