"""A live policy: it follows the files, reads nothing where nothing changed, and judges once however many ask."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pytest

from policy.environment import read_environment
from policy.errors import ConfigurationError, SetRefusedError
from policy.keys import PrivateKey, public_pem
from policy.limits import MAX_CPUS
from policy.live import SETTLED_NANOSECONDS, SETTLED_WHOLE_SECONDS, LivePolicy, all_settled, current_moment, onlooker
from policy.load import PolicyReader, trusted_reader
from policy.remembered import Remembered
from policy.situation import Situation
from policy.state_folder import STATE_NAME, ProcessMemory, StateFolder
from policy.trusted_files import CONFIGMAP_DATA
from tests.policy.factories import HEADER
from tests.policy.instances import ADA, DAY, GRACE, HOUR, MALLORY, NOW, SECOND, Instance, inline, policy, unsigned

T = TypeVar("T")
SEVEN, EIGHT = policy({"max_cpus": 1}), policy({"max_cpus": 2}, serial=8)


class Host:
    """One process on a real file system, whose reads are counted and whose clock is the test's own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.policies = folder / "policies"
        self.policies.mkdir(exist_ok=True)
        self.now = NOW
        self.reads = 0
        usual = {
            "SANDBOX_POLICY_PATH": str(self.policies),
            "SANDBOX_POLICY_KEYS": inline(ADA),
            "SANDBOX_INSTANCE": "prod-eu",
        }
        self.environment = read_environment({name: text for name, text in (usual | variables).items() if text})
        real = trusted_reader()

        def counted(path: Path, is_unsigned: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's shape
            self.reads += 1
            return real.policies(path, is_unsigned)

        self.reader = PolicyReader(policies=counted, keys=real.keys)
        self.live = LivePolicy(self.environment, reader=self.reader, now=self.clock)

    def clock(self) -> datetime:
        return self.now

    def write(self, name: str, data: bytes) -> Path:
        path = self.policies / name
        path.write_bytes(data)
        return path

    def settle(self) -> None:
        """Let the files grow older than a tick of the kernel's clock, and be judged then."""
        time.sleep(SETTLED_NANOSECONDS / 1e9 + 0.01)
        self.serials()
        time.sleep(SETTLED_NANOSECONDS / 1e9 + 0.01)  # for the state, which that may have written
        self.serials()
        self.reads = 0

    def serials(self) -> list[int]:
        return [document.serial for document in self.live.situation().documents]

    def code(self) -> str | None:
        standing = self.live.standing()
        assert standing is not None
        return None if standing.refusal is None else standing.refusal.code


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with one good policy file, judged and at rest."""
    return at_rest(tmp_path)


def at_rest(tmp_path: Path, *, files: Sequence[bytes] = (SEVEN,), **variables: str) -> Host:
    host = Host(tmp_path, **variables)
    for number, data in enumerate(files, 1):
        host.write(f"{number}.toml", data)
    host.settle()
    return host


# Nothing changed


@pytest.mark.parametrize("with_state", [False, True], ids=["memory of the process", "state folder"])
def test_nothing_is_read_where_nothing_changed(tmp_path: Path, *, with_state: bool) -> None:
    host = at_rest(tmp_path, SANDBOX_POLICY_STATE=str(tmp_path / "state") if with_state else "")
    situations = [host.live.situation() for _ in range(50)]

    assert host.reads == 0
    assert all(each is situations[0] for each in situations)


def test_nothing_is_read_or_decided_where_no_policy_is_named(tmp_path: Path) -> None:
    live = LivePolicy(read_environment({}), reader=trusted_reader(), now=current_moment)

    assert live.standing() is None
    assert live.situation().documents == ()
    assert live.situation() is live.situation()
    assert not list(tmp_path.iterdir())


def test_refused_set_is_not_read_again_for_every_run(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("1.toml", policy({}, MALLORY))
    time.sleep(0.06)
    for _ in range(20):
        with pytest.raises(SetRefusedError, match="last good set"):
            host.live.situation()

    assert host.reads == 1


def test_files_touched_a_moment_ago_are_read_again_though_they_look_the_same(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("1.toml", SEVEN)
    host.serials()
    host.serials()

    assert host.reads == 2  # within a tick of the kernel's clock, a second change would look like the first


@pytest.mark.parametrize(
    ("age", "settled"),
    [
        (SETTLED_NANOSECONDS - 1, False),
        (SETTLED_NANOSECONDS + 1, True),
        (-3_600_000_000_000, False),
    ],
    ids=["within a tick", "past it", "ahead of our clock"],
)
def test_changes_settle_once_the_clock_has_ticked(age: int, *, settled: bool) -> None:
    now = 1_793_491_200_000_000_123

    assert all_settled([1, now - age], now) is settled


def test_changes_settle_later_on_a_file_system_that_keeps_whole_seconds() -> None:
    changed = 1_793_491_200_000_000_000

    assert not all_settled([changed], changed + SETTLED_WHOLE_SECONDS)
    assert all_settled([changed], changed + SETTLED_WHOLE_SECONDS + 1)


def test_two_changes_at_once_are_never_taken_for_one(tmp_path: Path) -> None:
    host = Host(tmp_path)
    path = host.write("1.toml", SEVEN)
    texts = [policy({"max_cpus": 1}, serial=serial) for serial in range(10, 40)]
    assert len(set(map(len, texts))) == 1
    for serial, text in enumerate(texts, 10):
        with path.open("r+b") as file:
            file.write(text)
        assert host.serials() == [serial]


# Something changed


def test_in_place_rewrite_of_the_same_size_with_its_old_date_is_noticed(host: Host) -> None:
    path = host.policies / "1.toml"
    before = path.stat()
    same_size = policy({"max_cpus": 2}, serial=8)
    assert len(same_size) == before.st_size
    with path.open("r+b") as file:
        file.write(same_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns

    assert host.serials() == [8]


def test_file_renamed_over_another_is_noticed(host: Host) -> None:
    new = host.policies.parent / "new.toml"
    new.write_bytes(EIGHT)
    new.rename(host.policies / "1.toml")

    assert host.serials() == [8]


def test_added_file_is_noticed(host: Host) -> None:
    host.write("2.toml", policy(id="b", serial=3))

    assert host.serials() == [7, 3]


def test_removed_file_is_noticed(tmp_path: Path) -> None:
    host = at_rest(tmp_path, files=(SEVEN, policy(id="b")))
    (host.policies / "2.toml").unlink()

    assert host.code() == "id-gone"


def test_folder_that_vanished_is_noticed_and_its_return_too(host: Host) -> None:
    host.policies.rename(host.policies.with_name("away"))
    assert host.code() == "unreadable"
    host.policies.with_name("away").rename(host.policies)

    assert host.code() is None


def test_single_file_is_followed_too(tmp_path: Path) -> None:
    path = tmp_path / "acme.policy"
    path.write_bytes(SEVEN)
    host = Host(tmp_path, SANDBOX_POLICY_PATH=str(path))
    host.settle()
    path.write_bytes(EIGHT)

    assert host.serials() == [8]


def test_link_that_points_elsewhere_now_is_noticed(tmp_path: Path) -> None:
    for name, text in (("old", SEVEN), ("new", EIGHT)):
        (tmp_path / name).write_bytes(text)
    link = tmp_path / "link.toml"
    link.symlink_to("old")
    host = Host(tmp_path, SANDBOX_POLICY_PATH=str(link))
    host.settle()
    (tmp_path / "swap").symlink_to("new")
    (tmp_path / "swap").rename(link)

    assert host.serials() == [8]


def test_file_that_others_may_write_now_is_noticed(tmp_path: Path) -> None:
    host = at_rest(tmp_path, files=(unsigned(),), SANDBOX_POLICY_KEYS="", SANDBOX_POLICY_UNSIGNED_ALLOWED="true")
    (host.policies / "1.toml").chmod(0o666)

    assert host.code() == "unreadable"


def keys_at(tmp_path: Path, key: PrivateKey) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "ops.pub").write_bytes(public_pem(key.public))
    return keys


def test_revoked_key_file_is_noticed_and_gives_no_time(tmp_path: Path) -> None:
    keys = keys_at(tmp_path, ADA)
    host = at_rest(tmp_path, SANDBOX_POLICY_KEYS=str(keys))
    (keys / "ops.pub").write_bytes(public_pem(GRACE.public))

    with pytest.raises(SetRefusedError) as refused:
        host.live.situation()
    assert refused.value.code == "signature-invalid"


def test_key_added_to_the_folder_of_keys_is_noticed(tmp_path: Path) -> None:
    keys = keys_at(tmp_path, ADA)
    host = at_rest(tmp_path, SANDBOX_POLICY_KEYS=str(keys))
    host.write("1.toml", policy({"max_cpus": 2}, GRACE, serial=8))
    assert host.code() == "signature-invalid"
    (keys / "grace.pub").write_bytes(public_pem(GRACE.public))

    assert host.serials() == [8]
    assert host.code() is None


def test_process_whose_working_folder_is_gone_still_finds_its_policies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    assert at_rest(tmp_path, SANDBOX_POLICY_STATE=str(tmp_path / "state")).code() is None


# A Kubernetes ConfigMap


def generation(folder: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Put a new generation in place as the kubelet does: written aside, and swapped in by one rename."""
    (folder / name).mkdir()
    for file, data in files.items():
        (folder / name / file).write_bytes(data)
    before = (folder / CONFIGMAP_DATA).readlink() if (folder / CONFIGMAP_DATA).is_symlink() else None
    (folder / "..data_tmp").symlink_to(name)
    (folder / "..data_tmp").rename(folder / CONFIGMAP_DATA)
    for file in files:
        if not (folder / file).is_symlink():
            (folder / file).symlink_to(f"{CONFIGMAP_DATA}/{file}")
    for link in folder.glob("*.toml"):
        if link.name not in files:
            link.unlink()
    if before is not None:
        for old in (folder / before).iterdir():
            old.unlink()
        (folder / before).rmdir()


def test_configmap_swap_is_noticed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    generation(host.policies, "..2026_11_01.1", {"a.toml": SEVEN})
    host.settle()
    assert (host.serials(), host.reads) == ([7], 0)
    generation(host.policies, "..2026_11_02.2", {"a.toml": EIGHT})

    assert host.serials() == [8]


def test_file_added_to_and_removed_from_a_configmap_is_noticed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    generation(host.policies, "..1", {"a.toml": SEVEN})
    host.settle()
    generation(host.policies, "..2", {"a.toml": SEVEN, "b.toml": policy(id="b", serial=3)})
    assert host.serials() == [7, 3]
    generation(host.policies, "..3", {"a.toml": SEVEN})

    assert host.code() == "id-gone"


def test_swap_before_the_kubelet_made_its_links_is_noticed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    generation(host.policies, "..1", {"a.toml": SEVEN})
    (host.policies / "..1" / "b.toml").write_bytes(policy(id="b", serial=3))
    host.settle()
    assert host.serials() == [7, 3]  # what the generation holds is read, whether or not a link leads there
    with (host.policies / "..1" / "b.toml").open("r+b") as file:
        file.write(policy(id="b", serial=4))

    assert host.serials() == [7, 4]


def test_many_swaps_while_others_ask_refuse_nobody_for_good(tmp_path: Path) -> None:
    host = Host(tmp_path)
    generation(host.policies, "..0", {"a.toml": policy(serial=1)})
    host.serials()
    done = threading.Event()

    def asking() -> list[int]:
        seen: list[int] = []
        while not done.is_set():
            seen.extend(host.serials())
        return seen

    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(asking) for _ in range(2)]
        for serial in range(2, 30):
            generation(host.policies, f"..{serial}", {"a.toml": policy(serial=serial)})
            time.sleep(0.005)
        done.set()
        seen = [each.result(10) for each in asked]

    assert (host.serials(), host.code()) == ([29], None)
    assert seen == [sorted(each) for each in seen]
    assert all(len(set(each)) > 1 for each in seen)


