"""Where cgroups are found on a real hierarchy of version 2: at its root, in services and in containers."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.vm.places import (
    CONTROLLERS,
    HIERARCHY,
    PERSON,
    command_in,
    delegated_service,
    made_slice,
    members,
    removed,
)
from tests.vm.probe import GREEDY, LIMIT_MEBIBYTES, MEBIBYTE

REPOSITORY = Path(__file__).parents[2]
SLOW = pytest.mark.timeout(300)

Slice = Callable[..., Path]


@pytest.fixture
def new_slice() -> Iterator[Slice]:
    """Makes cgroups that hand controllers down, which are removed at the end."""
    made: list[Path] = []

    def made_here(*, handed_down: Sequence[str] = CONTROLLERS) -> Path:
        made.append(made_slice(f"test-{secrets.token_hex(4)}.slice", handed_down=handed_down))
        return made[-1]

    yield made_here
    for folder in made:
        removed(folder)


def service_in(parent: Path) -> Path:
    folder = parent / "app.service"
    folder.mkdir()
    return folder


def said_in(
    folder: Path, *options: str, user: int = 0, own_namespace: bool = False, probe: str = "probe"
) -> dict[str, object]:
    command = [sys.executable, "-m", f"tests.vm.{probe}", *options]
    ended = subprocess.run(
        command_in(folder, command, user=user, own_namespace=own_namespace),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert isinstance(said, dict)
    return said


def all_in(folder: Path) -> dict[str, str]:
    return dict.fromkeys(CONTROLLERS, str(folder))


def handed_down_in(folder: Path) -> dict[str, str]:
    return {str(path.parent): path.read_text() for path in folder.rglob("cgroup.subtree_control")}


def assert_limits_bit(said: dict[str, object]) -> None:
    peak = said["peak_memory_bytes"]
    assert isinstance(peak, int)
    assert (LIMIT_MEBIBYTES - 8) * MEBIBYTE < peak <= LIMIT_MEBIBYTES * MEBIBYTE
    kills = said["oom_kills"]
    assert isinstance(kills, int)
    assert kills >= 1
    assert (said["exit_code"], said["left"]) == (-9, [])


def test_root_at_the_true_root_uses_it_among_its_processes() -> None:
    said = said_in(HIERARCHY, "--limited")

    assert said["own"] == "0::/"
    assert said["places"] == all_in(HIERARCHY)
    assert_limits_bit(said)


def test_root_in_a_service_without_delegation_uses_the_slice_and_moves_nobody(new_slice: Slice) -> None:
    parent = new_slice()
    service = service_in(parent)
    neighbour = subprocess.Popen(command_in(service, ["/bin/sleep", "300"]))

    said = said_in(service, "--limited")

    assert said["places"] == all_in(parent)
    assert_limits_bit(said)
    assert members(service) == [str(neighbour.pid)]
    assert handed_down_in(service) == {str(service): ""}
    neighbour.kill()
    neighbour.wait()


def test_root_below_a_slice_that_hands_nothing_down_yet_lets_it(new_slice: Slice) -> None:
    parent = new_slice(handed_down=())

    said = said_in(service_in(parent), "--limited")

    assert said["places"] == all_in(parent)
    assert_limits_bit(said)


@pytest.mark.parametrize("user", [0, PERSON], ids=["root", "person"])
def test_delegated_service_with_a_subgroup_is_used(new_slice: Slice, user: int) -> None:
    runner = delegated_service(new_slice() / "app.service", user)

    said = said_in(runner, "--limited", user=user)

    assert said["uid"] == user
    assert said["places"] == all_in(runner.parent)
    assert said["missing"] == {}
    assert_limits_bit(said)


def test_person_gets_of_delegated_controllers_what_there_is(new_slice: Slice) -> None:
    runner = delegated_service(new_slice(handed_down=("memory", "pids")) / "app.service", PERSON)

    said = said_in(runner, user=PERSON)

    assert said["places"] == {"memory": str(runner.parent), "pids": str(runner.parent)}
    missing = said["missing"]
    assert isinstance(missing, dict)
    assert set(missing) == {"cpu"}
    assert "Delegate=yes" in missing["cpu"]


def test_person_in_a_service_without_delegation_is_refused_and_changes_nothing(new_slice: Slice) -> None:
    parent = new_slice()
    before = handed_down_in(service_in(parent).parent)

    said = said_in(parent / "app.service", user=PERSON)

    assert said["places"] == {}
    assert "Delegate=yes" in str(said["remedy"])
    assert handed_down_in(parent) == before


def test_person_whose_delegated_service_holds_the_process_itself_is_told_of_the_subgroup(new_slice: Slice) -> None:
    service = delegated_service(new_slice() / "app.service", PERSON).parent
    (service / "runner").rmdir()

    said = said_in(service, user=PERSON)

    assert said["places"] == {}
    assert "DelegateSubgroup=runner" in str(said["remedy"])


def test_container_with_a_cgroup_namespace_of_its_own_is_refused_and_moves_nobody(new_slice: Slice) -> None:
    container = service_in(new_slice())
    neighbour = subprocess.Popen(command_in(container, ["/bin/sleep", "300"]))

    said = said_in(container, own_namespace=True)

    assert said["own"] == "0::/"
    assert said["places"] == {}
    assert "--cgroupns=host" in str(said["remedy"])
    assert members(container) == [str(neighbour.pid)]
    neighbour.kill()
    neighbour.wait()


@SLOW
@pytest.mark.gvisor
@pytest.mark.parametrize("in_service", [False, True], ids=["at the true root", "in a service without delegation"])
def test_real_box_runs_out_of_memory(new_slice: Slice, *, in_service: bool) -> None:
    parent = new_slice() if in_service else HIERARCHY

    said = said_in(service_in(parent) if in_service else parent, GREEDY, probe="box_probe")

    assert said["places"] == all_in(parent)
    assert said["outcome"] == "out_of_memory"
    assert not (parent / "sandbox-lockdown").exists()
