"""The state folder: whole or as it was whatever happens, one change after another of many processes; else refused."""

import dataclasses
import fcntl
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from policy.errors import SetRefusedError, StateError
from policy.remembered import FIRST_CONTACT, Remembered, RememberedPolicy, state_text
from policy.state_folder import LOCK_NAME, STATE_MAX_BYTES, STATE_NAME, OnlookerMemory, ProcessMemory, StateFolder
from policy.trusted_files import FOLDER_MAX_FILES
from tests.policy.instances import PATH, Instance, policy

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and give files away")
STRANGER = 12345
ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, random, signal, sys, time
from pathlib import Path
from policy.remembered import Remembered, RememberedPolicy
from policy.state_folder import StateFolder

state = StateFolder(Path(sys.argv[1]))

def serial_of(remembered):
    known = remembered.policies.get("acme-prod")
    return 0 if known is None else known.serial

def counted(remembered):
    serial = serial_of(remembered) + 1
    policies = {"acme-prod": RememberedPolicy(serial=serial, payload_sha256="a" * 64)}
    return serial, Remembered(policies=policies, last_good={"a.toml": bytes([serial % 256]) * 40_000})

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid

def all_ended_well(pids):
    return [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)
"""
"""Forks its processes itself: each of them would take longer to begin than to do its work."""


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def state(folder: Path) -> StateFolder:
    """A state folder in which something is remembered."""
    state = StateFolder(folder, lock_seconds=0.2)
    assert state.change(counted) == 1
    return state


def counted(remembered: Remembered) -> tuple[int, Remembered]:
    """Raise the serial by one, and keep enough beside it that writing takes a while."""
    serial = serial_of(remembered) + 1
    policies = {"acme-prod": RememberedPolicy(serial=serial, payload_sha256="a" * 64)}
    return serial, Remembered(policies=policies, last_good={"a.toml": bytes([serial % 256]) * 40_000})


def serial_of(remembered: Remembered) -> int:
    known = remembered.policies.get("acme-prod")
    return 0 if known is None else known.serial


def looked(remembered: Remembered) -> tuple[Remembered, Remembered]:
    return remembered, remembered


def refused(state: StateFolder, words: str) -> None:
    """It is refused for runs and for those who only look, and in the words of a policy set."""
    for attempt in (state.read, lambda: state.change(counted)):
        with pytest.raises(StateError, match=words) as error:
            attempt()
        assert all(problem.remedy for problem in error.value.problems)
    assert Instance(policy(), memory=state).refusal().code == "state-invalid"


@contextmanager
def unchanged(state: StateFolder) -> Iterator[None]:
    before = state.file.read_bytes()
    yield
    assert state.file.read_bytes() == before


def program(script: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + script, folder], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )


# What is there, and for whom


def test_absent_state_is_first_contact_and_looking_makes_none(folder: Path) -> None:
    assert StateFolder(folder).read() == FIRST_CONTACT
    assert OnlookerMemory(StateFolder(folder)).change(counted) == 1
    assert not folder.exists()


def test_folder_without_a_file_is_first_contact(folder: Path) -> None:
    folder.mkdir(0o700)

    assert StateFolder(folder).read() == FIRST_CONTACT


def test_folder_and_files_are_for_their_owner_alone_whatever_the_umask(folder: Path) -> None:
    os.umask(0)
    StateFolder(folder).change(counted)

    modes = {path.name: path.stat().st_mode & 0o7777 for path in (folder, *folder.iterdir())}
    assert modes == {"state": 0o700, STATE_NAME: 0o600, LOCK_NAME: 0o600}


def test_state_is_there_for_the_next_process(folder: Path) -> None:
    StateFolder(folder).change(counted)

    assert serial_of(StateFolder(folder).read()) == 1


def test_nothing_is_written_where_nothing_changed(state: StateFolder) -> None:
    before = state.file.stat()
    state.change(looked)

    after = state.file.stat()  # reading may change when it was last read
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


def test_nothing_is_kept_of_a_decision_that_failed(state: StateFolder) -> None:
    def failing(_remembered: Remembered) -> tuple[None, Remembered]:
        raise ZeroDivisionError

    with unchanged(state), pytest.raises(ZeroDivisionError):
        state.change(failing)
    assert state.change(counted) == 2


def test_memory_of_a_process_is_its_own() -> None:
    memory, other = ProcessMemory(), ProcessMemory()
    memory.change(counted)

    assert (serial_of(memory.read()), serial_of(other.read())) == (1, 0)


def test_onlooker_sees_and_keeps_nothing() -> None:
    memory = ProcessMemory()
    memory.change(counted)

    assert OnlookerMemory(memory).change(counted) == 2
    assert serial_of(memory.read()) == 1


def test_no_descriptor_is_left_open(state: StateFolder, folder: Path) -> None:
    def open_descriptors() -> set[str]:
        return {each.name for each in Path("/proc/self/fd").iterdir()}

    before = open_descriptors()
    state.change(counted)
    state.read()
    StateFolder(folder.parent / "nowhere").read()
    state.file.write_bytes(b"garbage")
    refused(state, "it is damaged")
    shutil.rmtree(folder)
    refused(StateFolder(folder.parent / "no" / "where"), "does not exist")

    assert open_descriptors() == before


# What is damaged, or somebody else's


@pytest.mark.parametrize(
    "damage",
    [
        lambda _text: b"",
        lambda text: text[:-1],
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b'"serial": 1,', b'"serial": 0,'),
        lambda text: text.replace(b'"serial": 1,', b'"serial": 2,'),
        lambda text: text.replace(b'"version": 1', b'"version": 2'),
        lambda text: b"\0" * len(text),
    ],
    ids=["empty", "one byte short", "half", "serial none", "another serial", "another version", "zeros"],
)
def test_damaged_state_is_refused_and_left_as_it_is(state: StateFolder, damage: Callable[[bytes], bytes]) -> None:
    state.file.write_bytes(damage(state.file.read_bytes()))

    with unchanged(state):
        refused(state, r"it is damaged: .*Restore it from a backup; or move it away and begin anew")


def test_state_with_any_flipped_byte_is_refused(folder: Path) -> None:
    instance = Instance(policy(), memory=StateFolder(folder))
    assert instance.code() is None
    file = folder / STATE_NAME
    whole = file.read_bytes()
    for place in random.Random(3).sample(range(len(whole)), 100):  # noqa: S311 -- places in a file
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert instance.refusal().code == "state-invalid"
    file.write_bytes(whole)

    assert instance.code() is None


def test_state_moved_away_as_the_remedy_says_is_first_contact(state: StateFolder) -> None:
    state.file.write_bytes(b"garbage")
    refused(state, "it is damaged")
    state.file.rename(state.file.with_name("damaged.json"))

    assert Instance(policy(), memory=state).code() is None


def test_state_beyond_its_size_is_refused_before_it_is_read_whole(state: StateFolder) -> None:
    with state.file.open("r+b") as file:
        file.truncate(STATE_MAX_BYTES + 1)

    refused(state, f"it is larger than {STATE_MAX_BYTES} bytes")


def test_state_that_could_not_be_read_again_is_not_written(state: StateFolder) -> None:
    with unchanged(state), pytest.raises(StateError, match="it would be larger than"):
        state.change(lambda _: (None, Remembered(last_good={"a.toml": bytes(STATE_MAX_BYTES)})))


def test_largest_set_fits_in_a_state() -> None:
    path = "/" + "\xe9" * 2000
    files = {f"{path}/{number:0255}.toml": bytes(64 * 1024) for number in range(FOLDER_MAX_FILES)}
    policies = {f"{number:064}": RememberedPolicy(serial=2**53 - 1, payload_sha256="a" * 64) for number in range(1000)}

    assert len(state_text(Remembered(last_good=files, policies=policies))) < STATE_MAX_BYTES


def as_link(file: Path) -> None:
    target = file.with_name("elsewhere.json")
    file.rename(target)
    open_folder = file.parent.parent / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    (open_folder / "link").symlink_to(target)
    file.symlink_to(open_folder / "link")


def as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def dangling(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.symlink_to("nowhere")


def in_a_circle(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.symlink_to(file.parent)


def folder_is_a_file(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_text("")


def parent_is_missing(file: Path) -> None:
    shutil.rmtree(file.parent.parent)


def parent_is_a_file(file: Path) -> None:
    shutil.rmtree(file.parent.parent)
    file.parent.parent.write_text("")


def parent_is_open(file: Path) -> None:
    file.parent.parent.chmod(0o777)


def parent_of_a_missing_folder_is_open(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.parent.chmod(0o777)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (as_link, "others than its owner may write its folder .*chmod go-w"),
        (as_pipe, "it is a pipe, a socket or a device. Name a regular file"),
        (as_folder, "it is a folder. Name a regular file"),
        (lambda file: file.chmod(0o644), r"others than its owner may use it \(mode 0644\).*chmod 600"),
        (lambda file: file.chmod(0o620), r"others than its owner may write it \(mode 0620\)"),
        (lambda file: file.parent.chmod(0o755), r"others than its owner may use it \(mode 0755\).*chmod 700"),
        (lambda file: file.parent.chmod(0o710), r"others than its owner may use it \(mode 0710\).*chmod 700"),
        (dangling, "it does not exist. Check the path"),
        (in_a_circle, "a symbolic link in its path changed, or too many follow each other"),
        (folder_is_a_file, "a part of its path is not a folder"),
        (parent_is_missing, "it does not exist. Check the path"),
        (parent_is_a_file, "a part of its path is not a folder"),
        (parent_is_open, "others than its owner may write its folder .*chmod go-w"),
        (parent_of_a_missing_folder_is_open, "others than its owner may write its folder .*chmod go-w"),
    ],
    ids=[
        "link by way of an open folder",
        "pipe",
        "folder in place of the file",
        "file that others read",
        "file that a group writes",
        "folder that others list",
        "folder that a group passes",
        "dangling link",
        "link in a circle",
        "file in place of the folder",
        "missing parent",
        "file in place of the parent",
        "parent that others write",
        "missing folder in a parent that others write",
    ],
)
def test_state_that_cannot_be_trusted_is_refused(tmp_path: Path, act: Callable[[Path], None], words: str) -> None:
    (tmp_path / "var").mkdir()
    state = StateFolder(tmp_path / "var" / "state")
    state.change(counted)
    act(state.file)

    refused(state, words)


@AS_ROOT
@pytest.mark.parametrize("whose", ["file", "folder", "lock"])
def test_state_of_somebody_else_is_refused(state: StateFolder, folder: Path, whose: str) -> None:
    given_away = {"file": state.file, "folder": folder, "lock": folder / LOCK_NAME}[whose]
    os.chown(given_away, STRANGER, STRANGER)

    with pytest.raises(StateError, match=f"belongs to uid {STRANGER}"):
        state.change(counted)


@AS_ROOT
def test_root_who_looks_at_the_state_of_another_is_told_to_be_that_user(state: StateFolder, folder: Path) -> None:
    for path in (folder, *folder.iterdir()):
        os.chown(path, STRANGER, STRANGER)

    refused(state, f"it belongs to uid {STRANGER}, and the running user is 0. Run this as uid {STRANGER}, or chown 0")


def test_own_state_folder_in_a_sticky_folder_is_accepted(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)

    assert StateFolder(shared / "state").change(counted) == 1


def test_state_folder_named_by_a_link_of_our_own_is_accepted(folder: Path) -> None:
    (folder.parent / "volume").mkdir(0o700)
    folder.symlink_to("volume")

    assert StateFolder(folder).change(counted) == 1
    assert (folder.parent / "volume" / STATE_NAME).exists()


# Disks


@contextmanager
def disk(folder: Path, options: str) -> Iterator[None]:
    """A real file system of its own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", folder], check=True)  # noqa: S607
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)  # noqa: S607