@pytest.mark.parametrize("name", ["\x1b[31mx.toml", "x\n.toml", "\u202ex.toml", "\udcff.toml"])
def test_file_whose_name_would_write_on_terminals_and_in_logs_is_refused(host: Host, name: str) -> None:
    host.write(name, policy(id="b"))

    stand_in = host.live.situation().stand_in

    assert stand_in is not None
    assert stand_in.refusal.code == "unreadable"
    assert stand_in.sentence.isprintable()


# The clock


def test_expiry_is_noticed_though_no_file_changed(host: Host) -> None:
    host.now = HEADER["expires_at"] - SECOND
    assert host.code() is None
    assert host.reads == 0
    host.now = HEADER["expires_at"]

    assert host.code() == "expired"


def test_end_of_the_last_good_sets_time_is_noticed_though_no_file_changed(host: Host) -> None:
    host.write("1.toml", b"garbage\n")
    host.settle()
    assert host.live.situation().limits()[MAX_CPUS] == 1
    host.now += DAY - SECOND
    assert host.live.situation().limits()[MAX_CPUS] == 1
    host.now += SECOND

    assert host.live.situation().limits().values["max_cpus"] == 0.5


def test_clock_set_back_is_noticed_though_no_file_changed(host: Host) -> None:
    host.now = HEADER["issued_at"] - SECOND

    assert host.code() == "clock-behind"


