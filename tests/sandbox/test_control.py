"""Who may ask gVisor about a box, and whose answers are believed."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.control import ExitWatch
from sandbox.launch import Launch
from sandbox.ready_box import BoxPlan, ReadyBox
from sandbox.spec import compile_run
from tests.sandbox.conftest import Place, limits_of

NAME = "0" * 32


@contextmanager
def answering(state: Path, *answers: bytes) -> Iterator[None]:
    """A control socket that says these things to the first who asks, a moment apart, and then nothing more."""

    def answer() -> None:
        with suppress(OSError), server.accept()[0] as connection:
            connection.recv(4096)
            for said in answers:
                connection.sendall(said)
                time.sleep(0.01)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(state / f"runsc-{NAME}.sock"))
        server.listen()
        server.settimeout(5)
        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


async def told(state: Path, *answers: bytes) -> int | None:
    with answering(state, *answers):
        watch = await ExitWatch.opened(state, NAME, os.getpid(), frozenset({os.getpid()}))
        assert watch is not None
        return await watch.exit_code()


def answer_of(result: object) -> bytes:
    return json.dumps({"success": True, "err": "", "result": result}).encode()


@pytest.mark.parametrize(
    ("answers", "exit_code"),
    [
        pytest.param((answer_of(0),), 0, id="ended-well"),
        pytest.param((answer_of(7 << 8),), 7, id="exit-code"),
        pytest.param((answer_of(9),), 137, id="signal"),
        pytest.param((answer_of(3 << 8)[:10], answer_of(3 << 8)[10:]), 3, id="in-two-pieces"),
        pytest.param((), None, id="no-answer"),
        pytest.param((answer_of(0)[:-3],), None, id="half-an-answer"),
        pytest.param((b"nonsense",), None, id="no-json"),
        pytest.param((b"[" * 4000,), None, id="deeply-nested"),
        pytest.param((b" " * 9000,), None, id="endless"),
        pytest.param((answer_of("0"),), None, id="text-for-a-number"),
        pytest.param((answer_of(None),), None, id="nothing-for-a-number"),
        pytest.param((answer_of(10**40),), None, id="huge-number"),
        pytest.param((b'{"success": false, "err": "no such container", "result": 0}',), None, id="failure"),
        pytest.param((b'{"result": 0}',), None, id="no-success"),
        pytest.param((b"7",), None, id="a-number-alone"),
    ],
)
async def test_answer(short_path: Path, answers: tuple[bytes, ...], exit_code: int | None) -> None:
    assert await told(short_path, *answers) == exit_code


async def test_listener_that_is_no_process_of_the_box_is_not_believed(short_path: Path) -> None:
    with answering(short_path, answer_of(0)):
        assert await ExitWatch.opened(short_path, NAME, os.getpid(), frozenset({1})) is None


async def test_without_a_socket_there_is_no_watch(short_path: Path) -> None:
    assert await ExitWatch.opened(short_path, NAME, os.getpid(), frozenset({os.getpid()})) is None


@asynccontextmanager
async def waiting_box(place: Place) -> AsyncIterator[ReadyBox]:
    compiled = compile_run("python", limits_of(), place.equipment.tree)
    plan = BoxPlan(
        compiled=compiled,
        cgroup_limits=compiled.cgroup_limits,
        equipment=place.equipment,
        language="python",
        startup_seconds=30,
    )
    box = await ReadyBox.started(plan)
    try:
        yield box
    finally:
        await box.remove()


@pytest.mark.gvisor
async def test_real_gvisor_answers(place: Place) -> None:
    async with waiting_box(place) as box:
        assert box.answers


DEBIANS_PYTHON = "/usr/bin/python3"
"""Any user may start it, which is not sure of the one that runs this."""
NEIGHBOUR = """
import json, socket, sys
for address in sys.argv[1:]:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(2)
    try:
        connection.connect(address.replace("@", chr(0)))
        asked = {"method": "containerManager.Processes", "arg": address[-32:].strip("@")}
        connection.sendall(json.dumps(asked).encode())
        print("reached", connection.recv(1000))
    except OSError as error:
        print("closed", error)
"""


def network_of(process: int | str) -> Path:
    return Path(f"/proc/{process}/ns/net").readlink()


@pytest.mark.gvisor
async def test_neighbour_on_the_host_cannot_command_a_box(place: Place) -> None:
    async with waiting_box(place) as box:
        name, state = box.folder.name, box.folder.state
        addresses = (f"@runsc-sandbox.{name}", f"@runsc-sandbox.{name}@", *map(str, state.glob("*.sock")))
        become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        neighbour = await asyncio.create_subprocess_exec(
            *become, DEBIANS_PYTHON, "-I", "-S", "-c", NEIGHBOUR, *addresses, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await neighbour.communicate()

    assert said.count(b"closed") == len(addresses), said


@pytest.mark.gvisor
async def test_neighbour_cannot_command_a_rootless_box_that_root_started(place: Place) -> None:
    launch = Launch(arguments=(*place.equipment.runsc.arguments, "--rootless"), rootless=True, platform="ptrace")
    runsc = replace(place.equipment.runsc, arguments=launch.arguments)
    rootless = replace(place, equipment=replace(place.equipment, runsc=runsc, launch=launch, proof=None))

    async with waiting_box(rootless) as box:
        networks = set(map(network_of, box.processes()))

    assert network_of("self") not in networks


def own_networks() -> tuple[Path, ...]:
    return network_of("self"), network_of("thread-self")


@pytest.mark.gvisor
async def test_asking_leaves_the_callers_own_network_alone(place: Place) -> None:
    before = own_networks()
    async with waiting_box(place):
        assert own_networks() == before
        with socket.socket(socket.AF_UNIX) as own:
            own.bind("\0sandbox-lockdown-test")
