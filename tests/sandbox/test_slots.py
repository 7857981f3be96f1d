"""Runs at once are counted by locks that a dead process cannot keep, under names that nobody chose."""

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier, Thread

import pytest

from policy.values import UNLIMITED
from sandbox.errors import BusyError
from sandbox.slots import taken_slots
from tests.sandbox.conftest import limits_of

SLOT_NAME = re.compile(r"(person-[0-9a-f]{64}|instance)-[0-9]+")


def test_as_many_runs_as_permitted_go_at_once_and_the_next_names_limit_and_origin(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=2)

    with (
        taken_slots(tmp_path, "ann", limits),
        taken_slots(tmp_path, "ann", limits),
        pytest.raises(BusyError) as caught,
        taken_slots(tmp_path, "ann", limits),
    ):
        pass

    assert caught.value.key == "max_concurrent_runs"
    assert "test" in caught.value.origin
    assert caught.value.reason == "as many runs are under way as are permitted at once (2 runs)"


def test_a_slot_is_free_again_once_its_run_has_ended_or_failed(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=1)

    with pytest.raises(ZeroDivisionError), taken_slots(tmp_path, "ann", limits):
        raise ZeroDivisionError
    with taken_slots(tmp_path, "ann", limits):
        pass


def test_one_persons_runs_do_not_count_for_another(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=1)

    with taken_slots(tmp_path, "ann", limits), taken_slots(tmp_path, "bob", limits):
        pass


def test_the_instances_limit_counts_all_persons_and_frees_the_persons_slot_on_refusal(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=1, max_instance_runs=1)

    with (
        taken_slots(tmp_path, "ann", limits),
        pytest.raises(BusyError) as caught,
        taken_slots(tmp_path, "bob", limits),
    ):
        pass
    with taken_slots(tmp_path, "bob", limits):
        pass

    assert caught.value.key == "max_instance_runs"
    assert caught.value.reason == "as many runs are under way as are permitted at once (1 run)"


def test_a_tighter_limit_counts_runs_that_began_under_a_looser_one(tmp_path: Path) -> None:
    with (
        taken_slots(tmp_path, "ann", limits_of(max_concurrent_runs=5)),
        pytest.raises(BusyError),
        taken_slots(tmp_path, "ann", limits_of(max_concurrent_runs=1)),
    ):
        pass


def test_unlimited_runs_take_no_slot(tmp_path: Path) -> None:
    limits = limits_of(max_concurrent_runs=UNLIMITED, max_instance_runs=UNLIMITED)

    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(taken_slots(tmp_path, "ann", limits))
        assert list(tmp_path.iterdir()) == []


def test_a_hundred_parallel_starts_at_limit_three_never_over_run_it(tmp_path: Path) -> None:
    limits, together, admitted = limits_of(max_concurrent_runs=3), Barrier(100), []

    def start() -> None:
        together.wait()
        try:
            with taken_slots(tmp_path, "ann", limits):
                admitted.append(1)
                all_tried.wait()
        except BusyError:
            all_tried.wait()

    all_tried = Barrier(100)
    threads = [Thread(target=start) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(admitted) == 3


def test_a_killed_process_keeps_no_slot(tmp_path: Path) -> None:
    holder = (
        "import sys, pathlib; from sandbox.slots import taken_slots; from tests.sandbox.conftest import limits_of\n"
        "with taken_slots(pathlib.Path(sys.argv[1]), 'ann', limits_of(max_concurrent_runs=1)):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    limits = limits_of(max_concurrent_runs=1)
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError), taken_slots(tmp_path, "ann", limits):
            pass
        process.kill()
        process.wait()
        with taken_slots(tmp_path, "ann", limits):
            pass


@pytest.mark.parametrize(
    "person",
    [
        pytest.param("../../x", id="path"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a\x00b", id="NUL"),
        pytest.param("", id="empty"),
        pytest.param("x" * (1 << 20), id="1-MiB"),
        pytest.param("\ud800", id="lone-surrogate"),
        pytest.param("instance", id="like-ours"),
    ],
)
def test_hostile_person_id_names_no_file(tmp_path: Path, person: str) -> None:
    inside = tmp_path / "slots"

    with taken_slots(inside, person, limits_of(max_instance_runs=1)):
        names = [entry.name for entry in inside.iterdir()]

    assert all(SLOT_NAME.fullmatch(name) for name in names)
    assert list(tmp_path.iterdir()) == [inside]


def test_a_planted_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "instance-0").symlink_to(tmp_path / "elsewhere")

    with (
        pytest.raises(OSError, match="Too many levels of symbolic links"),
        taken_slots(tmp_path, "ann", limits_of(max_instance_runs=1)),
    ):
        pass

    assert not (tmp_path / "elsewhere").exists()


def test_the_folder_is_private(tmp_path: Path) -> None:
    with taken_slots(tmp_path / "slots", "ann", limits_of()):
        assert (tmp_path / "slots").stat().st_mode & 0o777 == 0o700