@AS_ROOT
def test_full_disk_leaves_the_state_as_it_was_and_runs_nothing(folder: Path) -> None:
    with disk(folder, "size=256k"):
        instance = Instance(policy(), memory=StateFolder(folder))
        assert instance.code() is None
        with (folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(b"x" * 4096):
                pass
        before = (folder / STATE_NAME).read_bytes()
        assert instance.code() is None  # nothing to be written
        instance.ship(policy(serial=8))
        refusal = instance.refusal()

        assert (refusal.code, "the disk is full; nothing was changed" in str(refusal)) == ("state-invalid", True)
        assert (folder / STATE_NAME).read_bytes() == before
        assert {path.name for path in folder.iterdir()} == {STATE_NAME, LOCK_NAME, "filler"}
        (folder / "filler").unlink()
        assert instance.code() is None


@AS_ROOT
def test_disk_without_room_for_a_first_refusal_does_not_give_the_last_good_set_time_without_end(folder: Path) -> None:
    with disk(folder, "nr_inodes=4"):
        instance = Instance(policy(), memory=StateFolder(folder))
        assert instance.code() is None
        (folder / "filler").touch()
        instance.ship(b"garbage\n")

        assert instance.refusal().code == "state-invalid"


@AS_ROOT
def test_read_only_state_folder_is_refused_for_runs_and_for_onlookers(folder: Path) -> None:
    with disk(folder, "size=256k"):
        state = StateFolder(folder)
        state.change(counted)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)  # noqa: S607
        refused(state, "the running user may not write it, or it is mounted read-only. Permit that, or name another")