def test_clock_set_right_is_noticed_within_a_minute(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("1.toml", policy(not_before=NOW + 30 * SECOND))
    time.sleep(0.06)
    assert host.code() == "not-yet-valid"
    host.now += 59 * SECOND
    assert (host.code(), host.reads) == ("not-yet-valid", 1)
    host.now += SECOND

    assert host.code() is None


# A bad new set


def test_bad_new_set_leaves_the_good_one_in_force_and_whoever_has_it_undisturbed(host: Host) -> None:
    held = host.live.situation()
    limits = held.limits()
    host.write("1.toml", b"garbage\n")
    stood_in = host.live.situation()

    assert (held.stand_in, held.limits()) == (None, limits)
    assert stood_in.stand_in is not None
    assert stood_in.limits().digest == limits.digest


def test_situation_in_hand_outlives_its_successor(host: Host) -> None:
    held = host.live.situation()
    host.write("1.toml", EIGHT)

    assert host.live.situation().limits()[MAX_CPUS] == 2
    assert held.limits()[MAX_CPUS] == 1


def test_files_touched_without_a_change_keep_the_situation_and_what_it_resolved(host: Host) -> None:
    held = host.live.situation()
    os.utime(host.policies / "1.toml")

    assert host.live.situation() is held
    assert host.reads == 1


def test_memory_of_the_process_alone_keeps_a_last_good_set_and_tells_old_from_new(host: Host) -> None:
    host.write("1.toml", EIGHT)
    assert host.code() is None
    host.write("1.toml", SEVEN)
    assert (host.code(), host.serials()) == ("rollback", [8])
    host.now += DAY

    stand_in = host.live.situation().stand_in
    assert stand_in is not None
    assert stand_in.locked_down


def test_memory_of_the_process_alone_ends_with_it(host: Host) -> None:
    host.write("1.toml", EIGHT)
    assert host.serials() == [8]
    host.write("1.toml", SEVEN)
    restarted = Host(host.policies.parent)

    assert (restarted.code(), restarted.serials()) == (None, [7])


# The state folder


def test_id_forgotten_by_another_process_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    host = at_rest(tmp_path, files=(SEVEN, policy(id="b")), SANDBOX_POLICY_STATE=str(folder))
    (host.policies / "2.toml").unlink()
    host.settle()
    assert host.code() == "id-gone"

    def without(known: Remembered) -> tuple[None, Remembered]:
        return None, replace(known, policies={"acme-prod": known.policies["acme-prod"]})

    StateFolder(folder).change(without)

    assert host.code() is None


def test_state_damaged_while_a_good_set_holds_is_noticed(tmp_path: Path) -> None:
    host = at_rest(tmp_path, SANDBOX_POLICY_STATE=str(tmp_path / "state"))
    file = tmp_path / "state" / STATE_NAME
    whole = file.read_bytes()
    file.write_bytes(b"garbage")
    with pytest.raises(SetRefusedError) as refused:
        host.live.situation()
    assert refused.value.code == "state-invalid"
    with pytest.raises(SetRefusedError, match="it is damaged"):
        host.live.standing()
    file.write_bytes(whole)

    assert host.serials() == [7]


def test_state_removed_while_a_good_set_holds_is_written_anew(tmp_path: Path) -> None:
    host = at_rest(tmp_path, SANDBOX_POLICY_STATE=str(tmp_path / "state"))
    (tmp_path / "state" / STATE_NAME).unlink()

    assert host.serials() == [7]
    assert (tmp_path / "state" / STATE_NAME).exists()


def test_process_that_sees_old_files_stands_by_what_its_neighbour_accepted(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    (tmp_path / "late").mkdir()
    late, early = Host(tmp_path / "late", SANDBOX_POLICY_STATE=state), Host(tmp_path, SANDBOX_POLICY_STATE=state)
    late.write("1.toml", SEVEN)
    early.write("1.toml", SEVEN)
    assert (late.serials(), early.serials()) == ([7], [7])
    early.write("1.toml", EIGHT)
    assert early.serials() == [8]

    assert (late.serials(), late.code()) == ([8], "rollback")
    late.write("1.toml", EIGHT)
    assert (late.code(), early.code()) == (None, None)


def test_wait_for_a_neighbour_who_accepted_a_younger_policy_makes_no_clock_late() -> None:
    class BusyMemory(ProcessMemory):
        """A memory whose lock a neighbour holds for some seconds."""

        def change(self, decide: Callable[[Remembered], tuple[T, Remembered]]) -> T:
            instance.now += 5 * SECOND
            return super().change(decide)

    instance = Instance(policy(issued_at=NOW + 3 * SECOND), memory=BusyMemory())

    assert instance.code() is None


def test_onlooker_sees_what_holds_and_remembers_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "1.toml").write_bytes(policy({}, ADA, expires_at=current_moment() + HOUR))
    environ = {
        "SANDBOX_POLICY_PATH": str(tmp_path / "1.toml"),
        "SANDBOX_POLICY_KEYS": inline(ADA),
        "SANDBOX_INSTANCE": "prod-eu",
        "SANDBOX_POLICY_STATE": str(state),
    }

    assert onlooker(read_environment(environ)).standing() is not None
    assert not state.exists()


# Many at once


def test_threads_at_once_judge_once(tmp_path: Path) -> None:
    host = at_rest(tmp_path)
    slow_reader = PolicyReader(
        policies=lambda path, is_unsigned: _slowly(host, path, is_unsigned), keys=host.reader.keys
    )
    ticks = itertools.count()
    live = LivePolicy(host.environment, reader=slow_reader, now=lambda: NOW + next(ticks) * SECOND)
    together = threading.Barrier(8)

    def asking(_number: int) -> Situation:
        together.wait(10)
        return live.situation()

    with ThreadPoolExecutor(8) as threads:
        situations = list(threads.map(asking, range(8)))

    assert host.reads == 1
    assert all(each is situations[0] for each in situations)


def _slowly(host: Host, path: Path, is_unsigned: bool) -> Mapping[str, bytes]:  # noqa: FBT001 -- the protocol's shape
    time.sleep(0.05)
    return host.reader.policies(path, is_unsigned)


# Settings that contradict each other


def test_settings_that_contradict_each_other_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SANDBOX_POLICY_UNSIGNED_ALLOWED"):
        Host(tmp_path, SANDBOX_POLICY_UNSIGNED_ALLOWED="true")


@pytest.mark.parametrize(
    "variables",
    [{"SANDBOX_POLICY_KEYS": "ed25519:short"}, {"SANDBOX_POLICY_KEYS": "/no/keys"}, {"SANDBOX_POLICY_THRESHOLD": "2"}],
    ids=["malformed", "missing", "threshold without keys"],
)
def test_keys_that_cannot_be_used_are_an_error_though_no_path_is_named(variables: dict[str, str]) -> None:
    live = LivePolicy(read_environment(variables), reader=trusted_reader(), now=current_moment)

    with pytest.raises(SetRefusedError) as refused:
        live.situation()
    assert refused.value.code == "keys-invalid"
