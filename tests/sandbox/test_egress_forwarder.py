"""The forwarder in real boxes: it takes nothing of the code's limits; ending it, or the proxy, harms one run alone."""

import asyncio
import os
import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sandbox.egress_proxy import EgressProxy
from sandbox.outcome import KeptOutput, Outcome
from sandbox.pool import Pool
from sandbox.ready_box import BoxPlan, ReadyBox
from sandbox.runner import Runner
from sandbox.spec import compile_run
from tests.sandbox.conftest import PATIENCE, Place, eventually
from tests.sandbox.egress_boxes import Inhabited, networked, networked_request
from tests.sandbox.egress_client import connecting
from tests.sandbox.egress_world import OTHER_PUBLIC, World, echo, served, web
from tests.sandbox.pooled import up_to_date, waiting_boxes

pytestmark = pytest.mark.gvisor


@pytest.fixture
def world() -> World:
    return World()


# Beside the forwarder


@pytest.mark.parametrize(
    ("language", "code"),
    [
        pytest.param("bash", "sleep 0.1 & sleep 0.2 & wait; echo done", id="bash-wait"),
        pytest.param("bash", "sleep 0.1 & while wait -n; do :; done; echo done", id="bash-wait-n"),
        pytest.param(
            "python",
            "import os\nfor _ in range(3):\n    if not os.fork(): os._exit(0)\n"
            "try:\n    while True: os.wait()\nexcept ChildProcessError: print('done')",
            id="os-wait",
        ),
        pytest.param(
            "python",
            "import os\ntry: os.waitpid(-1, 0)\nexcept ChildProcessError: print('done')",
            id="no-children",
        ),
    ],
)
async def test_code_that_waits_for_all_its_children_does_not_wait_for_the_forwarder(
    place: Place, world: World, language: str, code: str
) -> None:
    result = await Inhabited.by(place, world).run(code, language=language)

    assert (result.outcome, result.output) == (Outcome.OK, "done\n")


KILL_THE_OTHERS = """
import os, signal, urllib.request
def get():
    try:
        return urllib.request.urlopen("http://web.example/", timeout=5).read().decode()
    except OSError:  # refused, or reset where it came while the other one died
        return "nothing"
print(get())
others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
for number in others:
    os.kill(number, signal.SIGKILL)
print(len(others), get())
"""


async def test_killing_the_forwarder_harms_that_run_alone(place: Place, world: World) -> None:
    inhabited = Inhabited.by(place, world)
    async with served(web({"/": ("200 OK", b"found")})) as door:
        world.place("web.example", door)
        first = await inhabited.run(KILL_THE_OTHERS)
        second = await inhabited.run(KILL_THE_OTHERS.partition("others =")[0])

    assert first.output == "found\n1 nothing\n"
    assert (first.outcome, second.output) == (Outcome.OK, "found\n")


FORKS = """
import os, time
made = 0
try:
    while made < 100:
        if not os.fork():
            time.sleep(20)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
"""


async def test_process_limit_is_the_codes_own_although_a_forwarder_runs(place: Place, world: World) -> None:
    without = await place.run(FORKS, max_processes=8)
    with_network = await Inhabited.by(place, world).run(FORKS, max_processes=8)

    assert (without.output, with_network.output) == ("7\n", "7\n")


async def test_memory_limit_is_the_codes_own_although_a_forwarder_runs(place: Place, world: World) -> None:
    inhabited = Inhabited.by(place, world)
    within = await inhabited.run("kept = bytearray(48 << 20); print(len(kept))", max_ram_megabytes=64)
    beyond = await inhabited.run("kept = bytearray(120 << 20); print(len(kept))", max_ram_megabytes=64)

    assert (within.outcome, beyond.outcome) == (Outcome.OK, Outcome.OUT_OF_MEMORY)


# Boxes that wait


ASKS = """
import urllib.error, urllib.request
for name in ("web.example", "other.example"):
    try:
        print(urllib.request.urlopen(f"http://{name}/").read().decode())
    except urllib.error.HTTPError as error:
        print(error.code)
"""


async def test_waiting_box_refuses_everything_and_then_follows_the_rules_of_its_own_run(
    place: Place, world: World
) -> None:
    inhabited = Inhabited.by(place, world).place
    pool = Pool(place.equipment.folder / "slots", size=2, outdated=up_to_date)
    async with served(web({"/": ("200 OK", b"found")})) as door, Runner(inhabited.equipment, pool=pool) as runner:
        world.place("web.example", door)
        world.place("other.example", door, address=OTHER_PUBLIC)
        await runner.run(networked_request("pass", limits=networked()))
        await eventually(lambda: waiting_boxes(place) == 2, 30)

        for run in place.runs.iterdir():
            with suppress(FileNotFoundError):
                assert b" 403 " in await answered_at(run / "egress" / "proxy", connecting("web.example:80"))
        assert (world.asked, world.reached) == ([], [])

        names = ("web.example", "other.example")
        results = [await runner.run(networked_request(ASKS, limits=networked(name))) for name in names]

    assert [result.pooled for result in results] == [True, True]
    assert [result.output for result in results] == ["found\n403\n", "403\nfound\n"]


async def answered_at(path: Path, said: bytes) -> bytes:
    """What a socket says to that, named through its folder: paths of sockets have room for 107 bytes."""
    with closing(socket.socket(socket.AF_UNIX)) as one:
        one.settimeout(0)
        opened = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            one.connect(f"/proc/self/fd/{opened}/{path.name}")
        finally:
            os.close(opened)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(one, said)
        return await loop.sock_recv(one, 1000)


# A proxy that ends


LISTENS = """
import socket
one = socket.create_connection(("127.0.0.1", 3128))
one.sendall(b"CONNECT web.example:80 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
while True:
    said = one.recv(100)
    print(said.split()[:2], flush=True)
    if not said: break
again = socket.create_connection(("127.0.0.1", 3128), timeout=5)
try:
    again.sendall(b"CONNECT web.example:80 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(again.recv(100) or "closed")
except OSError as error:  # who closes first decides which it is
    print("closed")
raise SystemExit(7)
"""


async def test_proxy_that_ends_in_the_middle_is_seen_by_the_code_and_the_run_ends_truthfully(
    place: Place, world: World
) -> None:
    equipment = Inhabited.by(place, world).place.equipment
    limits = networked()
    compiled = compile_run("python", limits, equipment.tree)
    plan = BoxPlan(
        compiled=compiled,
        cgroup_limits=compiled.cgroup_limits,
        equipment=equipment,
        language="python",
        startup_seconds=30 * PATIENCE,
    )
    output = KeptOutput(limit_bytes=1 << 20)
    async with served(echo) as door:
        world.place("web.example", door)
        box = await ReadyBox.started(plan)
        try:
            serving = asyncio.create_task(
                box.serve(
                    LISTENS.encode(),
                    output,
                    limits=limits,
                    within_seconds=20 * PATIENCE,
                    handed_over=lambda: None,
                )
            )
            await eventually(lambda: world.reached != [], 20)
            await asyncio.sleep(0.2)
            assert isinstance(box.egress, EgressProxy)
            await box.egress.close()
            end = await serving
        finally:
            await box.remove()

    said = b"".join(chunk.data for chunk in output.chunks)
    assert said == b"[b'HTTP/1.1', b'200']\n[]\nclosed\n"
    assert (end.exit_code, end.timed_out) == (7, False)