@pytest.mark.parametrize("room", [0, 1, 1000])
def test_limit_on_the_size_of_files_leaves_the_state_as_it_was(state: StateFolder, room: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with unchanged(state):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(StateError, match="the system permits no file of that size; nothing was changed"):
                state.change(counted)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert state.change(counted) == 2


# Crashes


KILLED = """
def forever():
    while True:
        state.change(counted)

serial = 1
for _ in range(30):
    pid = child(forever)
    while serial_of(state.read()) == serial:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.02))
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    kept = state.read()
    assert serial_of(kept) > serial
    serial = serial_of(kept)
    assert kept.last_good["a.toml"] == bytes([serial % 256]) * 40_000
print(serial)
"""


def test_process_killed_at_any_moment_leaves_a_whole_state_that_never_goes_back(state: StateFolder) -> None:
    folder = state.file.parent
    told, _ = program(KILLED, folder).communicate(timeout=60)

    assert state.change(counted) == int(told) + 1
    assert {path.name for path in folder.iterdir()} == {STATE_NAME, LOCK_NAME}


def test_what_a_killed_process_left_half_written_is_passed_over(state: StateFolder) -> None:
    (state.file.parent / f".{STATE_NAME}.new").write_bytes(b"half")

    assert serial_of(state.read()) == 1
    assert state.change(counted) == 2


def test_link_planted_where_the_new_state_is_written_is_not_followed(state: StateFolder, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("as it was")
    (state.file.parent / f".{STATE_NAME}.new").symlink_to(tmp_path / "victim")
    state.change(counted)

    assert (tmp_path / "victim").read_text() == "as it was"
    assert not state.file.is_symlink()


# Neighbours


COUNTING = """
def count():
    for _ in range(12):
        state.change(counted)

assert all_ended_well([child(count) for _ in range(8)])
"""
ACCEPTING = """
from tests.policy.instances import Instance, policy

def accepting(own):
    def work():
        for serial in range(own + 1, 65, 8):
            code = Instance(policy(serial=serial), memory=state).code()
            line = json.dumps([serial, code, serial_of(state.read())]) + "\\n"
            os.write(1, line.encode())
    return work

assert all_ended_well([child(accepting(own)) for own in range(8)])
"""


def test_eight_processes_counting_at_once_lose_no_change(folder: Path) -> None:
    counting = program(COUNTING, folder)
    counting.communicate(timeout=60)

    assert counting.returncode == 0
    assert serial_of(StateFolder(folder).read()) == 96


def test_eight_processes_accepting_rising_serials_at_once_never_go_back(folder: Path) -> None:
    seen, state = [0], StateFolder(folder)
    accepting = program(ACCEPTING, folder)
    while accepting.poll() is None:
        seen.append(serial_of(state.read()))
        time.sleep(0.002)

    told = [json.loads(line) for line in accepting.communicate()[0].splitlines()]
    assert accepting.returncode == 0
    assert seen == sorted(seen)
    assert len(told) == 64
    for serial, code, kept in told:
        assert (code, kept >= serial) == (None, True) or (code, kept > serial) == ("rollback", True)
    assert serial_of(state.read()) == 64


def test_neighbour_who_holds_the_lock_cannot_hang_a_run(state: StateFolder) -> None:
    with (state.file.parent / LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begun = time.monotonic()
        with unchanged(state):
            refusal = Instance(policy(), memory=state).refusal()

    assert time.monotonic() - begun < 2
    assert refusal.code == "state-invalid"
    assert "another process has held its lock for 0.2 seconds. Find that process, for instance" in str(refusal)


def test_neighbour_who_holds_the_lock_keeps_nobody_from_looking(state: StateFolder) -> None:
    with (state.file.parent / LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert serial_of(OnlookerMemory(state).change(looked)) == 1


def test_lock_removed_while_it_was_waited_for_is_taken_anew(folder: Path) -> None:
    StateFolder(folder).change(counted)
    entered: list[bool] = []

    def noting(remembered: Remembered) -> tuple[None, Remembered]:
        entered.append((folder / LOCK_NAME).exists())  # else nobody else would wait for what is held here
        return None, remembered

    waiting = threading.Thread(target=StateFolder(folder).change, args=(noting,))
    with (folder / LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting.start()
        time.sleep(0.1)
        (folder / LOCK_NAME).unlink()
    waiting.join(20)

    assert entered == [True]


def test_lock_is_released_although_a_child_still_has_the_descriptor(state: StateFolder) -> None:
    kept: list[int] = []

    def keeping(remembered: Remembered) -> tuple[None, Remembered]:
        locked = state.file.parent / LOCK_NAME
        for link in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                if link.readlink() == locked:
                    kept.append(os.dup(int(link.name)))
        return None, remembered

    state.change(keeping)
    try:
        assert kept
        assert state.change(counted) == 2
    finally:
        for descriptor in kept:
            os.close(descriptor)


# What nothing here can see


def test_old_snapshot_of_the_folder_is_believed_unless_the_environment_knows_better(folder: Path) -> None:
    instance = Instance(policy(serial=7), memory=StateFolder(folder))
    assert instance.code() is None
    shutil.copytree(folder, folder.with_name("snapshot"))
    instance.ship(policy(serial=8))
    assert instance.code() is None
    shutil.rmtree(folder)
    folder.with_name("snapshot").rename(folder)
    instance.ship(policy(serial=7))

    assert instance.code() is None
    instance.variables["SANDBOX_POLICY_MIN_SERIAL"] = "acme-prod=8"
    assert instance.refusal().code == "serial-too-low"


def test_state_is_no_proof_a_last_good_set_planted_in_it_needs_its_signatures(folder: Path) -> None:
    state = StateFolder(folder)
    instance = Instance(policy({"max_cpus": {"ceiling": 1}}), memory=state)
    assert instance.code() is None
    planted = {f"{PATH}/1.toml": policy({"max_cpus": 64}).replace(b"64", b"65")}
    state.change(lambda known: (None, dataclasses.replace(known, last_good=planted)))
    instance.ship(b"garbage\n")

    with pytest.raises(SetRefusedError, match="as last accepted"):
        instance.situation()
